"""Presence by class: present, absent, or nothing is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from hardmine.errors import InputError
from hardmine.mining.labels import read_labels
from hardmine.records import ImageSet, Instances

NAMES = ("car", "fork")


def make(pairs: list[tuple[int, int, float, bool]]) -> ImageSet:
    """Three images 10, 20, 30; (row, class, area, crowd) each."""
    count = len(pairs)
    return ImageSet(
        root=Path(),
        ids=np.array([10, 20, 30]),
        paths=("a", "b", "c"),
        sizes=np.full((3, 2), 100, np.int32),
        class_names=NAMES,
        class_ids=np.array([1, 2]),
        instances=Instances(
            np.array([row for row, *_ in pairs], np.int32),
            np.array([column for _, column, *_ in pairs], np.int32),
            np.zeros((count, 4), np.float32),
            np.array([area for *_, area, _ in pairs], np.float32),
            np.array([crowd for *_, crowd in pairs], bool),
            np.arange(count),
        ),
    )


IMAGES = make([(0, 0, 400.0, False), (0, 0, 9999.0, False), (1, 1, 50.0, False), (2, 0, 9.0, True)])


def test_labels_are_laid_out_by_id_and_what_they_lack_is_a_pool() -> None:
    labels = read_labels(IMAGES, [99, 20, 10], NAMES)
    assert labels.status(0).tolist() == [-1, 0, 1]
    assert labels.status(1).tolist() == [-1, 1, 0]
    assert labels.labelled.tolist() == [False, True, True]
    assert labels.num_present().tolist() == [1, 1]


def test_a_crowd_alone_is_neither_present_nor_absent() -> None:
    assert read_labels(IMAGES, [30], NAMES).status(0).tolist() == [-1]


def test_objects_are_counted_of_the_loops_classes_but_no_crowds() -> None:
    # 10 shows two cars, 20 a fork, 30 a crowd of cars; 99 is not labelled.
    objects = read_labels(IMAGES, [99, 30, 20, 10], NAMES).objects()
    assert objects.toarray().tolist() == [[0, 0], [0, 0], [0, 1], [2, 0]]
    assert read_labels(IMAGES, [20, 10], NAMES[:1]).objects().toarray().tolist() == [[0], [2]]
    assert read_labels(None, [10, 20], NAMES).objects().nnz == 0


def test_sizes_are_cocos() -> None:
    labels = read_labels(IMAGES, [10, 20, 30], NAMES)
    assert labels.of_size("small", 0).tolist() == [True, False, False]
    assert labels.of_size("large", 0).tolist() == [True, False, False]
    assert labels.of_size("medium", 0).tolist() == [False, False, False]
    assert labels.of_size("at night", 0) is None


def test_federated_labels_know_absence_only_where_it_was_verified() -> None:
    absent = scipy.sparse.csr_matrix(np.array([[0, 1], [0, 0], [1, 0]], bool))
    unsure = scipy.sparse.csr_matrix(np.array([[0, 0], [0, 1], [1, 0]], bool))
    labels = read_labels(
        replace(IMAGES, negatives=absent, not_exhaustive=unsure), [10, 20, 30], NAMES
    )
    assert labels.status(0).tolist() == [1, -1, -1]  # 30 is verified absent and yet not exhaustive
    assert labels.status(1).tolist() == [0, 1, -1]  # 20 is present, if not exhaustively


def test_classes_that_the_labels_lack_are_unknown_everywhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read_labels(IMAGES, [10, 20, 30], NAMES)
    assert caplog.messages == []
    labels = read_labels(IMAGES, [10, 20, 30], ("fork", "unicorn"))
    assert labels.status(0).tolist() == [0, 1, 0]
    assert labels.status(1).tolist() == [-1, -1, -1]
    assert labels.num_present().tolist() == [1, 0]
    assert "1 of 2 classes are not among those of the labels" in caplog.text
    assert "'unicorn'; the labels have 'car', 'fork'" in caplog.text


def test_no_labels_at_all_make_a_pool_and_foreign_ids_an_error() -> None:
    pool = read_labels(None, [1, 2], NAMES)
    assert pool.status(1).tolist() == [-1, -1]
    assert len(read_labels(IMAGES, [], NAMES)) == 0
    with pytest.raises(InputError, match="another data set or split"):
        read_labels(IMAGES, [1, 2], NAMES)
