"""What a detector found: detections, their matches with labels, average precision, slices."""

from hardmine.detections.average_precision import average_precision_from_matches
from hardmine.detections.detections import Detections, load_detections, match_detections

__all__ = [
    "Detections",
    "average_precision_from_matches",
    "load_detections",
    "match_detections",
]
