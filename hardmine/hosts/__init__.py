"""What every trainer needs from hardmine, written once; ``integrations`` hold the rest."""

from hardmine.hosts.batches import RecordedSampler, TrainedBatches
from hardmine.hosts.coco import KeptResults
from hardmine.hosts.images import (
    gather_predictions,
    image_ids,
    predicted_boxes,
    unique_ids,
)
from hardmine.hosts.loaders import SkippedBatches, find_sampler
from hardmine.hosts.mining import HostMining, ValidationResult
from hardmine.hosts.options import MiningOptions
from hardmine.hosts.partners import PartnerTable
from hardmine.hosts.scalars import scalars
from hardmine.hosts.states import (
    StateFolder,
    load_state,
    save_state,
    state_after_epoch,
    state_of_new_loader,
)
from hardmine.mining.order import require_order

__all__ = [
    "HostMining",
    "KeptResults",
    "MiningOptions",
    "PartnerTable",
    "RecordedSampler",
    "SkippedBatches",
    "StateFolder",
    "TrainedBatches",
    "ValidationResult",
    "find_sampler",
    "gather_predictions",
    "image_ids",
    "load_state",
    "predicted_boxes",
    "require_order",
    "save_state",
    "scalars",
    "state_after_epoch",
    "state_of_new_loader",
    "unique_ids",
]
