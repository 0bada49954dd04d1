"""Evaluation by class name: all sizes, small-medium, and groups of rare and frequent classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.evaluation.relevance import (
    class_groups,
    class_relevance,
    small_medium_relevance,
)
from hardmine.evaluation.retrieval import RankingScores, evaluate
from hardmine.index.base import Index
from hardmine.index.coverage import require_same_files
from hardmine.records import ImageSet

METRICS = {
    "map_at_k": "ap_at_k",
    "map": "ap",
    "map_at_k_found": "ap_at_k_found",
    "map_at_k_relevant": "ap_at_k_relevant",
}


@dataclass(frozen=True)
class ClassEvaluation:
    """Retrieval metrics of an index, with the class names of its labels as queries.

    Attributes:
        class_names: C names.
        groups: C frequency groups, such as "rare"; empty if the labels have none.
        all_sizes: Every image that shows the class is relevant.
        small_medium: Only images with small and medium objects are relevant.
        k: Depth of AP@k.
        num_images: Images ranked.
        num_left_out: Labelled images that the index lacks, e.g. because they were unreadable.
        vectors_per_image: Mean number of regions.
    """

    class_names: tuple[str, ...]
    groups: tuple[str, ...]
    all_sizes: RankingScores
    small_medium: RankingScores
    k: int
    num_images: int
    num_left_out: int
    vectors_per_image: float

    def group_names(self) -> tuple[str, ...]:
        """Distinct groups, in the order of their first class."""
        return tuple(dict.fromkeys(self.groups))

    def members(self, group: str) -> npt.NDArray[np.bool_]:
        """(C,) which classes belong to a group."""
        return np.array([name == group for name in self.groups], dtype=bool)


def evaluate_classes(
    index: Index,
    images: ImageSet,
    text_vectors: npt.NDArray[np.float32],
    *,
    k: int = 50,
    reference_side: float | None = None,
    rare_below: int | None = None,
    all_images: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ClassEvaluation:
    """Rank an index's images by each class name and measure the rankings with the labels.

    Images of the index that ``images`` does not hold are left out of the rankings.

    Args:
        index: Holds at least some of the images.
        images: Labelled images.
        text_vectors: (C, D), one for each class of ``images``.
        k: Depth of AP@k.
        reference_side: Longer side at which areas are measured, see ``small_medium_relevance``.
        rare_below: Call classes in fewer images rare, instead of using the labels' own groups.
        all_images: Rank all images of federated labels, verified or not.
        bootstrap: Number of bootstrap samples of the images for intervals; 0 for no intervals.
        seed: Seed of the bootstrap.
        progress: Called with (classes done, C).

    Raises:
        InputError: If there are no labels, or none of an image in the index.
        IndexMismatch: If the index is of another data set.
    """
    if not images.labelled or not images.class_names:
        raise InputError("evaluation by class name needs labels: give an annotation file")
    if len(text_vectors) != len(images.class_names):
        raise InputError(
            f"text_vectors must have one row a class (expected {len(images.class_names)}, "
            f"got {len(text_vectors)})"
        )
    present = index.rows_of(images.ids) >= 0
    if not present.any():
        raise InputError(
            f"none of the {len(images)} labelled images is in the index "
            f"(ids such as {images.ids[:1].tolist()} against {index.ids[:1].tolist()}); "
            "was it built from another data set or split?"
        )
    require_same_files(index, images)
    ranked = images if present.all() else images.subset(np.flatnonzero(present))
    all_sizes, small_medium = evaluate(
        index,
        ranked.ids,
        text_vectors,
        [
            class_relevance(ranked, all_images=all_images),
            small_medium_relevance(ranked, reference_side=reference_side, all_images=all_images),
        ],
        k=k,
        bootstrap=bootstrap,
        seed=seed,
        progress=progress,
    )
    return ClassEvaluation(
        class_names=images.class_names,
        groups=class_groups(ranked, rare_below=rare_below),
        all_sizes=all_sizes,
        small_medium=small_medium,
        k=k,
        num_images=len(ranked),
        num_left_out=int((~present).sum()),
        vectors_per_image=index.num_regions / len(index),
    )
