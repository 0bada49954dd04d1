"""What draws images apart besides weak classes: balance, what validation misses, confusion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_data import ToyData, make_toy_data
from toy_miner import COMPLETE_LABELS, EQUAL, FORK, detections_of, make_miner

from hardmine import ValidationSet, WeightRules
from hardmine.errors import IndexMismatch, InputError
from hardmine.history.rounds import read_rounds
from hardmine.index.search.exact import ExactIndex

FULL_BALANCE = WeightRules(balance=1.0)


@pytest.fixture(scope="module")
def toy() -> ToyData:
    return make_toy_data()


def test_a_class_that_is_weak_in_a_context_alone_is_searched_for_there_alone(
    toy: ToyData,
) -> None:
    val = make_toy_data(400, rates=(0.5, 0.4, 0.3), seed=5)
    settings = {"validation": ValidationSet(val.images, val.index)}
    miner = make_miner(toy, contexts=["at night"], weights=WeightRules(balance=0.0), **settings)
    done = miner.step(EQUAL, val_detections=detections_of(val, miss_at_night="fork"))
    assert [(query.class_name, query.context) for query in done.queries] == [("fork", "at night")]
    raised = done.weights > 1 + 1e-9
    assert toy.present[raised, FORK].all()
    assert toy.night[raised].mean() > 0.9
    assert miner.step(EQUAL, val_detections=detections_of(val)).queries == ()


def test_a_condition_that_nobody_named_is_found_recorded_and_kept(
    toy: ToyData, tmp_path: Path
) -> None:
    val = make_toy_data(400, rates=(0.5, 0.4, 0.3), seed=5)
    record = tmp_path / "rounds.jsonl"
    settings: dict[str, Any] = {
        "contexts": "auto",
        "validation": ValidationSet(val.images, val.index),
        "weights": WeightRules(balance=0.0),
        "rounds": record,
    }
    miner = make_miner(toy, **settings)
    done = miner.step(EQUAL, val_detections=detections_of(val, miss_at_night="fork"))
    assert [condition.text for condition in done.conditions] == ["at night"]
    assert "weak at night (p " in str(done)
    assert [(query.class_name, query.context) for query in done.queries] == [("fork", "at night")]
    (read,) = read_rounds(record)
    assert read.conditions == done.conditions
    assert np.array_equal(miner.replay(read).weights, done.weights)
    # What was found is part of the state, and without detections nothing new is looked for.
    resumed = make_miner(toy, **settings)
    resumed.load_state_dict(miner.state_dict())
    assert resumed.step(EQUAL).conditions == ()
    assert resumed.state_dict()["conditions"] == ["at night"]
    assert resumed.step(EQUAL, val_detections=detections_of(val)).conditions == ()
    assert resumed.state_dict()["conditions"] == []


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_classes_are_balanced_where_validation_tells_nothing_of_them(
    toy: ToyData, balance: float, tmp_path: Path
) -> None:
    record = tmp_path / "rounds.jsonl"
    rules = WeightRules(balance=balance)
    miner = make_miner(toy, weights=rules, rounds=record, targets=COMPLETE_LABELS)
    done = miner.step(EQUAL)
    assert done.queries == ()
    shown = toy.present @ (1 / np.sqrt(toy.present.sum(axis=0)))
    expected = np.where(shown > 0, shown / shown[shown > 0].mean(), 1.0) ** balance
    np.testing.assert_allclose(done.weights, expected)
    zebra = int(np.flatnonzero(toy.present[:, 2])[0])
    said = str(miner.explain(toy.images.ids[zebra]))
    assert ("balance: factor" in said) == (balance > 0)
    assert np.array_equal(miner.replay(read_rounds(record)[-1]).weights, done.weights)
    with pytest.raises(InputError, match=r"balance must be in \[0, 1\], got 2"):
        make_miner(toy, weights=WeightRules(balance=2.0))


def test_a_class_mistaken_for_another_is_drawn_as_often_as_that_one(
    toy: ToyData, tmp_path: Path
) -> None:
    val = make_toy_data(400, rates=(0.5, 0.0, 0.1), seed=5)
    # It finds every other car, and zebras are cars to it.
    cars, zebras = (
        [one for one in detections_of(val) if one["category_id"] == number] for number in (1, 3)
    )
    results = [*cars[::2], *({**one, "category_id": 1} for one in zebras)]
    record = tmp_path / "rounds.jsonl"
    settings = {
        "validation": ValidationSet(val.images),
        "weights": FULL_BALANCE,
    }
    deaf = replace(COMPLETE_LABELS, mistaken=0.0)
    plain = make_miner(toy, targets=deaf, **settings).step(EQUAL, val_detections=results).weights
    miner = make_miner(toy, rounds=record, targets=COMPLETE_LABELS, **settings)
    done = miner.step(EQUAL, val_detections=results)
    share = len(zebras) / (len(zebras) + 1)
    assert done.inputs.mistaken_for == ((2, 0, pytest.approx(share)),)
    zebra = toy.present[:, 2]
    ratio = plain @ toy.present[:, 0] / plain[zebra].sum()
    assert ratio > 1.5
    expected = plain * np.where(zebra, 1 + share * (ratio - 1), 1.0)
    np.testing.assert_allclose(done.weights, expected)
    assert np.array_equal(miner.replay(read_rounds(record)[-1]).weights, done.weights)


def test_an_image_of_more_objects_is_worth_more(toy: ToyData) -> None:
    images = toy.images
    assert images.instances is not None
    lonely = np.flatnonzero(toy.present[:, 0] & (toy.present.sum(axis=1) == 1))
    crowded, single = lonely[:5], lonely[5:]
    more = np.flatnonzero(np.isin(images.instances.image_rows, crowded))
    again = np.concatenate([np.arange(len(images.instances)), *3 * [more]])
    order = np.argsort(images.instances.image_rows[again], kind="stable")
    fuller = replace(images, instances=images.instances.take(again[order]))
    miner = make_miner(
        replace(toy, images=fuller),
        weights=FULL_BALANCE,
        targets=COMPLETE_LABELS,
    )
    done = miner.step(EQUAL)
    assert done.weights[crowded] == pytest.approx(4 * done.weights[single[0]])


def test_balance_factors_are_bounded() -> None:
    toy = make_toy_data(2000, rates=(0.9, 0.5, 0.001), seed=4)
    done = make_miner(toy, weights=FULL_BALANCE).step(EQUAL)
    zebras = toy.present[:, 2]
    assert 0 < zebras.sum() < 10
    assert (done.weights[zebras] == 20).all()
    assert done.weights.min() >= 1 / 20


def test_what_validation_misses_and_training_rarely_shows_is_drawn_more(tmp_path: Path) -> None:
    """Nobody names the night: the images on which objects are missed do."""
    bright = make_toy_data(600, dark=0.04, seed=2)
    val = make_toy_data(300, dark=0.4, seed=5)
    found = detections_of(val, miss_at_night="car")
    record = tmp_path / "rounds.jsonl"
    settings = {"validation": ValidationSet(val.images, val.index), "rounds": record}
    miner = make_miner(bright, **settings)
    without = make_miner(bright).step(EQUAL).weights
    done = miner.step(EQUAL, val_detections=found)
    assert done.queries == ()
    before, after = (each[bright.night].sum() / each.sum() for each in (without, done.weights))
    assert before < 0.05
    assert 0.1 < after < val.night.mean()
    ratio = done.result.density_ratio
    assert ratio[bright.night].min() > 2 * ratio[~bright.night].max()
    dark = bright.images.ids[int(np.flatnonzero(bright.night)[0])]
    assert "validation misses objects in images like it" in str(miner.explain(dark))
    again = make_miner(bright).replay(read_rounds(record)[-1])
    assert np.array_equal(again.weights, done.weights)
    # A detector that misses nothing asks for nothing.
    assert (miner.step(EQUAL, val_detections=detections_of(val)).result.density_ratio == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_fingerprint": "other"}, "validation index was made with encoder 'other'.*words"),
        ({"clusters": "whole"}, "validation index was made with clusters 'whole', .*'none'"),
    ],
)
def test_a_validation_index_that_cannot_be_compared_is_refused(
    toy: ToyData, change: dict[str, str], message: str
) -> None:
    other = ExactIndex(replace(toy.index.store, **change))
    with pytest.raises(IndexMismatch, match=message):
        make_miner(toy, validation=ValidationSet(toy.images, other))


def test_what_classes_are_missed_needs_no_index(toy: ToyData) -> None:
    val = make_toy_data(400, rates=(0.5, 0.4, 0.1), seed=5)
    results = detections_of(val, miss_at_night="fork")
    alone, given_once, indexed = (
        make_miner(toy, validation=ValidationSet(val.images, index))
        .step(EQUAL, val_detections=found)
        .inputs.ratios
        for index, found in ((None, results), (None, iter(results)), (val.index, results))
    )
    assert alone.density is None
    assert alone.classes == given_once.classes == indexed.classes
    car, fork, zebra = alone.classes
    assert max(car, zebra) < 1 < fork
