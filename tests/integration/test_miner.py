"""HardMiner on an index in memory, with a real encoder and the real sampler."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from toy_data import NAMES, WordEncoder, World, make_scenario

from hardmine import HardMiner, HardMiningSampler
from hardmine.errors import IndexMismatch, InputError
from hardmine.history.rounds import read_rounds
from hardmine.mining.exposure import fade_weights
from hardmine.mining.targets import TargetRules

METRICS = {"car": 0.6, "fork": 0.2, "zebra": 0.45}
FORK = NAMES.index("fork")


@pytest.fixture(scope="module")
def world() -> World:
    return make_scenario()


ALL_LABELLED = TargetRules(missing=0.0)


def make(world: World, sampler: HardMiningSampler | None = None, **settings: Any) -> HardMiner:
    return HardMiner(world.index, sampler, encoder=WordEncoder(), images=world.images, **settings)


def test_a_weak_class_is_drawn_more_and_the_epoch_stays_as_long(world: World) -> None:
    sampler = HardMiningSampler(len(world.images), seed=3)
    has_fork = world.present[:, FORK]
    before = has_fork[list(sampler)].sum()
    done = make(world, sampler).step(METRICS)
    draws = list(sampler)
    assert done.weak == ["fork"]
    assert len(draws) == len(world.images)
    assert has_fork[draws].sum() > 1.5 * before
    assert np.array_equal(sampler.weights, done.weights)
    assert done.wanted[has_fork].min() > np.median(done.wanted)


def test_strong_classes_leave_the_plain_shuffle(world: World) -> None:
    sampler = HardMiningSampler(len(world.images), seed=3)
    plain = list(HardMiningSampler(len(world.images), seed=3))
    done = make(world, sampler, policy="below:0.1", balance=0.0).step(METRICS)
    assert done.weak == []
    assert done.asked == ()
    sampler.set_epoch(0)
    assert list(sampler) == plain


def test_rows_are_matched_by_id_not_by_position(world: World) -> None:
    order = np.random.default_rng(1).permutation(len(world.images))
    straight = make(world).step(METRICS)
    shuffled = make(world, dataset_ids=world.images.ids[order]).step(METRICS)
    relabelled = HardMiner(world.index, encoder=WordEncoder(), images=world.images.subset(order))
    assert np.array_equal(shuffled.wanted, straight.wanted[order])
    assert np.array_equal(relabelled.step(METRICS).wanted, straight.wanted[order])


def test_images_that_the_index_lacks_count_as_their_labels_say(world: World) -> None:
    ids = np.concatenate([world.images.ids, [5]])
    done = make(world, dataset_ids=ids).step(METRICS)
    assert done.wanted[-1] == 1.0
    half = make_scenario(150)
    wide = HardMiner(half.index, encoder=WordEncoder(), images=world.images).step(METRICS)
    missing_forks = world.present[:, FORK] & ~np.isin(world.images.ids, half.index.ids)
    assert missing_forks.any()
    assert (wide.wanted[missing_forks] > 1.5).all()


def test_an_unlabelled_pool_is_mined_by_text_alone(world: World) -> None:
    miner = HardMiner(
        world.index,
        encoder=WordEncoder(),
        class_names=NAMES,
        rules=TargetRules(hits=0.05),
        budget=None,
    )
    done = miner.step(METRICS)
    raised = done.wanted > 1
    assert done.counts()["hit"] == 15
    assert raised.sum() == 15
    assert world.present[raised, FORK].mean() > 0.8


def test_a_pool_beside_labels_is_trusted_as_far_as_the_labels_confirm(world: World) -> None:
    labelled = world.images.subset(np.arange(0, 300, 2))
    miner = HardMiner(
        world.index, encoder=WordEncoder(), images=labelled, dataset_ids=world.images.ids
    )
    done = miner.step(METRICS)
    pool = np.arange(300) % 2 == 1
    assert done.targets is not None
    hits = done.targets.take(done.targets.kinds == 4)
    assert pool[hits.image_rows].all()
    assert world.present[hits.image_rows, FORK].all()
    # Words that the images know nothing of: labels find out, and the pool is left alone.
    blind = make_scenario(rates=(0.5, 0.1, 0.05), noise=50.0)
    muted = HardMiner(
        blind.index,
        encoder=WordEncoder(),
        images=blind.images.subset(np.arange(0, 300, 2)),
        dataset_ids=blind.images.ids,
        rules=TargetRules(mute=0.3),
    ).step(METRICS)
    assert muted.asked[0].factor == 0.0
    assert muted.counts()["hit"] == 0
    assert (muted.wanted[pool] == 1).all()


def test_what_a_pool_image_was_found_for_counts_as_shown_as_far_as_that_is_likely(
    world: World,
) -> None:
    labelled = world.images.subset(np.arange(0, 300, 2))
    miner = HardMiner(
        world.index,
        encoder=WordEncoder(),
        images=labelled,
        dataset_ids=world.images.ids,
        contexts=["at night"],
        rules=ALL_LABELLED,
    )
    done = miner.step(METRICS)
    assert done.targets is not None
    assert done.evened is not None
    shown = world.present.copy()
    shown[1::2] = False
    [fork_alone] = np.unique(done.evened[shown[:, FORK] & (shown.sum(axis=1) == 1)])
    assert fork_alone > 1
    plain = [not asked.condition for asked in done.asked].index(True)
    hits = done.targets.take((done.targets.kinds == 4) & (done.targets.query_rows == plain))
    assert len(hits) > 0
    assert done.evened[hits.image_rows] == pytest.approx(1 + fork_alone * hits.strengths)
    unfound = np.setdiff1d(np.arange(1, 300, 2), hits.image_rows)
    assert (done.evened[unfound] == 1).all()


def test_a_condition_raises_the_labelled_images_that_answer_it(world: World) -> None:
    settings = {"budget": None, "rules": ALL_LABELLED}
    plain = make(world, **settings).step(METRICS)
    dark = make(world, contexts=["at night"], **settings).step(METRICS)
    assert [asked.names[0] for asked in dark.asked] == ["fork", "fork at night"]
    gain = dark.wanted - plain.wanted
    forks = world.present[:, FORK]
    assert gain[forks & world.night].mean() > 3 * max(gain[forks & ~world.night].mean(), 1e-3)
    assert gain[~forks].max() == 0


def test_missing_labels_come_out_as_suspects_and_are_not_boosted() -> None:
    faulty = make_scenario(1000, missing=0.15, rates=(0.5, 0.3, 0.1))
    done = make(faulty).step(METRICS)
    assert done.targets is not None
    labelled = np.asarray(faulty.images.class_counts[:, FORK].todense())[:, 0] > 0
    suspects = np.array([row for row, name, _ in done.suspects() if name == "fork"])
    truly = faulty.present[suspects, FORK]
    assert truly.mean() > 0.9
    assert truly.sum() > 0.6 * (faulty.present[:, FORK] & ~labelled).sum()
    strengths = done.targets.strengths[done.targets.kinds == 3]
    assert (strengths == 0).all()


def test_detections_say_which_images_are_missed_and_which_are_confused(world: World) -> None:
    forks = np.flatnonzero(world.present[:, FORK])
    others = np.flatnonzero(~world.present[:, FORK])
    found = scipy.sparse.lil_matrix((len(world.images), len(NAMES)))
    found[forks[:10], FORK] = 0.9
    found[others[:3], FORK] = 0.95
    done = make(world, budget=None, balance=0.0).step(METRICS, detections=found.tocsr())
    assert done.wanted[forks[:10]].mean() < done.wanted[forks[10:]].mean()
    assert (done.wanted[others[:3]] > 1).all()


def test_explain_names_the_query_that_counts(world: World) -> None:
    miner = make(world, contexts=["at night"], balance=0.0)
    done = miner.step(METRICS)
    row = int(np.argmax(done.wanted))
    why = miner.explain(world.images.ids[row])
    top = why.reasons[0]
    assert (why.wanted, why.weight) == (done.wanted[row], done.weights[row])
    assert top.boost == pytest.approx(top.asked.need * top.strength)
    assert f"boost {top.boost:.3f} = need {top.asked.need:.2f} × strength" in str(why)
    assert why.reasons == tuple(sorted(why.reasons, key=lambda reason: -reason.boost))
    assert "fork" in str(why)
    unwanted = miner.explain(world.images.ids[int(np.argmin(done.wanted))])
    assert unwanted.wanted == 1.0
    assert all(reason.boost == 0 for reason in unwanted.reasons)
    with pytest.raises(InputError, match="no image 3"):
        miner.explain(3)


def test_patience_lets_a_boost_that_does_not_help_fade(world: World) -> None:
    miner = make(world, patience=2, need_options={"momentum": 0.0})
    boosts = [float(miner.step(METRICS).need[FORK]) for _ in range(5)]
    assert boosts[0] == boosts[1]
    assert boosts[0] > boosts[2] > boosts[3] > boosts[4] > 0
    risen = miner.step({**METRICS, "fork": 0.3})
    assert risen.patience[FORK] == 1.0


def test_state_survives_a_safe_load_and_the_next_rounds_are_the_same(world: World) -> None:
    samplers = [HardMiningSampler(len(world.images)) for _ in range(2)]
    first = make(world, samplers[0])
    for ap in (0.2, 0.22):
        first.step({**METRICS, "fork": ap})
        list(samplers[0])
    saved = io.BytesIO()
    torch.save([first.state_dict(), samplers[0].state_dict()], saved)
    saved.seek(0)
    second = make(world, samplers[1])
    of_miner, of_sampler = torch.load(saved, weights_only=True)
    second.load_state_dict(of_miner)
    samplers[1].load_state_dict(of_sampler)
    assert np.array_equal(samplers[1].weights, first.last_round.weights)
    for ap in (0.22, 0.22, 0.25):
        metrics = {**METRICS, "fork": ap}
        ours, theirs = first.step(metrics), second.step(metrics)
        assert ours.number == theirs.number
        assert ours.digest == theirs.digest
        assert ours.lead.max() > 1
        assert np.array_equal(ours.lead, theirs.lead)
        assert np.array_equal(ours.weights, theirs.weights)
        assert list(samplers[0]) == list(samplers[1])
    with pytest.raises(InputError, match="judged 3 classes"):
        HardMiner(
            world.index, encoder=WordEncoder(), images=world.images, class_names=["car"]
        ).load_state_dict(first.state_dict())


def test_a_state_of_another_version_is_refused_before_anything_changes(world: World) -> None:
    miner = make(world)
    miner.step(METRICS)
    state = miner.state_dict()
    with pytest.raises(InputError, match=r"saved miner lacks lead, passes: .*another version"):
        miner.load_state_dict({key: state[key] for key in state.keys() - {"lead", "passes"}})
    assert miner.state_dict()["number"] == 1


def test_a_failing_round_keeps_the_weights_and_is_told_once(
    world: World, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    sampler = HardMiningSampler(len(world.images))
    miner = make(world, sampler, rounds=tmp_path / "rounds.jsonl")
    before = miner.step(METRICS).weights
    with caplog.at_level(logging.INFO, logger="hardmine"):
        for _ in range(2):
            failed = miner.step({"unicorn": 0.1})
    assert "unicorn" in failed.error
    assert not failed.applied
    assert np.array_equal(sampler.weights, before)
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert told[0].exc_info is not None
    assert miner.step(METRICS).applied
    history = read_rounds(tmp_path / "rounds.jsonl")
    assert [bool(done.error) for done in history] == [False, True, True, False]
    with pytest.raises(InputError, match="unicorn"):
        make(world, strict=True).step({"unicorn": 0.1})


def test_a_record_that_cannot_be_written_does_not_stop_the_weights(
    world: World, tmp_path: Path
) -> None:
    sampler = HardMiningSampler(len(world.images))
    done = make(world, sampler, rounds=tmp_path).step(METRICS)
    assert done.applied
    assert sampler.weights.max() > 1
    with pytest.raises(OSError):
        make(world, strict=True, rounds=tmp_path).step(METRICS)


def test_a_dry_run_only_tells(world: World, caplog: pytest.LogCaptureFixture) -> None:
    sampler = HardMiningSampler(len(world.images))
    with caplog.at_level(logging.INFO, logger="hardmine"):
        done = make(world, sampler, dry_run=True).step(METRICS)
    assert (sampler.weights == 1).all()
    assert done.wanted.max() > 1
    assert not done.applied
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("round 1: 1 weak classes, ")
    assert line.endswith("(dry run)")


def test_what_does_not_fit_is_refused_at_once(world: World) -> None:
    class Other(WordEncoder):
        fingerprint = "other"

    with pytest.raises(IndexMismatch, match="words-64"):
        HardMiner(world.index, encoder=Other(), images=world.images)
    with pytest.raises(InputError, match="draws from 7 images"):
        make(world, HardMiningSampler(7))
    with pytest.raises(InputError, match="must know the classes"):
        HardMiner(world.index, encoder=WordEncoder())
    with pytest.raises(InputError, match="no image id of the training set is in the labels"):
        make(world, dataset_ids=[1, 2, 3])
    for settings in ({"cap": 0.5}, {"budget": 2.0}, {"policy": "best"}, {"templates": "none"}):
        with pytest.raises(InputError):
            make(world, **settings)
    with pytest.raises(InputError, match="only other ranks"):
        HardMiner(None, encoder=WordEncoder(), images=world.images)


def test_the_record_alone_replays_the_weights(world: World, tmp_path: Path) -> None:
    record = tmp_path / "rounds.jsonl"
    done = make(world, rounds=record, contexts=["at night"], cap=3.0).step(METRICS)
    (read,) = read_rounds(record)
    assert read.wanted is None
    assert read.weights is None
    later = make(world)
    again = later.replay(read)
    assert np.array_equal(again.wanted, done.wanted)
    why = later.explain(world.images.ids[4], done=again)
    assert why.wanted == done.wanted[4]
    assert np.isnan(why.weight)
    assert "fading" not in str(why)
    other = make_scenario(seed=1)
    with pytest.raises(IndexMismatch, match="gives other weights"):
        make(other).replay(read)


def results_of(world: World, *, blind_at_night: str = "", zebra_on_forks: bool = False) -> list:
    """A detector that finds every labelled box, but for what it is told to get wrong."""
    instances = world.images.instances
    assert instances is not None
    results = []
    for image, column in zip(
        instances.image_rows.tolist(), instances.class_rows.tolist(), strict=True
    ):
        result = {"image_id": int(world.images.ids[image]), "bbox": [10, 10, 50, 50], "score": 0.9}
        if not (NAMES[column] == blind_at_night and world.night[image]):
            results.append({**result, "category_id": column + 1})
        if zebra_on_forks and column == FORK and not world.present[image, 2]:
            results.append({**result, "category_id": 3, "score": 0.8})
    return results


def test_a_class_that_is_weak_under_a_condition_alone_is_asked_for_there_alone(
    world: World,
) -> None:
    val = make_scenario(400, rates=(0.5, 0.4, 0.3), seed=5)
    settings = {"val_images": val.images, "val_index": val.index}
    miner = make(world, contexts=["at night"], balance=0.0, **settings)
    alike = dict.fromkeys(NAMES, 0.6)
    done = miner.step(alike, val_detections=results_of(val, blind_at_night="fork"))
    assert [(asked.class_name, asked.condition) for asked in done.asked] == [("fork", "at night")]
    raised = done.wanted > 1
    assert world.present[raised, FORK].all()
    assert world.night[raised].mean() > 0.9
    assert miner.step(alike, val_detections=results_of(val)).asked == ()


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_classes_are_evened_out_whatever_validation_says(
    world: World, balance: float, tmp_path: Path
) -> None:
    record = tmp_path / "rounds.jsonl"
    miner = make(world, budget=None, balance=balance, rounds=record, rules=ALL_LABELLED)
    done = miner.step(dict.fromkeys(NAMES, 0.6))
    assert done.asked == ()
    shown = world.present @ (1 / world.present.sum(axis=0))
    expected = np.where(shown > 0, shown / shown[shown > 0].mean(), 1.0) ** balance
    np.testing.assert_allclose(done.wanted, expected)
    zebra = int(np.flatnonzero(world.present[:, 2])[0])
    said = str(miner.explain(world.images.ids[zebra]))
    assert ("for what it shows" in said) == (balance > 0)
    (read,) = read_rounds(record)
    assert np.array_equal(miner.replay(read).wanted, done.wanted)
    with pytest.raises(InputError, match=r"balance must lie in \[0, 1\], got 2"):
        make(world, balance=2.0)


def test_a_class_taken_for_another_is_drawn_as_often_as_that_one(
    world: World, tmp_path: Path
) -> None:
    val = make_scenario(400, rates=(0.5, 0.0, 0.3), seed=5)
    results = results_of(val)
    for result in results:
        result["category_id"] = 1  # zebras are cars to it
    alike = dict.fromkeys(NAMES, 0.6)
    record = tmp_path / "rounds.jsonl"
    settings = {"val_images": val.images, "budget": None}
    miner = make(world, rounds=record, rules=ALL_LABELLED, **settings)
    plain = miner.step(alike).wanted
    done = miner.step(alike, val_detections=results)
    zebras = val.present[:, 2].sum()
    share = zebras / (zebras + 1)
    assert done.settings["taken_for"] == ((2, 0, pytest.approx(share)),)
    cars, zebra = plain @ world.present[:, 0], world.present[:, 2]
    ratio = cars / plain[zebra].sum()
    assert 1.5 < ratio < 3
    expected = plain * np.where(zebra, 1 + share * (ratio - 1), 1.0)
    np.testing.assert_allclose(done.wanted, expected)
    assert np.array_equal(miner.replay(read_rounds(record)[1]).wanted, done.wanted)

    deaf = replace(ALL_LABELLED, taken=0.0)
    done = make(world, rules=deaf, **settings).step(alike, val_detections=results)
    assert np.array_equal(done.wanted, plain)


def test_an_image_of_more_objects_is_worth_more(world: World) -> None:
    images = world.images
    assert images.instances is not None
    lonely = np.flatnonzero(world.present[:, 0] & (world.present.sum(axis=1) == 1))
    crowded, single = lonely[:5], lonely[5:]
    more = np.flatnonzero(np.isin(images.instances.image_rows, crowded))
    again = np.concatenate([np.arange(len(images.instances)), *3 * [more]])
    order = np.argsort(images.instances.image_rows[again], kind="stable")
    fuller = replace(images, instances=images.instances.take(again[order]))
    miner = HardMiner(
        world.index, encoder=WordEncoder(), images=fuller, budget=None, rules=ALL_LABELLED
    )
    done = miner.step(dict.fromkeys(NAMES, 0.6))
    assert done.wanted[crowded] == pytest.approx(4 * done.wanted[single[0]])


def test_images_that_lack_labels_are_drawn_less(tmp_path: Path) -> None:
    world = make_scenario(2000, rates=(0.5, 0.4, 0.3), seed=6)
    instances = world.images.instances
    assert instances is not None
    kept = np.random.default_rng(0).random(len(instances)) < 0.6
    images = replace(world.images, instances=instances.take(np.flatnonzero(kept)))
    record = tmp_path / "rounds.jsonl"
    settings = {"encoder": WordEncoder(), "images": images, "budget": None}
    miner = HardMiner(world.index, rounds=record, **settings)
    alike = dict.fromkeys(NAMES, 0.6)
    done = miner.step(alike)
    by_labels = HardMiner(world.index, rules=ALL_LABELLED, **settings).step(alike)
    assert done.labelled is not None
    factors = done.labelled / done.labelled.mean()
    assert done.wanted == pytest.approx((by_labels.wanted * factors).clip(1 / 20))
    counts = np.bincount(instances.image_rows[~kept], minlength=len(images))
    assert done.labelled[counts > 0].mean() < done.labelled[counts == 0].mean() - 0.3
    lacking = images.ids[int(done.labelled.argmin())]
    assert "% probably has a label" in str(miner.explain(lacking))
    (read,) = read_rounds(record)
    again = miner.replay(read)
    assert np.array_equal(again.wanted, done.wanted)
    assert again.labelled is not None
    assert np.array_equal(again.labelled, done.labelled)


def test_no_image_is_evened_out_beyond_measure() -> None:
    world = make_scenario(2000, rates=(0.9, 0.5, 0.001), seed=4)
    done = make(world, budget=None).step(dict.fromkeys(NAMES, 0.6))
    zebras = world.present[:, 2]
    assert 0 < zebras.sum() < 10
    assert (done.wanted[zebras] == 20).all()
    assert done.wanted.min() >= 1 / 20


def test_a_condition_that_training_seldom_shows_is_evened_out(world: World, tmp_path: Path) -> None:
    bright = make_scenario(600, dark=0.04, seed=2)
    val = make_scenario(300, dark=0.4, seed=5)
    record = tmp_path / "rounds.jsonl"
    settings = {"val_images": val.images, "val_index": val.index, "rounds": record}
    settings |= {"contexts": ["at night"], "budget": None, "rules": ALL_LABELLED}
    alike = dict.fromkeys(NAMES, 0.6)
    cars = bright.present[:, 0] & (bright.present.sum(axis=1) == 1)
    done = make(bright, **settings).step(alike, val_detections=results_of(val))
    by_day, at_night = (done.wanted[cars & where] for where in (~bright.night, bright.night))
    assert (by_day == np.median(by_day)).mean() > 0.95
    raised = np.median(at_night) / np.median(by_day)
    assert raised == pytest.approx(val.night.mean() / bright.night.mean(), rel=0.2)
    (read,) = read_rounds(record)
    assert np.array_equal(make(bright).replay(read).wanted, done.wanted)


def test_an_image_fades_as_it_is_drawn_ahead_of_the_others(world: World, tmp_path: Path) -> None:
    size = len(world.images)
    sampler = HardMiningSampler(size, epoch_length=2 * size)
    list(sampler)  # an epoch before mining begins: all images alike
    miner = make(world, sampler, budget=None, fade=4.0, rounds=tmp_path / "rounds.jsonl")
    first = miner.step(METRICS)
    assert first.lead is None
    drawn = np.bincount(list(sampler), minlength=size)
    second = miner.step(METRICS)
    assert np.array_equal(second.wanted, first.wanted)
    # The lead is what the weights had it, the draws are that but for rounding.
    assert np.abs(second.lead - (drawn - 2)).max() < 1
    ahead, behind = second.lead.argmax(), second.lead.argmin()
    for row, words in ((ahead, "draws ahead of the mean"), (behind, "draws behind the mean")):
        why = miner.explain(world.images.ids[row])
        assert f"before fading {why.wanted:.3f}" in str(why)
        assert words in str(why)
    # The same round from the same wish, but for the lead.
    fresh = fade_weights(second.wanted, None, ahead=2.0, fade=4.0)
    faded = second.weights / fresh
    assert faded[ahead] / faded[behind] < 0.5
    assert np.corrcoef(np.log(faded), second.lead)[0, 1] < -0.9
    one, two = read_rounds(tmp_path / "rounds.jsonl")
    assert (one.settings["passes"], two.settings["passes"]) == (2, 4)
    again = make(world).replay(two)
    assert np.array_equal(again.wanted, second.wanted)
    assert again.weights is None
    plain = make(world, fade=None).step(METRICS)
    assert np.array_equal(plain.weights, plain.wanted)
    with pytest.raises(InputError, match="fade is a number of draws above 0, or None, got 0"):
        make(world, fade=0)


def test_a_dry_run_puts_nothing_ahead(world: World) -> None:
    sampler = HardMiningSampler(len(world.images))
    miner = make(world, sampler, dry_run=True)
    for _ in range(3):
        done = miner.step(METRICS)
        list(sampler)
    assert done.lead is None


def test_a_round_that_was_weighed_otherwise_is_not_replayed(world: World) -> None:
    done = make(world).step(METRICS)
    older = {name: value for name, value in done.settings.items() if name not in ("fade", "cap")}
    with pytest.raises(InputError, match="round 1 does not say its cap, fade: another version"):
        make(world).replay(replace(done, settings=older))


def test_what_a_class_is_taken_for_makes_the_likelier_confusers(
    world: World, tmp_path: Path
) -> None:
    val = make_scenario(200, rates=(0.5, 0.4, 0.1), seed=5)
    weak = {"car": 0.6, "fork": 0.6, "zebra": 0.1}
    record = tmp_path / "rounds.jsonl"
    miner = make(world, val_images=val.images, rounds=record)
    plain = miner.step(weak)
    done = miner.step(weak, val_detections=results_of(val, zebra_on_forks=True))

    def fork_share(done: Any) -> float:
        confusers = done.targets.take(done.targets.kinds == 2)
        return float(world.present[confusers.image_rows, FORK].mean()) if len(confusers) else 0.0

    assert fork_share(done) == 1.0 > fork_share(plain)
    assert (2, FORK) in {pair[:2] for pair in done.settings["confusion"]}
    assert np.array_equal(make(world).replay(read_rounds(record)[1]).wanted, done.wanted)
    lost = make(world).step(weak, val_detections=[])
    assert "val_images" in lost.error
