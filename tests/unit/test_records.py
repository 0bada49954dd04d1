"""Values that cross borders: shapes are checked, rows stay in step."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from hardmine.errors import HardmineError, InputError, MissingExtra
from hardmine.records import (
    ClassScores,
    Hits,
    ImageSet,
    Instances,
    names_to_rows,
    rows_of,
)


def some_instances(**columns: Any) -> Instances:
    full = {
        "image_rows": np.array([0, 0, 2, 2, 2], np.int32),
        "class_rows": np.array([1, 1, 0, 1, 1], np.int32),
        "boxes": np.arange(20, dtype=np.float32).reshape(5, 4),
        "areas": np.arange(5, dtype=np.float32),
        "crowd": np.array([False, False, False, False, True]),
        "ids": np.array([10, 11, 12, 13, 14]),
        **columns,
    }
    return Instances(**full)


def some_images(**columns: Any) -> ImageSet:
    full = {
        "root": Path("set"),
        "ids": np.array([30, 10, 20]),
        "paths": ("c.jpg", "a.jpg", "b.jpg"),
        "sizes": np.array([[4, 5], [6, 7], [8, 9]], np.int32),
        "class_names": ("cat", "dog"),
        "class_ids": np.array([1, 2]),
        "instances": some_instances(),
        **columns,
    }
    return ImageSet(**full)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"class_rows": np.zeros(4, np.int32)}, r"class_rows must have shape \(5,\), got \(4,\)"),
        ({"boxes": np.zeros((5, 3), np.float32)}, r"boxes must have shape \(5, 4\), got \(5, 3\)"),
        ({"image_rows": np.array([0, 2, 1, 2, 2], np.int32)}, "must be sorted by image_rows"),
    ],
)
def test_instances_refuse_columns_out_of_step(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        some_instances(**columns)


def test_no_instances() -> None:
    assert len(Instances.empty()) == 0
    assert len(Instances.empty().take(np.zeros(0, bool))) == 0


def test_take_by_mask_and_by_position() -> None:
    instances = some_instances()
    for chosen in (instances.class_rows == 1, np.array([0, 1, 3, 4])):
        assert instances.take(chosen).ids.tolist() == [10, 11, 13, 14]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"paths": ("a.jpg",)}, "paths: expected 3, one an id, got 1"),
        ({"sizes": np.zeros((2, 2), np.int32)}, r"sizes: expected \(3, 2\), got \(2, 2\)"),
        ({"class_ids": np.array([1])}, "class_ids: expected 2, one a class name, got 1"),
        ({"ids": np.array([1, 2, 1])}, "image ids must be unique"),
    ],
)
def test_image_sets_refuse_columns_out_of_step(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        some_images(**columns)


def test_class_counts_leave_crowds_out() -> None:
    assert some_images().class_counts.toarray().tolist() == [[0, 2], [0, 0], [1, 1]]
    empty = some_images(instances=None)
    assert not empty.labelled
    assert empty.class_counts.toarray().tolist() == [[0, 0]] * 3


def test_subset_renumbers_and_keeps_everything_in_step() -> None:
    negatives = scipy.sparse.csr_matrix(np.array([[1, 0], [0, 1], [0, 0]], bool))
    images = some_images(negatives=negatives, not_exhaustive=negatives)
    kept = images.subset([2, 0])
    assert kept.ids.tolist() == [20, 30]
    assert kept.paths == ("b.jpg", "c.jpg")
    assert kept.sizes.tolist() == [[8, 9], [4, 5]]
    assert kept.instances is not None
    assert kept.instances.image_rows.tolist() == [0, 0, 0, 1, 1]
    assert kept.instances.ids.tolist() == [12, 13, 14, 10, 11]
    assert kept.federated
    assert kept.negatives is not None
    assert kept.negatives.toarray().tolist() == [[False, False], [True, False]]
    np.testing.assert_array_equal(
        kept.class_counts.toarray(), images.class_counts.toarray()[[2, 0]]
    )
    none = images.subset([])
    assert len(none) == 0
    assert len(none.instances or ()) == 0


def test_the_fingerprint_changes_with_the_images_and_not_with_the_labels() -> None:
    images = some_images()
    assert replace(images, instances=None).fingerprint == images.fingerprint
    assert images.subset([0, 1]).fingerprint != images.fingerprint
    assert images.subset([0, 2, 1]).fingerprint != images.fingerprint
    moved = replace(images, paths=("c.jpg", "a.jpg", "x.jpg"))
    assert moved.fingerprint != images.fingerprint
    assert replace(images, root=Path("elsewhere")).fingerprint == images.fingerprint


@pytest.mark.parametrize(
    ("ids", "wanted", "rows"),
    [
        ([], [1], [-1]),
        ([30, 10], [], []),
        ([30, 10, 20], [10, 40, 30, 5], [1, -1, 0, -1]),
        (["b", "a"], ["a", "c", "b"], [1, -1, 0]),
        (["10", "9"], [9, 10, 11], [1, 0, -1]),
        ([9, 10], ["10", "9"], [1, 0]),
        ([7, 8], ["007", "a"], [-1, -1]),
    ],
)
def test_rows_of_ids(ids: list[Any], wanted: list[Any], rows: list[int]) -> None:
    assert rows_of(np.array(ids), wanted).tolist() == rows


def test_names_to_rows() -> None:
    assert names_to_rows(["dog", "cow", "cat"], ["cat", "dog"]).tolist() == [1, -1, 0]
    assert names_to_rows([], ["cat"]).tolist() == []


def test_hits() -> None:
    hits = Hits(
        np.array([[4, -1]]), np.array([[0.5, -np.inf]], np.float32), np.zeros((1, 2, 4), np.float32)
    )
    assert hits.found.tolist() == [[True, False]]
    with pytest.raises(InputError, match=r"must be \(C, K\), got shape \(2,\)"):
        Hits(np.array([1, 2]), np.zeros(2, np.float32), np.zeros((2, 4), np.float32))
    with pytest.raises(InputError, match=r"must be \(1, 2\) and \(1, 2, 4\)"):
        replace(hits, scores=np.zeros((1, 3), np.float32))


def test_class_scores() -> None:
    scores = ClassScores(("cat", "dog"), np.array([0.5, np.nan]))
    assert len(scores) == 2
    for ap in ([45.2, 3.0], [-1.0, 0.5]):
        with pytest.raises(InputError, match=r"ap must lie in \[0, 1\]"):
            replace(scores, ap=np.array(ap))
    with pytest.raises(InputError, match=r"ap: expected shape \(2,\), got \(1,\)"):
        replace(scores, ap=np.zeros(1))


def test_values_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        some_images().paths = ()  # type: ignore[misc]


def test_a_missing_extra_carries_the_line_that_installs_it() -> None:
    error = MissingExtra("faiss", "the faiss index")
    assert isinstance(error, HardmineError)
    assert isinstance(error, ImportError)
    assert str(error).endswith("pip install 'hardmine[faiss]'")
