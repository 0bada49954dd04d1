"""HardMiner on an index in memory, with a real encoder and the real sampler."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_data import NAMES, ToyData, WordEncoder, make_toy_data
from toy_miner import COMPLETE_LABELS, FORK, METRICS, make_miner

from hardmine import (
    HardMiner,
    HardMiningSampler,
    NeedRules,
    TargetRules,
    ValidationSet,
    WeightRules,
)
from hardmine.errors import IndexMismatch, InputError
from hardmine.history.rounds import read_rounds


@pytest.fixture(scope="module")
def toy() -> ToyData:
    return make_toy_data()


def test_a_weak_class_is_drawn_more_and_the_epoch_stays_as_long(toy: ToyData) -> None:
    sampler = HardMiningSampler(len(toy.images), seed=3)
    has_fork = toy.present[:, FORK]
    before = has_fork[list(sampler)].sum()
    done = make_miner(toy, sampler).step(METRICS)
    draws = list(sampler)
    assert done.weak == ["fork"]
    assert len(draws) == len(toy.images)
    assert has_fork[draws].sum() > 1.5 * before
    assert np.array_equal(sampler.weights, done.weights)
    assert done.weights[has_fork].min() > np.median(done.weights)


def test_strong_classes_leave_the_plain_shuffle(toy: ToyData) -> None:
    sampler = HardMiningSampler(len(toy.images), seed=3)
    plain = list(HardMiningSampler(len(toy.images), seed=3))
    done = make_miner(
        toy, sampler, need=NeedRules(policy="below:0.1"), weights=WeightRules(balance=0.0)
    ).step(METRICS)
    assert done.weak == []
    assert done.queries == ()
    sampler.set_epoch(0)
    assert list(sampler) == plain


def test_the_policy_of_need_may_be_a_function_and_draws_count_instances(toy: ToyData) -> None:
    def zebras(ap: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return np.array([0.0, 0.0, 1.0])

    # Two zebras in each image that shows one: images and instances differ.
    instances = toy.images.instances
    assert instances is not None
    twice = np.sort(np.r_[np.arange(len(instances)), np.flatnonzero(instances.class_rows == 2)])
    doubled = replace(toy, images=replace(toy.images, instances=instances.take(twice)))
    done = make_miner(doubled, need=NeedRules(policy=zebras)).step(METRICS)
    assert done.weak == ["zebra"]
    counts = toy.present * [1, 1, 2]
    share = done.weights @ counts[:, 0] / (done.weights @ counts).sum()
    assert done.draws.head_share_after == pytest.approx(share)
    assert done.draws.head_share_before == pytest.approx(counts[:, 0].sum() / counts.sum())


def test_rows_are_matched_by_id_not_by_position(toy: ToyData) -> None:
    order = np.random.default_rng(1).permutation(len(toy.images))
    straight = make_miner(toy).step(METRICS)
    shuffled = make_miner(toy, dataset_ids=toy.images.ids[order]).step(METRICS)
    relabelled = HardMiner(toy.index, encoder=WordEncoder(), images=toy.images.subset(order))
    assert np.array_equal(shuffled.weights, straight.weights[order])
    assert np.array_equal(relabelled.step(METRICS).weights, straight.weights[order])


def test_images_that_the_index_lacks_count_as_their_labels_say(
    toy: ToyData, caplog: pytest.LogCaptureFixture
) -> None:
    ids = np.concatenate([toy.images.ids, [5]])
    done = make_miner(toy, dataset_ids=ids).step(METRICS)
    assert done.weights[-1] == 1.0
    assert "are not in the index" not in caplog.text  # one that could not be read
    half = make_toy_data(150)
    wide = HardMiner(half.index, encoder=WordEncoder(), images=toy.images).step(METRICS)
    assert f"{len(toy.images) - 150} of {len(toy.images)} training images are not" in caplog.text
    missing_forks = toy.present[:, FORK] & ~np.isin(toy.images.ids, half.index.ids)
    assert missing_forks.any()
    assert (wide.weights[missing_forks] > 1.5).all()


def test_an_unlabelled_pool_is_mined_by_text_alone(toy: ToyData) -> None:
    miner = HardMiner(
        toy.index,
        encoder=WordEncoder(),
        need=NeedRules(class_names=NAMES),
        targets=TargetRules(pool_share=0.05),
    )
    done = miner.step(METRICS)
    raised = done.weights > 1
    assert done.counts()["hit"] == 15
    assert raised.sum() == 15
    assert toy.present[raised, FORK].mean() > 0.8


def test_a_pool_beside_labels_is_trusted_as_far_as_the_labels_confirm(toy: ToyData) -> None:
    labelled = toy.images.subset(np.arange(0, 300, 2))
    miner = HardMiner(toy.index, encoder=WordEncoder(), images=labelled, dataset_ids=toy.images.ids)
    done = miner.step(METRICS)
    pool = np.arange(300) % 2 == 1
    assert done.result.targets is not None
    hits = done.result.targets.take(done.result.targets.kinds == 4)
    assert pool[hits.image_rows].all()
    assert toy.present[hits.image_rows, FORK].all()
    # Words that the images know nothing of: labels find out, and the pool is left alone.
    blind = make_toy_data(rates=(0.5, 0.1, 0.05), noise=50.0)
    muted = HardMiner(
        blind.index,
        encoder=WordEncoder(),
        images=blind.images.subset(np.arange(0, 300, 2)),
        dataset_ids=blind.images.ids,
    ).step(METRICS)
    assert muted.queries[0].trust == 0.0
    assert muted.counts()["hit"] == 0
    assert (muted.weights[pool] == 1).all()


def test_what_a_pool_image_was_found_for_counts_as_shown_as_far_as_that_is_likely(
    toy: ToyData,
) -> None:
    labelled = toy.images.subset(np.arange(0, 300, 2))
    miner = HardMiner(
        toy.index,
        encoder=WordEncoder(),
        images=labelled,
        dataset_ids=toy.images.ids,
        contexts=["at night"],
        targets=COMPLETE_LABELS,
        weights=WeightRules(balance=1.0),
    )
    done = miner.step(METRICS)
    assert done.result.targets is not None
    assert done.result.balance is not None
    shown = toy.present.copy()
    shown[1::2] = False
    [fork_alone] = np.unique(done.result.balance[shown[:, FORK] & (shown.sum(axis=1) == 1)])
    assert fork_alone > 1
    plain = [not query.context for query in done.queries].index(True)
    hits = done.result.targets.take(
        (done.result.targets.kinds == 4) & (done.result.targets.query_rows == plain)
    )
    assert len(hits) > 0
    assert done.result.balance[hits.image_rows] == pytest.approx(1 + fork_alone * hits.strengths)
    unfound = np.setdiff1d(np.arange(1, 300, 2), hits.image_rows)
    assert (done.result.balance[unfound] == 1).all()


def test_a_context_raises_the_labelled_images_that_answer_it(toy: ToyData) -> None:
    settings = {"targets": COMPLETE_LABELS}
    plain = make_miner(toy, **settings).step(METRICS)
    dark = make_miner(toy, contexts=["at night"], **settings).step(METRICS)
    assert [query.phrases[0] for query in dark.queries] == ["fork", "fork at night"]
    gain = dark.weights - plain.weights
    forks = toy.present[:, FORK]
    assert gain[forks & toy.night].mean() > 3 * max(gain[forks & ~toy.night].mean(), 1e-3)
    assert gain[~forks].max() == 0


def test_missing_labels_come_out_as_suspects_and_are_not_boosted() -> None:
    faulty = make_toy_data(1000, missing=0.15, rates=(0.5, 0.3, 0.1))
    done = make_miner(faulty).step(METRICS)
    assert done.result.targets is not None
    labelled = np.asarray(faulty.images.class_counts[:, FORK].todense())[:, 0] > 0
    suspects = np.array([row for row, name, _ in done.suspects() if name == "fork"])
    truly = faulty.present[suspects, FORK]
    assert truly.mean() > 0.9
    assert truly.sum() > 0.6 * (faulty.present[:, FORK] & ~labelled).sum()
    strengths = done.result.targets.strengths[done.result.targets.kinds == 3]
    assert (strengths == 0).all()


def test_explain_names_the_query_that_counts(toy: ToyData) -> None:
    miner = make_miner(toy, contexts=["at night"], weights=WeightRules(balance=0.0))
    done = miner.step(METRICS)
    row = int(np.argmax(done.weights))
    why = miner.explain(toy.images.ids[row])
    top = why.reasons[0]
    assert why.weight == done.weights[row]
    assert top.boost == pytest.approx(top.query.need * top.strength)
    assert f"boost {top.boost:.3f} = need {top.query.need:.2f} × strength" in str(why)
    assert why.reasons == tuple(sorted(why.reasons, key=lambda reason: -reason.boost))
    assert "fork" in str(why)
    other = miner.explain(toy.images.ids[int(np.argmin(done.weights))])
    assert other.weight == 1.0
    assert all(reason.boost == 0 for reason in other.reasons)
    with pytest.raises(InputError, match=r"image 3 is not in the training set; ids look like \d"):
        miner.explain(3)


def test_patience_reduces_a_boost_that_does_not_help(toy: ToyData) -> None:
    miner = make_miner(toy, need=NeedRules(patience=2, momentum=0.0))
    boosts = [float(miner.step(METRICS).need[FORK]) for _ in range(6)]
    assert boosts[0] == boosts[1] == boosts[2]
    assert boosts[2] > boosts[3] > boosts[4] > boosts[5] > 0
    risen = [miner.step({**METRICS, "fork": ap}) for ap in (0.25, 0.3)]
    assert risen[-1].patience[FORK] == 1.0


def test_state_survives_a_safe_load_and_the_next_rounds_are_the_same(toy: ToyData) -> None:
    samplers = [HardMiningSampler(len(toy.images)) for _ in range(2)]
    first = make_miner(toy, samplers[0])
    for ap in (0.2, 0.22):
        first.step({**METRICS, "fork": ap})
        list(samplers[0])
    saved = io.BytesIO()
    torch.save([first.state_dict(), samplers[0].state_dict()], saved)
    saved.seek(0)
    second = make_miner(toy, samplers[1])
    of_miner, of_sampler = torch.load(saved, weights_only=True)
    second.load_state_dict(of_miner)
    samplers[1].load_state_dict(of_sampler)
    assert np.array_equal(samplers[1].weights, first.last_round.weights)
    for ap in (0.22, 0.22, 0.25):
        metrics = {**METRICS, "fork": ap}
        ours, theirs = first.step(metrics), second.step(metrics)
        assert ours.number == theirs.number
        assert ours.digest == theirs.digest
        assert np.array_equal(ours.weights, theirs.weights)
        assert list(samplers[0]) == list(samplers[1])
    with pytest.raises(InputError, match="has 3 classes"):
        HardMiner(
            toy.index, encoder=WordEncoder(), images=toy.images, need=NeedRules(class_names=["car"])
        ).load_state_dict(first.state_dict())


def test_a_state_of_another_version_is_refused_before_anything_changes(toy: ToyData) -> None:
    miner = make_miner(toy)
    miner.step(METRICS)
    state = miner.state_dict()
    with pytest.raises(InputError, match=r"saved miner lacks levels, number: .*another version"):
        miner.load_state_dict({key: state[key] for key in state.keys() - {"levels", "number"}})
    assert miner.state_dict()["number"] == 1


def test_a_failing_round_keeps_the_weights_and_is_logged(
    toy: ToyData, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    sampler = HardMiningSampler(len(toy.images))
    miner = make_miner(toy, sampler, rounds=tmp_path / "rounds.jsonl")
    before = miner.step(METRICS).weights
    with caplog.at_level(logging.INFO, logger="hardmine"):
        for _ in range(2):
            failed = miner.step({"unicorn": 0.1})
    assert "unicorn" in failed.error
    assert failed.failed
    assert np.array_equal(sampler.weights, before)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage().split()[1] for record in errors] == ["2", "3"]
    assert not any(record.exc_info for record in errors)
    assert not miner.step(METRICS).failed
    history = read_rounds(tmp_path / "rounds.jsonl")
    assert [bool(done.error) for done in history] == [False, True, True, False]
    with pytest.raises(InputError, match="unicorn"):
        make_miner(toy, strict=True).step({"unicorn": 0.1})


def test_a_record_that_cannot_be_written_does_not_stop_the_weights(
    toy: ToyData, tmp_path: Path
) -> None:
    sampler = HardMiningSampler(len(toy.images))
    done = make_miner(toy, sampler, rounds=tmp_path).step(METRICS)
    assert not done.failed
    assert sampler.weights.max() > 1
    with pytest.raises(OSError):
        make_miner(toy, strict=True, rounds=tmp_path).step(METRICS)


def test_what_does_not_fit_is_refused_at_once(toy: ToyData) -> None:
    class Other(WordEncoder):
        fingerprint = "other"

    with pytest.raises(IndexMismatch, match="words-64"):
        HardMiner(toy.index, encoder=Other(), images=toy.images)
    streets = tuple(f"street_{row}.png" for row in range(len(toy.images)))
    other = replace(toy.images, paths=streets)
    with pytest.raises(IndexMismatch, match="same ids, but other files"):
        HardMiner(toy.index, encoder=WordEncoder(), images=other)
    with pytest.raises(IndexMismatch, match="same ids, but other files"):
        make_miner(toy, validation=ValidationSet(other, toy.index))
    for given in ({"index": "toy.hmx"}, {"encoder": "tiny"}, {"images": "photos"}):
        arguments = {"index": toy.index, "encoder": WordEncoder(), "images": toy.images} | given
        [(name, value)] = given.items()
        with pytest.raises(
            InputError, match=f"{name} (is|must be a hardmine.ImageSet, got) '{value}'"
        ):
            HardMiner(**arguments)
    with pytest.raises(InputError, match="images must be of load_images, got 'val'"):
        ValidationSet("val")
    with pytest.raises(InputError, match="draws from 7 images"):
        make_miner(toy, HardMiningSampler(7))
    with pytest.raises(InputError, match="must know the classes"):
        HardMiner(toy.index, encoder=WordEncoder())
    with pytest.raises(InputError, match="no image id of the training set is in the labels"):
        make_miner(toy, dataset_ids=[1, 2, 3])
    for contexts in ("at night", [3]):
        with pytest.raises(InputError, match="contexts must be a list of texts"):
            make_miner(toy, contexts=contexts)
    elsewhere = ValidationSet(replace(toy.images, ids=toy.images.ids + 10**6), toy.index)
    with pytest.raises(InputError, match="validation images is in their index"):
        make_miner(toy, validation=elsewhere)
    with pytest.raises(InputError, match="only other ranks"):
        HardMiner(None, encoder=WordEncoder(), images=toy.images)
