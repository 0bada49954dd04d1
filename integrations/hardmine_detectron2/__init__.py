"""hardmine in detectron2: a sampler for the training loader, an evaluator, and a hook."""

from importlib.util import find_spec

from hardmine.errors import HardmineError

if find_spec("detectron2") is None:
    raise HardmineError(
        "hardmine_detectron2 needs detectron2, which is not on PyPI; install it from its source: "
        "pip install 'git+https://github.com/facebookresearch/detectron2'"
    )

from hardmine_detectron2.hook import HardMining

__all__ = ["HardMining"]
