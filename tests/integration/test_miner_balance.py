"""What draws images apart besides weak classes: balance, contexts, confusion, label coverage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_data import ToyData, WordEncoder, make_toy_data
from toy_miner import COMPLETE_LABELS, EQUAL, FORK, detections_of, make_miner

from hardmine import HardMiner, ValidationSet, WeightRules
from hardmine.errors import InputError
from hardmine.history.rounds import read_rounds


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
    raised = done.result.demanded > 1
    assert toy.present[raised, FORK].all()
    assert toy.night[raised].mean() > 0.9
    assert miner.step(EQUAL, val_detections=detections_of(val)).queries == ()


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_classes_are_balanced_whatever_validation_says(
    toy: ToyData, balance: float, tmp_path: Path
) -> None:
    record = tmp_path / "rounds.jsonl"
    rules = WeightRules(budget=None, balance=balance)
    miner = make_miner(toy, weights=rules, rounds=record, targets=COMPLETE_LABELS)
    done = miner.step(EQUAL)
    assert done.queries == ()
    shown = toy.present @ (1 / toy.present.sum(axis=0))
    expected = np.where(shown > 0, shown / shown[shown > 0].mean(), 1.0) ** balance
    np.testing.assert_allclose(done.result.demanded, expected)
    zebra = int(np.flatnonzero(toy.present[:, 2])[0])
    said = str(miner.explain(toy.images.ids[zebra]))
    assert ("balance of classes" in said) == (balance > 0)
    assert np.array_equal(miner.replay(read_rounds(record)).weights, done.weights)
    with pytest.raises(InputError, match=r"balance must be in \[0, 1\], got 2"):
        make_miner(toy, weights=WeightRules(balance=2.0))


def test_a_class_mistaken_for_another_is_drawn_as_often_as_that_one(
    toy: ToyData, tmp_path: Path
) -> None:
    val = make_toy_data(400, rates=(0.5, 0.0, 0.3), seed=5)
    results = detections_of(val)
    for result in results:
        result["category_id"] = 1  # zebras are cars to it
        record = tmp_path / "rounds.jsonl"
    settings = {"validation": ValidationSet(val.images), "weights": WeightRules(budget=None)}
    miner = make_miner(toy, rounds=record, targets=COMPLETE_LABELS, **settings)
    plain = miner.step(EQUAL).result.demanded
    done = miner.step(EQUAL, val_detections=results)
    zebras = val.present[:, 2].sum()
    share = zebras / (zebras + 1)
    assert done.inputs.confusion.mistaken_for == ((2, 0, pytest.approx(share)),)
    cars, zebra = plain @ toy.present[:, 0], toy.present[:, 2]
    ratio = cars / plain[zebra].sum()
    assert 1.5 < ratio < 3
    expected = plain * np.where(zebra, 1 + share * (ratio - 1), 1.0)
    np.testing.assert_allclose(done.result.demanded, expected)
    assert np.array_equal(miner.replay(read_rounds(record)).weights, done.weights)

    deaf = replace(COMPLETE_LABELS, mistaken=0.0)
    done = make_miner(toy, targets=deaf, **settings).step(EQUAL, val_detections=results)
    assert np.array_equal(done.result.demanded, plain)


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
        replace(toy, images=fuller), weights=WeightRules(budget=None), targets=COMPLETE_LABELS
    )
    done = miner.step(EQUAL)
    assert done.result.demanded[crowded] == pytest.approx(4 * done.result.demanded[single[0]])


def test_images_that_lack_labels_are_drawn_less(tmp_path: Path) -> None:
    toy = make_toy_data(2000, rates=(0.5, 0.4, 0.3), seed=6)
    instances = toy.images.instances
    assert instances is not None
    kept = np.random.default_rng(0).random(len(instances)) < 0.6
    images = replace(toy.images, instances=instances.take(np.flatnonzero(kept)))
    record = tmp_path / "rounds.jsonl"
    settings = {"encoder": WordEncoder(), "images": images, "weights": WeightRules(budget=None)}
    miner = HardMiner(toy.index, rounds=record, **settings)
    done = miner.step(EQUAL)
    by_labels = HardMiner(toy.index, targets=COMPLETE_LABELS, **settings).step(EQUAL)
    label_share = done.result.label_share
    factors = label_share / label_share.mean()
    assert done.result.demanded == pytest.approx((by_labels.result.demanded * factors).clip(1 / 20))
    counts = np.bincount(instances.image_rows[~kept], minlength=len(images))
    assert label_share[counts > 0].mean() < label_share[counts == 0].mean() - 0.3
    lacking = images.ids[int(label_share.argmin())]
    assert "% of what it shows probably has a label" in str(miner.explain(lacking))
    again = miner.replay(read_rounds(record))
    assert np.array_equal(again.result.demanded, done.result.demanded)
    assert again.result.label_share is not None
    assert np.array_equal(again.result.label_share, label_share)


def test_balance_factors_are_bounded() -> None:
    toy = make_toy_data(2000, rates=(0.9, 0.5, 0.001), seed=4)
    done = make_miner(toy, weights=WeightRules(budget=None)).step(EQUAL)
    zebras = toy.present[:, 2]
    assert 0 < zebras.sum() < 10
    assert (done.result.demanded[zebras] == 20).all()
    assert done.result.demanded.min() >= 1 / 20


def test_a_context_that_training_rarely_shows_is_balanced(toy: ToyData, tmp_path: Path) -> None:
    bright = make_toy_data(600, dark=0.04, seed=2)
    val = make_toy_data(300, dark=0.4, seed=5)
    record = tmp_path / "rounds.jsonl"
    settings = {"validation": ValidationSet(val.images, val.index), "rounds": record}
    settings |= {"contexts": ["at night"], "targets": COMPLETE_LABELS}
    settings["weights"] = WeightRules(budget=None)
    cars = bright.present[:, 0] & (bright.present.sum(axis=1) == 1)
    done = make_miner(bright, **settings).step(EQUAL, val_detections=detections_of(val))
    by_day, at_night = (
        done.result.demanded[cars & where] for where in (~bright.night, bright.night)
    )
    assert (by_day == np.median(by_day)).mean() > 0.95
    raised = np.median(at_night) / np.median(by_day)
    assert raised == pytest.approx(val.night.mean() / bright.night.mean(), rel=0.2)
    assert np.array_equal(make_miner(bright).replay(read_rounds(record)).weights, done.weights)


def test_what_a_class_is_detected_on_makes_the_first_confusers(
    toy: ToyData, tmp_path: Path
) -> None:
    val = make_toy_data(200, rates=(0.5, 0.4, 0.1), seed=5)
    weak = {"car": 0.6, "fork": 0.6, "zebra": 0.1}
    record = tmp_path / "rounds.jsonl"
    miner = make_miner(toy, validation=ValidationSet(val.images), rounds=record)
    plain = miner.step(weak)
    done = miner.step(weak, val_detections=detections_of(val, zebras_on_forks=True))

    def fork_share(done: Any) -> float:
        confusers = done.result.targets.take(done.result.targets.kinds == 2)
        return float(toy.present[confusers.image_rows, FORK].mean()) if len(confusers) else 0.0

    assert fork_share(done) == 1.0 > fork_share(plain)
    assert (2, FORK) in {pair[:2] for pair in done.inputs.confusion.detected_on}
    assert np.array_equal(make_miner(toy).replay(read_rounds(record)).weights, done.weights)
    lost = make_miner(toy).step(weak, val_detections=[])
    assert "ValidationSet" in lost.error
