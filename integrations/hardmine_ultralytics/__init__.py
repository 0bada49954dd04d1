"""hardmine in Ultralytics: ``HardMining("coco.hmx").attach(model)`` before ``model.train(...)``.

Ultralytics is licensed under the AGPL-3.0. Nothing else of hardmine imports it.
"""

from importlib.util import find_spec

from hardmine.errors import MissingExtra

if find_spec("ultralytics") is None:
    raise MissingExtra("ultralytics", "hardmine_ultralytics")

from hardmine_ultralytics.callbacks import HardMining

__all__ = ["HardMining"]
