"""hardmine in an MMDetection config: ``custom_imports = dict(imports=["hardmine_mmdet"])``.

Registers ``HardMiningSampler`` and ``HardMiningHook`` with mmengine.
"""

from importlib.util import find_spec

from hardmine.errors import MissingExtra

if find_spec("mmengine") is None:
    raise MissingExtra("mmdet", "hardmine_mmdet")

from hardmine_mmdet.hook import HardMiningHook
from hardmine_mmdet.sampler import HardMiningSampler

__all__ = ["HardMiningHook", "HardMiningSampler"]
