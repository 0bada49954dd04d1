"""Boosts and targets, whatever the scores and labels are."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from given_scores import Case
from hypothesis import given, settings
from hypothesis import strategies as st

from hardmine.mining.labels import Labels
from hardmine.mining.targets import SUSPECT, Targets


def labels_of(rng: np.random.Generator, images: int, classes: int) -> Labels:
    present = rng.random((images, classes)) < rng.random(classes)
    labelled = rng.random(images) < 0.8
    present[~labelled] = False
    nothing = scipy.sparse.csc_matrix((images, classes), dtype=bool)
    return Labels(scipy.sparse.csc_matrix(present), None, nothing, labelled)


def split(seed: int, images: int, classes: int) -> tuple[Targets, Labels]:
    rng = np.random.default_rng(seed)
    labels = labels_of(rng, images, classes)
    scores = rng.normal(size=(classes, images)).astype(np.float32)
    scores[:, rng.random(images) < 0.1] = -np.inf
    case = Case(scores, np.arange(classes), labels)
    return case.split(case.trust()), labels


sizes = {
    "seed": st.integers(0, 2**32 - 1),
    "images": st.integers(1, 60),
    "classes": st.integers(1, 4),
}


@settings(deadline=None, max_examples=60)
@given(**sizes)
def test_labelled_images_are_never_left_out_and_pairs_stand_once(
    seed: int, images: int, classes: int
) -> None:
    targets, labels = split(seed, images, classes)
    pairs = list(zip(targets.query_rows.tolist(), targets.image_rows.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    boost = targets.boost(np.ones(classes), np.arange(classes), images)
    positive = np.asarray(labels.present.sum(axis=1)).ravel() > 0
    assert (boost[positive] >= 0.5).all()
    assert (targets.strengths[targets.kinds == SUSPECT] == 0).all()


@settings(deadline=None, max_examples=60)
@given(**sizes, together=st.booleans())
def test_more_need_never_means_less_boost(
    seed: int, images: int, classes: int, together: bool
) -> None:
    targets, _ = split(seed, images, classes)
    rng = np.random.default_rng(seed)
    need, rows = rng.random(classes), np.zeros(classes, int) if together else np.arange(classes)
    before = targets.boost(need, rows, images)
    need[rng.integers(classes)] = 1.0
    after = targets.boost(need, rows, images)
    assert (after >= before - 1e-12).all()
    assert (after >= 0).all()
    assert (after <= 1).all()
    assert (targets.boost(np.zeros(classes), rows, images) == 0).all()
