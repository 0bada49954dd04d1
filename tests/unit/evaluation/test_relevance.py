"""Which images are relevant to which class, and which are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from hardmine.evaluation.relevance import (
    class_groups,
    class_relevance,
    small_medium_relevance,
)
from hardmine.records import ImageSet, Instances

CAT, DOG = 0, 1


def image_set(objects, *, num_images=4, side=640, **more) -> ImageSet:
    """An image set from (image row, class row, area, crowd), in image order."""
    rows, classes, areas, crowd = (np.array(column) for column in zip(*objects, strict=True))
    return ImageSet(
        root=Path(),
        ids=np.arange(num_images) + 100,
        paths=tuple(f"{row}.jpg" for row in range(num_images)),
        sizes=np.full((num_images, 2), side, np.int32),
        class_names=("cat", "dog"),
        class_ids=np.array([1, 2]),
        instances=Instances(
            rows.astype(np.int32),
            classes.astype(np.int32),
            np.tile(np.float32([0, 0, 1, 1]), (len(rows), 1)),
            areas.astype(np.float32),
            crowd.astype(bool),
            np.arange(len(rows)),
        ),
        **more,
    )


SMALL, LARGE = 100.0, 97.0**2
OBJECTS = [
    (0, CAT, SMALL, 0),
    (1, CAT, LARGE, 0),
    (1, DOG, SMALL, 0),
    (2, CAT, SMALL, 0),
    (2, CAT, LARGE, 0),
    (3, DOG, SMALL, 1),
]


def test_all_sizes() -> None:
    relevant, ignored = class_relevance(image_set(OBJECTS)).block(slice(0, 2))
    assert relevant.astype(int).tolist() == [[1, 1, 1, 0], [0, 1, 0, 1]]
    assert ignored is None


def test_small_medium_leaves_out_images_with_a_large_one_and_crowds() -> None:
    relevant, ignored = small_medium_relevance(image_set(OBJECTS)).block(slice(0, 2))
    assert relevant.astype(int).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert ignored is not None
    assert ignored.astype(int).tolist() == [[0, 1, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(("area", "large"), [(96.0**2 / 4, False), (96.0**2 / 4 + 1, True)])
def test_areas_are_measured_at_the_reference_side(area, large) -> None:
    images = image_set([(0, CAT, area, 0)], side=320)
    relevant, ignored = small_medium_relevance(images, reference_side=640).block(slice(0, 1))
    assert ignored is not None
    assert (relevant[0, 0], ignored[0, 0]) == (not large, large)


def test_federated_labels_rank_verified_images_only() -> None:
    negatives = scipy.sparse.csr_matrix(
        np.array([[0, 0], [0, 0], [0, 1], [0, 0]], dtype=bool)
    )  # dog is verified absent from image 2
    images = image_set(OBJECTS, negatives=negatives)
    relevant, ignored = class_relevance(images).block(slice(1, 2))
    assert relevant[0].tolist() == [False, True, False, True]
    assert ignored is not None
    assert ignored[0].tolist() == [True, False, False, False]
    assert class_relevance(images, all_images=True).block(slice(1, 2))[1] is None


def test_groups_come_from_the_labels_or_from_a_count() -> None:
    images = image_set(OBJECTS, class_frequency=("f", "r"))
    assert class_groups(images) == ("frequent", "rare")
    # Cats in three images; dogs in one: a crowd is no count.
    assert class_groups(images, rare_below=3) == ("frequent", "rare")
    assert class_groups(image_set(OBJECTS)) == ()


def test_real_lvis_labels(photos) -> None:
    from hardmine.datasets import load_images

    images = load_images(
        photos / "images", annotations=photos / "lvis_val_100.json", check_files=False
    )
    relevance = class_relevance(images)
    relevant, ignored = relevance.block(slice(0, len(images.class_names)))
    assert ignored is not None
    assert images.negatives is not None
    judged = relevant | images.negatives.toarray().T
    np.testing.assert_array_equal(ignored, ~judged)
    assert 0 < judged.mean() < 0.1
