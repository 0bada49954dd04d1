"""Which images are relevant to a class, and which are left out of its ranking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.records import SIZE_EDGES, ImageSet


@dataclass(frozen=True)
class Relevance:
    """Which of N images are relevant to C queries.

    Attributes:
        relevant: (N, C) bool, sparse.
        judged: (N, C) bool, sparse: pairs that are known to be relevant or not. The others are
            left out of the ranking. None if all pairs are known.
        ignored: (N, C) bool, sparse: further pairs to leave out.
    """

    relevant: scipy.sparse.csc_matrix
    judged: scipy.sparse.csc_matrix | None = None
    ignored: scipy.sparse.csc_matrix | None = None

    def block(self, queries: slice) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_] | None]:
        """Relevant and ignored images of some queries, dense: (c, N) each."""
        relevant = _rows(self.relevant, queries)
        ignored = None
        if self.judged is not None:
            ignored = ~(_rows(self.judged, queries) | relevant)
        if self.ignored is not None:
            left_out = _rows(self.ignored, queries)
            ignored = left_out if ignored is None else ignored | left_out
        if ignored is not None:
            relevant = relevant & ~ignored
        return relevant, ignored


def class_relevance(images: ImageSet, *, all_images: bool = False) -> Relevance:
    """An image is relevant to a class if it shows an instance or a crowd of it.

    Args:
        images: N labelled images.
        all_images: Rank every image for every class. By default, with federated labels (LVIS), an
            image is ranked only for the classes verified to be present or absent in it.
    """
    judged = None
    if images.negatives is not None and not all_images:
        judged = images.negatives.tocsc()
    return Relevance(relevant=_presence(images, np.ones(_count(images), bool)), judged=judged)


def small_medium_relevance(
    images: ImageSet, *, reference_side: float | None = None, all_images: bool = False
) -> Relevance:
    """Like ``class_relevance``, with only small and medium objects relevant.

    An image is relevant if all its instances of the class are small or medium. Images with a
    large instance, or with a crowd (whose object size is unknown), are left out of the ranking.

    Args:
        images: N labelled images.
        reference_side: Measure areas as if each image's longer side had this many pixels; None
            takes them as labelled. COCO's size edges are meant for 640.
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
    """The frequency group of each class: LVIS's own, or by the number of images with the class.

    Args:
        images: N labelled images.
        rare_below: Classes in fewer images than this are "rare", the others "frequent".

    Returns:
        C group names; empty without groups in the labels and without ``rare_below``.
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


def _rows(matrix: scipy.sparse.csc_matrix, queries: slice) -> npt.NDArray[np.bool_]:
    dense: npt.NDArray[np.bool_] = matrix[:, queries].toarray().T.astype(bool)
    return dense
