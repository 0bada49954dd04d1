"""Choosing what to label: by need, and never twenty frames of one clip."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from serve_site import make_workspace

from hardmine.index.search.exact import ExactIndex, index_from_regions
from hardmine.serve.collect import Wish, Wishes, choose, collect, make_wishes

CLIPS, FRAMES = 12, 20


@pytest.fixture(scope="module")
def pool() -> ExactIndex:
    """Clips of frames that hardly differ."""
    rng = np.random.default_rng(0)
    scenes = rng.normal(size=(CLIPS, 1, 64))
    frames = (scenes + 0.05 * rng.normal(size=(CLIPS, FRAMES, 64))).reshape(-1, 64)
    vectors = (frames / np.linalg.norm(frames, axis=1, keepdims=True)).astype(np.float32)
    return index_from_regions(
        vectors, np.arange(len(vectors) + 1), ids=np.arange(len(vectors)), encoder_fingerprint="x"
    )


def wish(name: str, need: float, fit: np.ndarray) -> Wish:
    rows = np.flatnonzero(fit)
    return Wish(name, True, need, np.zeros(64, np.float32), rows, fit[rows], 10)


def test_one_frame_of_each_clip_comes_first(pool: ExactIndex) -> None:
    rng = np.random.default_rng(1)
    fit = 0.4 + 0.05 * rng.random(CLIPS * FRAMES)
    fit[:FRAMES] = 0.9  # a clip that fits best
    picks = choose([wish("car", 0.5, fit)], pool, CLIPS)
    assert len({pick.row // FRAMES for pick in picks}) == CLIPS
    assert picks[0].row < FRAMES
    by_fit = np.argsort(-fit, kind="stable")[:CLIPS]
    assert len({row // FRAMES for row in by_fit.tolist()}) == 1
    rest = choose([wish("car", 0.5, fit)], pool, 3 * CLIPS)
    assert [pick.row for pick in rest[:CLIPS]] == [pick.row for pick in picks]


def test_the_budget_is_shared_by_need(pool: ExactIndex) -> None:
    half = np.zeros(CLIPS * FRAMES)
    half[::2] = 0.8
    wishes = [wish("car", 0.6, half), wish("bus", 0.2, half[::-1]), wish("no", 0.9, 0 * half)]
    for budget in (4, 8, 12):
        counts = Counter(pick.wish for pick in choose(wishes, pool, budget))
        assert counts == {0: budget * 3 // 4, 1: budget // 4}


def test_nothing_to_choose_from(pool: ExactIndex) -> None:
    assert choose([], pool, 5) == ()
    assert choose([wish("car", 0.5, np.zeros(CLIPS * FRAMES))], pool, 5) == ()


def test_images_that_have_labels_are_not_chosen(tmp_path: Path) -> None:
    """A pool that is the whole folder: what is labelled for training or validation is left out."""
    space, _ = make_workspace(tmp_path)
    assert space.images is not None
    space = replace(
        space,
        pool=space.index,
        images=space.images.subset(range(40)),
        val_images=space.images.subset(range(40, 60)),
    )
    assert space.unlabelled_pool.tolist() == [False] * 60 + [True] * 60
    wishes = make_wishes(space, {"car": 1.0}, {"at night": 0.5})
    chosen = collect(Wishes(wishes, "a test"), space.index, 100)
    rows = [pick.row for pick in chosen.picks]
    assert len(rows) > 20
    assert min(rows) >= 60
    assert chosen.to_json(space)["num_labelled"] == 60


def test_a_pool_of_other_files_is_taken_whole(tmp_path: Path) -> None:
    space, _ = make_workspace(tmp_path)
    assert space.unlabelled_pool.all()
