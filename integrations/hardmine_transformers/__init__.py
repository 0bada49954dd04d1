"""hardmine in the Hugging Face Trainer: ``HardMining(...).attach(trainer)``."""

from importlib.util import find_spec

from hardmine.errors import MissingExtra

if find_spec("transformers") is None or find_spec("accelerate") is None:
    raise MissingExtra("transformers", "hardmine_transformers")

from hardmine_transformers.callback import HardMining

__all__ = ["HardMining"]
