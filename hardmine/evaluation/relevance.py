"""Which images are right answers to which class, and which say nothing about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.records import SIZE_EDGES, ImageSet


@dataclass(frozen=True)
class Relevance:
    """What the labels of N images say about C queries.

    Attributes:
        relevant: (N, C) bool, sparse.
        judged: (N, C) bool, sparse: pairs that the labels decide; None where they decide all.
        ignored: (N, C) bool, sparse: pairs left out of the ranking all the same.
    """

    relevant: scipy.sparse.csc_matrix
    judged: scipy.sparse.csc_matrix | None = None
    ignored: scipy.sparse.csc_matrix | None = None

    def block(self, classes: slice) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_] | None]:
        """Relevant and ignored images of some classes, dense: (c, N) each."""
        relevant = _rows(self.relevant, classes)
        ignored = None
        if self.judged is not None:
            ignored = ~(_rows(self.judged, classes) | relevant)
        if self.ignored is not None:
            left_out = _rows(self.ignored, classes)
            ignored = left_out if ignored is None else ignored | left_out
        if ignored is not None:
            relevant = relevant & ~ignored
        return relevant, ignored


def class_relevance(images: ImageSet, *, all_images: bool = False) -> Relevance:
    """Images that show the class are relevant to it, a crowd of it included.

    Args:
        images: N labelled images.
        all_images: Rank every image for every class. By default an image of federated labels
            (LVIS) takes part only in the rankings of classes verified present or absent in it.
    """
    judged = None
    if images.negatives is not None and not all_images:
        judged = images.negatives.tocsc()
    return Relevance(relevant=_presence(images, np.ones(_count(images), bool)), judged=judged)


def small_medium_relevance(
    images: ImageSet, *, reference_side: float | None = None, all_images: bool = False
) -> Relevance:
    """As ``class_relevance``, for objects that are hard to find because they are small.

    Relevant are the images whose instances of the class are all small or medium. Images with a
    large one, or with a crowd of unknown object size, are left out of the class's ranking.

    Args:
        images: N labelled images.
        reference_side: Areas are measured as if each image's longer side had this length; None
            takes them as labelled. COCO's borders are meant for 640.
        all_images: As in ``class_relevance``.
    """
    everything = class_relevance(images, all_images=all_images)
    instances = images.instances
    if instances is None:
        return everything
    areas = instances.areas
    if reference_side is not None:
        longer = images.sizes.max(axis=1).clip(min=1)[instances.image_rows]
        areas = areas * (reference_side / longer) ** 2
    large = (areas > SIZE_EDGES[1]) | instances.crowd
    return Relevance(everything.relevant, everything.judged, _presence(images, large))


def class_groups(images: ImageSet, *, rare_below: int | None = None) -> tuple[str, ...]:
    """The frequency group of each class: LVIS's own, or by how many images show the class.

    Args:
        images: N labelled images.
        rare_below: Classes in fewer images than this are "rare", the others "frequent".

    Returns:
        C group names; empty if neither says anything.
    """
    if rare_below is not None:
        shown = np.asarray((images.class_counts > 0).sum(axis=0)).ravel()
        return tuple("rare" if count < rare_below else "frequent" for count in shown)
    names = {"r": "rare", "c": "common", "f": "frequent"}
    return tuple(names.get(letter, letter) for letter in images.class_frequency)


def _count(images: ImageSet) -> int:
    return 0 if images.instances is None else len(images.instances)


def _presence(images: ImageSet, chosen: npt.NDArray[np.bool_]) -> scipy.sparse.csc_matrix:
    shape = (len(images), len(images.class_names))
    if images.instances is None:
        return scipy.sparse.csc_matrix(shape, dtype=bool)
    rows = images.instances.image_rows[chosen]
    columns = images.instances.class_rows[chosen]
    return scipy.sparse.csc_matrix((np.ones(len(rows), bool), (rows, columns)), shape=shape)


def _rows(matrix: scipy.sparse.csc_matrix, classes: slice) -> npt.NDArray[np.bool_]:
    dense: npt.NDArray[np.bool_] = matrix[:, classes].toarray().T.astype(bool)
    return dense
