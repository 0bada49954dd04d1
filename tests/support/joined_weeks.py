"""Indexes of three weeks of labelled images, one that joins them, and one over all images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pixel_images import PixelEncoder, list_images, write_image

from hardmine.index import build_index, join_indexes
from hardmine.index.base import Index
from hardmine.records import Hits, ImageSet, Instances

WEEKS = {"week1": range(7), "week2": range(7, 12), "week3": range(12, 20)}
CLUSTERS = "kmeans:3"


@dataclass(frozen=True)
class Weeks:
    """What lies in a folder.

    Attributes:
        folder: Holds ``week1.hmx`` to ``week3.hmx``, ``all.hmx``, which joins them, and
            ``whole.hmx``, built from all images.
        images: All images, labelled with two classes.
        whole: The index ``whole.hmx``.
    """

    folder: Path
    images: ImageSet
    whole: Index


def make_weeks(folder: Path) -> Weeks:
    """Write the images and build the indexes; images 10 to 19 look like 0 to 9."""
    for week, numbers in WEEKS.items():
        for number in numbers:
            write_image(folder / "images" / week / f"{number}.jpg", number % 10)
        images = list_images(folder / "images" / week, numbers)
        build_index(images, PixelEncoder(), folder / f"{week}.hmx", clusters=CLUSTERS, shard_size=4)
    join_indexes(folder / "all.hmx", [folder / f"{week}.hmx" for week in WEEKS])
    images = all_images(folder)
    whole = build_index(images, PixelEncoder(), folder / "whole.hmx", clusters=CLUSTERS)
    return Weeks(folder, images, whole)


def all_images(folder: Path) -> ImageSet:
    """The images of all weeks, with a box of class "a" on even ones and of "b" on every third."""
    paths = tuple(f"{week}/{number}.jpg" for week, numbers in WEEKS.items() for number in numbers)
    rows, columns = np.array([(n, c) for n in range(20) for c in (0, 1) if n % (2 + c) == 0]).T
    count = len(rows)
    return replace(
        list_images(folder / "images", range(20)),
        paths=paths,
        sizes=np.full((20, 2), (24, 32), np.int32),
        class_names=("a", "b"),
        class_ids=np.arange(1, 3),
        instances=Instances(
            rows.astype(np.int32),
            columns.astype(np.int32),
            np.tile(np.float32([2, 2, 12, 12]), (count, 1)),
            np.full(count, 100, np.float32),
            np.zeros(count, bool),
            np.arange(count, dtype=np.int64),
        ),
    )


def require_same_answers(index: Index, whole: Index) -> None:
    """Ask two indexes everything; they must answer alike to the bit."""
    assert index.ids.tolist() == whole.ids.tolist()
    assert list(index.paths) == list(whole.paths)
    assert index.root == whole.root
    assert (len(index), index.num_regions) == (len(whole), whole.num_regions)
    assert index.rows_of([30, 7]).tolist() == [3, -1]
    np.testing.assert_array_equal(index.sizes, whole.sizes)
    queries = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    expected = whole.search(queries, 9)
    # Equal images are ordered by row, though different processes found them.
    assert (np.diff(expected.scores) == 0).any()
    require_same_hits(index.search(queries, 9), expected)
    require_same_hits(
        index.search(queries, 4, rows=[15, 2, 14]), whole.search(queries, 4, rows=[15, 2, 14])
    )
    np.testing.assert_array_equal(index.scores(queries), whole.scores(queries))
    means = whole.mean_vectors()
    np.testing.assert_array_equal(index.mean_vectors(), means)
    np.testing.assert_array_equal(index.mean_vectors([19, 3, 3]), means[[19, 3, 3]])
    rows = np.where(expected.image_rows % 4 == 0, -1, expected.image_rows)
    for mine, other in zip(
        index.best_regions(queries, rows), whole.best_regions(queries, rows), strict=True
    ):
        np.testing.assert_array_equal(mine, other)
    one, boxes = rows[0], expected.boxes[0]
    np.testing.assert_array_equal(
        index.region_vectors(one, boxes), whole.region_vectors(one, boxes)
    )


def require_same_hits(hits: Hits, expected: Hits) -> None:
    """Rows, scores and boxes must be equal to the bit."""
    np.testing.assert_array_equal(hits.image_rows, expected.image_rows)
    np.testing.assert_array_equal(hits.scores, expected.scores)
    np.testing.assert_array_equal(hits.boxes, expected.boxes)
