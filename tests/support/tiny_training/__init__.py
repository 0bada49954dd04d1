"""The training of the ``tiny`` encoder: ``PYTHONPATH=tests/support python -m tiny_training``."""
