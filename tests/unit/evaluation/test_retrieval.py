"""Evaluation of an index with labels, against a direct computation of the same metrics."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from hardmine.errors import InputError
from hardmine.evaluation import retrieval
from hardmine.evaluation.classes import evaluate_classes
from hardmine.evaluation.output import class_rows, to_csv, to_json, to_markdown
from hardmine.evaluation.ranking import average_precision_at, rank_hits
from hardmine.evaluation.relevance import Relevance
from hardmine.evaluation.retrieval import evaluate
from hardmine.index import index_from_regions
from hardmine.records import ImageSet, Instances

N, C, D, R = 60, 7, 16, 3


@pytest.fixture
def index():
    return toy_index(np.random.default_rng(0))


def toy_index(rng, num_images=N, num_classes=C):
    vectors = rng.normal(size=(num_images * R, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return index_from_regions(
        vectors,
        np.arange(num_images + 1) * R,
        np.tile(np.float32([0, 0, 1, 1]), (num_images * R, 1)),
        np.full(num_images * R, 1 / R, np.float32),
        ids=np.arange(num_images) + 1000,
        root=Path(),
        paths=tuple(f"{row}.jpg" for row in range(num_images)),
        sizes=np.full((num_images, 2), 64, np.int32),
    )


def labels(rng, num_images=N, num_classes=C) -> ImageSet:
    shown = rng.random((num_images, num_classes)) < 0.3
    shown[:, -1] = False  # a class that no image shows
    rows, classes = np.nonzero(shown)
    count = len(rows)
    return ImageSet(
        root=Path(),
        ids=np.arange(num_images) + 1000,
        paths=tuple(f"{row}.jpg" for row in range(num_images)),
        sizes=np.full((num_images, 2), 64, np.int32),
        class_names=tuple(f"class {row}" for row in range(num_classes)),
        class_ids=np.arange(num_classes),
        instances=Instances(
            rows.astype(np.int32),
            classes.astype(np.int32),
            np.tile(np.float32([0, 0, 1, 1]), (count, 1)),
            rng.uniform(0, 20000, count).astype(np.float32),
            np.zeros(count, bool),
            np.arange(count),
        ),
    )


def texts(rng, num_classes=C):
    vectors = rng.normal(size=(num_classes, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_equals_ranking_all_scores_at_once(index, monkeypatch) -> None:
    rng = np.random.default_rng(1)
    images, vectors = labels(rng), texts(rng)
    monkeypatch.setattr(retrieval, "QUERY_CHUNK", 3)  # several chunks, the last one short
    got = evaluate_classes(index, images, vectors, k=10)
    relevant = (images.class_counts > 0).toarray().T
    expected = average_precision_at(rank_hits(index.scores(vectors), relevant, None), 10)
    np.testing.assert_allclose(got.all_sizes.ap_at_k, expected)
    assert math.isnan(got.all_sizes.ap_at_k[-1])
    assert got.all_sizes.mean() == pytest.approx(np.nanmean(expected))
    assert got.vectors_per_image == R


def test_order_and_extra_images_do_not_matter(index) -> None:
    rng = np.random.default_rng(2)
    images, vectors = labels(rng), texts(rng)
    some = rng.permutation(N)[:40]
    mixed = evaluate_classes(index, images.subset(some), vectors)
    sorted_ = evaluate_classes(index, images.subset(np.sort(some)), vectors)
    np.testing.assert_allclose(mixed.all_sizes.ap, sorted_.all_sizes.ap)
    assert mixed.num_images == 40


def test_labelled_images_that_the_index_lacks_are_counted(index) -> None:
    rng = np.random.default_rng(3)
    images, vectors = labels(rng), texts(rng)
    ids = images.ids.copy()
    ids[:5] = np.arange(5)
    got = evaluate_classes(index, dataclasses.replace(images, ids=ids), vectors)
    assert (got.num_images, got.num_left_out) == (N - 5, 5)


def test_another_data_set_is_refused(index) -> None:
    rng = np.random.default_rng(3)
    images = dataclasses.replace(labels(rng), ids=np.arange(N))
    with pytest.raises(InputError, match="none of the 60 labelled images"):
        evaluate_classes(index, images, texts(rng))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: dataclasses.replace(images, instances=None), "needs labels"),
        (lambda images: images, "one row a class"),
    ],
)
def test_bad_input(index, change, message) -> None:
    rng = np.random.default_rng(4)
    with pytest.raises(InputError, match=message):
        evaluate_classes(index, change(labels(rng)), texts(rng)[:-1])


def test_bootstrap_equals_ranking_each_sample(index) -> None:
    rng = np.random.default_rng(5)
    relevant = rng.random((N, C)) < 0.3
    vectors = texts(rng)
    [got] = evaluate(
        index,
        index.ids,
        vectors,
        [Relevance(scipy.sparse.csc_matrix(relevant))],
        k=10,
        bootstrap=25,
        seed=9,
    )
    samples = np.random.default_rng(9).integers(N, size=(25, N))
    scores = index.scores(vectors)
    expected = [
        np.nanmean(average_precision_at(rank_hits(scores[:, s], relevant.T[:, s], None), 10))
        for s in samples
    ]
    np.testing.assert_allclose(got.samples["ap_at_k"], expected)
    low, high = got.interval("ap_at_k")
    assert low < got.mean() < high


def test_outputs_agree(index) -> None:
    rng = np.random.default_rng(6)
    got = evaluate_classes(index, labels(rng), texts(rng), rare_below=15, bootstrap=10)
    json_values = to_json(got)
    assert json_values["mean"]["all"]["map_at_k"] == pytest.approx(got.all_sizes.mean())
    assert json_values["classes"][-1]["ap"] is None  # no image shows it: unknown, not zero
    assert set(json_values["groups"]) == {"rare", "frequent"}
    lines = to_markdown(got).splitlines()
    assert f"{100 * got.all_sizes.mean():.1f} (" in lines[2]
    assert len(lines) == 2 + 2 + 2
    assert to_csv(class_rows(got)).splitlines()[0].startswith("class,group,num_images,ap_at_k")
