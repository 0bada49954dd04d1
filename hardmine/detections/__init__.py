"""Detections: matched to labels as COCO does, average precision, failures and their contexts."""

from hardmine.detections.answers import answering, similarity_to_texts
from hardmine.detections.association import FailureTest, benjamini_hochberg
from hardmine.detections.average_precision import average_precision_from_matches, bootstrap_weights
from hardmine.detections.detections import Detections, load_detections
from hardmine.detections.matching import (
    COCO_THRESHOLDS,
    Matches,
    box_overlaps,
    boxes_as_written,
    match_detections,
    may_be_unlabelled,
    of_checked_classes,
    reaches,
)
from hardmine.detections.outcomes import (
    Outcomes,
    best_threshold,
    best_thresholds,
    find_outcomes,
)
from hardmine.detections.slices import (
    MeanGap,
    Slice,
    measure_mean_gap,
    measure_slices,
)

__all__ = [
    "COCO_THRESHOLDS",
    "Detections",
    "FailureTest",
    "Matches",
    "MeanGap",
    "Outcomes",
    "Slice",
    "answering",
    "average_precision_from_matches",
    "benjamini_hochberg",
    "best_threshold",
    "best_thresholds",
    "bootstrap_weights",
    "box_overlaps",
    "boxes_as_written",
    "find_outcomes",
    "load_detections",
    "match_detections",
    "may_be_unlabelled",
    "measure_mean_gap",
    "measure_slices",
    "of_checked_classes",
    "reaches",
    "similarity_to_texts",
]
