"""hardmine in Lightning: ``Trainer(callbacks=[HardMining("coco.hmx", sampler=sampler, ...)])``."""

from importlib.util import find_spec

from hardmine.errors import MissingExtra

if find_spec("lightning") is None and find_spec("pytorch_lightning") is None:
    raise MissingExtra("lightning", "hardmine_lightning")

from hardmine_lightning.callback import HardMining

__all__ = ["HardMining"]
