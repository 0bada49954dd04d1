"""Detections: matched to labels as COCO does, average precision, and AP inside a context."""

from hardmine.detections.answers import answering, similarity_to_texts
from hardmine.detections.average_precision import average_precision_from_matches, bootstrap_weights
from hardmine.detections.detections import Detections, load_detections
from hardmine.detections.matching import COCO_THRESHOLDS, Matches, box_overlaps, match_detections
from hardmine.detections.slices import (
    MeanGap,
    Slice,
    measure_mean_gap,
    measure_slices,
    slice_need,
)

__all__ = [
    "COCO_THRESHOLDS",
    "Detections",
    "Matches",
    "MeanGap",
    "Slice",
    "answering",
    "average_precision_from_matches",
    "bootstrap_weights",
    "box_overlaps",
    "load_detections",
    "match_detections",
    "measure_mean_gap",
    "measure_slices",
    "similarity_to_texts",
    "slice_need",
]
