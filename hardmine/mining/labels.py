"""What the labels say of each image and class: present, absent, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.errors import InputError
from hardmine.records import SIZE_EDGES, SIZES, ImageSet, rows_of

PRESENT, ABSENT, UNKNOWN = 1, 0, -1

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """Presence of C classes in N images, one column at a time.

    Attributes:
        present: (N, C) bool, sparse by column: classes labelled in an image.
        absent: (N, C) bool, sparse by column: classes verified absent; None where every labelled
            image is labelled with all classes.
        unsure: (N, C) bool, sparse by column: never taken as absent, because not exhaustively
            annotated or shown as a crowd only.
        labelled: (N,) bool, images that were labelled at all; the rest is an unlabelled pool.
        by_size: ``present`` for small, medium and large objects alone.
        counts: (N, C) sparse, objects of each class in each image, crowds left out; None counts
            one for each class that is present.
    """

    present: scipy.sparse.csc_matrix
    absent: scipy.sparse.csc_matrix | None
    unsure: scipy.sparse.csc_matrix
    labelled: npt.NDArray[np.bool_]
    by_size: tuple[scipy.sparse.csc_matrix, ...] = ()
    counts: scipy.sparse.csc_matrix | None = None

    def __len__(self) -> int:
        return len(self.labelled)

    def status(self, class_row: int) -> npt.NDArray[np.int8]:
        """(N,) PRESENT, ABSENT or UNKNOWN for one class."""
        if self.absent is None:
            status = np.where(self.labelled, np.int8(ABSENT), np.int8(UNKNOWN))
        else:
            status = np.full(len(self), UNKNOWN, np.int8)
            status[_column(self.absent, class_row)] = ABSENT
        status[_column(self.unsure, class_row)] = UNKNOWN
        status[_column(self.present, class_row)] = PRESENT
        return status

    def of_size(self, size: str, class_row: int) -> npt.NDArray[np.bool_] | None:
        """(N,) images with an object of the class of a size; None if ``size`` names none."""
        if size not in SIZES or not self.by_size:
            return None
        chosen = np.zeros(len(self), bool)
        chosen[_column(self.by_size[SIZES.index(size)], class_row)] = True
        return chosen

    def objects(self) -> scipy.sparse.csc_matrix:
        """(N, C) float64 sparse, objects of each class in each image."""
        counts = self.present if self.counts is None else self.counts
        return counts.astype(np.float64)

    def num_present(self) -> npt.NDArray[np.int64]:
        """(C,) images labelled with each class."""
        return np.asarray(np.diff(self.present.indptr), np.int64)

    @classmethod
    def unlabelled(cls, num_images: int, num_classes: int) -> Labels:
        """An unlabelled pool."""
        nothing = scipy.sparse.csc_matrix((num_images, num_classes), dtype=bool)
        return cls(nothing, None, nothing, np.zeros(num_images, bool))


def read_labels(
    images: ImageSet | None, ids: npt.ArrayLike, class_names: tuple[str, ...]
) -> Labels:
    """Arrange an image set's labels by the ids and classes of the training loop.

    Args:
        images: The labels; None, or a set without labels, makes all images a pool.
        ids: (N,) image ids in the order of the sampler's rows. Those that ``images`` lacks are
            unlabelled pool images.
        class_names: C names; one that ``images`` lacks is unknown everywhere.
    """
    image_ids = np.asarray(ids)
    count, classes = len(image_ids), len(class_names)
    if images is None or images.instances is None:
        return Labels.unlabelled(count, classes)
    rows = rows_of(images.ids, image_ids)
    labelled = rows >= 0
    if count and not labelled.any():
        raise InputError(
            f"no image id of the training set is in the labels (e.g. {image_ids[0]!r} against "
            f"{images.ids[0] if len(images) else 'none'!r}); are they of another data set or split?"
        )
    places = {name: place for place, name in enumerate(images.class_names)}
    columns = np.array([places.get(name, -1) for name in class_names], np.int64)

    def arrange(matrix: scipy.sparse.spmatrix, kind: type = bool) -> scipy.sparse.csc_matrix:
        # An empty row and column at the end stand for images and classes that the labels lack.
        padded = scipy.sparse.csr_matrix(matrix, dtype=kind)
        padded.resize(padded.shape[0] + 1, padded.shape[1] + 1)
        return padded[rows][:, columns].tocsc()

    shape = (len(images), len(images.class_names))
    instances = images.instances
    ones = np.ones(int(instances.crowd.sum()), bool)
    where = (instances.image_rows[instances.crowd], instances.class_rows[instances.crowd])
    unsure = scipy.sparse.csr_matrix((ones, where), shape=shape)
    buckets = np.digitize(instances.areas, SIZE_EDGES)
    by_size = []
    for bucket in range(len(SIZES)):
        chosen = (buckets == bucket) & ~instances.crowd
        pairs = (instances.image_rows[chosen], instances.class_rows[chosen])
        sized = scipy.sparse.csr_matrix((np.ones(int(chosen.sum()), np.int32), pairs), shape=shape)
        by_size.append(arrange(sized > 0))
    if images.not_exhaustive is not None:
        unsure = unsure + images.not_exhaustive.astype(bool)
    present = arrange(images.class_counts > 0)
    absent = None if images.negatives is None else arrange(images.negatives)
    unknown = columns < 0
    if unknown.any():  # a class that the labels do not know is neither present nor absent
        _log.warning(
            "%d of %d classes are not among those of the labels, so they are found by text alone: "
            "%s; the labels have %s",
            int(unknown.sum()),
            classes,
            _some([name for name in class_names if name not in places]),
            _some(images.class_names),
        )
        missing = scipy.sparse.csc_matrix(np.tile(unknown, (count, 1)))
        unsure = arrange(unsure) + missing
    else:
        unsure = arrange(unsure)
    counts = arrange(images.class_counts, np.int64)
    return Labels(present, absent, unsure.tocsc(), labelled, tuple(by_size), counts)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")


def _column(matrix: scipy.sparse.csc_matrix, column: int) -> npt.NDArray[np.int32]:
    rows: npt.NDArray[np.int32] = matrix.indices[matrix.indptr[column] : matrix.indptr[column + 1]]
    return rows
