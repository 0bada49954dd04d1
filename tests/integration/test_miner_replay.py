"""From the record of a run back to its weights, to the bit."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from toy_data import NAMES, ToyData, WordEncoder, make_toy_data
from toy_miner import FORK, METRICS, detections_of, make_miner

from hardmine import HardMiner, HardMiningSampler, NeedRules, ValidationSet, WeightRules
from hardmine.errors import IndexMismatch, InputError
from hardmine.history.rounds import Round, read_rounds
from hardmine.mining.density_ratio import fit_density_ratio
from hardmine.mining.mine import MiningData, RoundInputs
from hardmine.mining.scores import ScoreCache, mean_vectors_of


@pytest.fixture(scope="module")
def toy() -> ToyData:
    return make_toy_data()


def train(
    toy: ToyData, record: Path, rounds: int = 4, epochs_done: float = 0, **options: object
) -> tuple[HardMiner, list[Round]]:
    """Epochs of one and a half passes with a round after each; the last but one fails."""
    val = make_toy_data(400, rates=(0.5, 0.4, 0.3), seed=5)
    sampler = HardMiningSampler(len(toy.images), epoch_length=len(toy.images) * 3 // 2)
    miner = make_miner(
        toy,
        sampler,
        contexts=["at night"],
        validation=ValidationSet(val.images, val.index),
        rounds=record,
        **options,
    )
    results = detections_of(val, miss_at_night="fork", zebras_on_forks=True)
    done = []
    for number in range(rounds):
        list(sampler)
        metrics = {"unicorn": 0.1} if number == rounds - 2 else METRICS
        done.append(miner.step(metrics, val_detections=results, epochs_done=epochs_done, epochs=6))
    return miner, done


def test_the_record_replays_the_weights_that_were_drawn_by(toy: ToyData, tmp_path: Path) -> None:
    record = tmp_path / "rounds.jsonl"
    _, run = train(toy, record)
    recorded = read_rounds(record)
    assert all(done.weights is None and done.result is None for done in recorded)
    later = make_miner(toy)
    for number in (4, 1, 2):
        again, done = later.replay(recorded[number - 1]), run[number - 1]
        assert np.array_equal(again.weights, done.weights)
        for name in ("balance", "density_ratio"):
            assert np.array_equal(getattr(again.result, name), getattr(done.result, name)), name
    why = later.explain(toy.images.ids[4], done=again)
    assert why.weight == done.weights[4]


def test_a_replay_that_cannot_be_right_is_refused(toy: ToyData, tmp_path: Path) -> None:
    record = tmp_path / "rounds.jsonl"
    train(toy, record)
    recorded = read_rounds(record)
    with pytest.raises(IndexMismatch, match="gives other weights"):
        make_miner(make_toy_data(seed=1)).replay(recorded[0])
    with pytest.raises(InputError, match="round 3 failed and made no weights"):
        make_miner(toy).replay(recorded[2])
    with pytest.raises(IndexMismatch, match="num_images 300, got 40"):
        make_miner(make_toy_data(40)).replay(recorded[0])
    with pytest.raises(InputError, match="replay it first"):
        make_miner(toy).explain(toy.images.ids[0], done=recorded[0])


def nights(inputs: RoundInputs, data: MiningData) -> npt.NDArray[np.float64]:
    """A policy of one's own: ten times the images that look like night, by need of the forks."""
    (scores,) = data.scores.rows([("night",)])
    return np.where(scores > np.median(scores), 1 + 9 * inputs.need[1], 1.0)


def test_a_policy_of_ones_own_makes_the_weights_and_is_recorded(
    toy: ToyData, tmp_path: Path
) -> None:
    record = tmp_path / "rounds.jsonl"
    miner, run = train(toy, record, weights=nights)
    expected = nights(run[0].inputs, miner.data)
    assert 1 < expected.max() < 10
    assert np.array_equal(run[0].weights, expected)
    assert np.array_equal(miner.sampler.weights, run[-1].weights)
    recorded = read_rounds(record)
    assert recorded[0].inputs.policy == "nights"
    assert recorded[0].inputs.weights is None
    assert recorded[0].counts()["positive"] > 0
    assert np.array_equal(
        make_miner(toy, weights=nights).replay(recorded[-1]).weights, run[-1].weights
    )
    with pytest.raises(InputError, match="drew by the policy 'nights', this miner draws by hard"):
        make_miner(toy).replay(recorded[-1])


def test_all_classes_alike_times_the_root_of_the_density_ratio(
    toy: ToyData, tmp_path: Path
) -> None:
    record = tmp_path / "rounds.jsonl"
    _, run = train(toy, record, weights=WeightRules(cap=1.0, classes="alike"))
    labels = toy.images.class_counts.toarray() > 0
    expected = (labels / labels.sum(axis=0)).sum(axis=1)
    expected[expected == 0] = expected[expected > 0].mean()
    density = run[-1].result.density_ratio
    assert density.max() > 1.5 * density.min()
    ratio = run[-1].weights / expected / np.sqrt(density)
    np.testing.assert_allclose(ratio, ratio[0])
    assert np.array_equal(make_miner(toy).replay(read_rounds(record)[-1]).weights, run[-1].weights)
    # Called by its name it is class-aware sampling alone, whatever the AP and whatever is missed.
    plain, run = train(toy, tmp_path / "plain.jsonl", weights="class-aware")
    boosted = toy.images.ids[run[-1].result.targets.image_rows[0]]
    assert "boosts do not count in this round" in str(plain.explain(boosted))
    np.testing.assert_allclose(run[-1].weights / run[-1].weights.mean(), expected / expected.mean())


@pytest.mark.parametrize("weights", [None, "class-aware"])
def test_the_end_of_a_training_is_drawn_by_the_density_ratio_alone(
    toy: ToyData, tmp_path: Path, weights: str | None
) -> None:
    record = tmp_path / "rounds.jsonl"
    miner, run = train(toy, record, weights=weights, epochs_done=4.5)
    # What is missed are forks at night; training is taken as it is labelled.
    objects = np.asarray(toy.images.class_counts.sum(axis=1)).ravel()
    val = make_toy_data(400, rates=(0.5, 0.4, 0.3), seed=5)
    forks = val.images.class_counts.toarray()[:, FORK]
    vectors = [mean_vectors_of(data.index, np.arange(len(data.images))) for data in (val, toy)]
    ratio = fit_density_ratio(np.where(val.night, forks, 0), vectors[0], objects, vectors[1])
    assert ratio is not None
    np.testing.assert_allclose(run[-1].weights, ratio.of(vectors[1]))
    assert run[-1].weights[toy.night].mean() > 1.5 * run[-1].weights[~toy.night].mean()
    assert "draws follow only the look of what is missed" in str(run[-1])
    assert run[-1].weak
    assert not run[-1].boosted.any()
    assert not any(miner.state_dict()["patience"]["boosted"])
    assert np.array_equal(make_miner(toy).replay(read_rounds(record)[-1]).weights, run[-1].weights)


def test_where_no_look_is_known_the_end_is_drawn_as_before(toy: ToyData) -> None:
    for validation in (None, ValidationSet(toy.images), ValidationSet(toy.images, toy.index)):
        early, late = (
            make_miner(toy, validation=validation).step(METRICS, epochs_done=done, epochs=3)
            for done in (0, 3)
        )
        assert np.array_equal(early.weights, late.weights)
        assert not late.inputs.weights.look_alone


def test_draws_by_look_alone_without_a_look_are_said(toy: ToyData) -> None:
    rules = WeightRules(cap=1.0, classes="unchanged")
    done = make_miner(toy, weights=rules).step(METRICS)
    assert np.array_equal(done.weights, np.ones(len(toy.images)))
    assert any("all images are drawn equally often" in note for note in done.notes)


def test_rules_hold_until_the_share_of_the_training_that_they_name(toy: ToyData) -> None:
    rules = WeightRules(cap=2.0)
    assert rules.at(7.4, 10) == rules.at(0, 0) == rules
    assert rules.at(7.5, 10) == replace(rules, cap=1.0, balance=1.0, classes="unchanged")
    assert rules.at(0.7 + 0.2, 1.2).look_alone  # 0.8999999999999999 of 0.8999999999999999
    assert WeightRules(look_from=1).at(1, 1) == WeightRules(look_from=1)
    done = make_miner(toy).step(METRICS, epochs_done=9, epochs=8)
    assert "expected 0 <= epochs_done <= epochs, those of the whole training, got 9" in done.error


def test_where_images_come_often_all_are_drawn_equally_often_before_the_end(toy: ToyData) -> None:
    rules = WeightRules(cap=2.0)
    assert rules.at(1, 13) == replace(rules, cap=1.0, balance=0.0, classes="unchanged")
    assert rules.at(10, 13).look_alone
    assert rules.at(1, 12).cap == 2
    for name, length in (("few", 0.5), ("many", 2.0)):
        sampler = HardMiningSampler(len(toy.images), epoch_length=int(length * len(toy.images)))
        done = make_miner(toy, sampler=sampler).step(METRICS, epochs_done=1, epochs=7)
        assert (done.weights.max() > done.weights.min()) == (name == "few")
        said = "all images are drawn equally often until 75 % of the training (max_passes: 12)"
        assert (said in str(done)) == (name == "many")
    # Where no look is known, the end is drawn by classes and queries.
    miner = make_miner(toy, validation=None)
    end, short = (miner.step(METRICS, epochs_done=done, epochs=100).weights for done in (80, 0))
    assert end.max() > 1.5 * end.min()
    assert np.array_equal(short, np.ones(len(toy.images)))


def test_a_policy_that_returns_nonsense_fails_its_round(toy: ToyData) -> None:
    def short(inputs: RoundInputs, data: MiningData) -> npt.NDArray[np.float64]:
        return np.ones(3)

    def negative(inputs: RoundInputs, data: MiningData) -> npt.NDArray[np.float64]:
        return -np.ones(len(data))

    for policy in (short, negative):
        done = make_miner(toy, weights=policy).step(METRICS)
        assert f"the weight policy {policy.__name__} must return 300 finite weights" in done.error
    with pytest.raises(
        InputError, match="weights must be WeightRules, the name of some, or a function"
    ):
        make_miner(toy, weights=3.0)


def test_the_line_of_a_round_holds_nothing_of_one_value_an_image(
    toy: ToyData, tmp_path: Path
) -> None:
    record = tmp_path / "rounds.jsonl"
    _, run = train(toy, record)
    size = len(toy.images)
    for done in run:
        assert {field.name for field in fields(Round)} - {"weights", "result"} == (
            set(done.to_json()) - {"format"}
        )

    def longest(value: object) -> int:
        if isinstance(value, dict):
            return max([len(value), *map(longest, value.values())])
        if isinstance(value, list):
            return max([len(value), *map(longest, value)])
        return 0

    assert max(longest(done.to_json()) for done in run) <= toy.index.dim < size
    for done, read in zip(run, read_rounds(record), strict=True):
        assert read.to_json() == done.to_json()


def test_weights_do_not_depend_on_what_was_drawn_before(toy: ToyData) -> None:
    """The draws of a weak class do not fade over a long schedule, nor with the calendar."""
    sampler = HardMiningSampler(len(toy.images))
    miner = make_miner(toy, sampler, need=NeedRules(patience=None))
    first = miner.step(METRICS).weights
    drawn = []
    for epoch in range(40):
        sampler.set_epoch(epoch * 7330)
        drawn.append(np.bincount(list(sampler), minlength=len(toy.images)) @ toy.present[:, FORK])
        if epoch % 3 == 0:
            for _ in range(4):  # several validations an epoch
                assert np.array_equal(miner.step(METRICS).weights, first)
    expected = first @ toy.present[:, FORK] / first.mean()
    assert expected > 1.2 * toy.present[:, FORK].sum()
    for length in (4, 12, 40):
        assert np.mean(drawn[:length]) == pytest.approx(expected, rel=0.03)


def test_weights_do_not_depend_on_what_is_cached(
    toy: ToyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that asks for one class more in each round, and one that asks for all at once."""

    def tight(*args: object, **options: object) -> ScoreCache:
        # Room for the rows of three queries: a first round with more of them overflows.
        return ScoreCache(*args, **options, max_bytes=3 * 4 * len(toy.images))

    monkeypatch.setattr("hardmine.mining.mine.ScoreCache", tight)
    all_weak = dict.fromkeys(NAMES, 0.1) | {"car": 0.9}
    cold = make_miner(toy, contexts=["at night", "in the rain", "in fog"])
    warm = make_miner(toy, contexts=["at night", "in the rain", "in fog"])
    warm.data.scores.rows([("fork",), ("fork at night",)])
    assert np.array_equal(cold.step(all_weak).weights, warm.step(all_weak).weights)
    assert cold.data.scores.dtype is np.float32


def test_metrics_of_a_round_without_labels_are_recorded_too(toy: ToyData, tmp_path: Path) -> None:
    record = tmp_path / "rounds.jsonl"
    miner = HardMiner(
        toy.index, encoder=WordEncoder(), need=NeedRules(class_names=NAMES), rounds=record
    )
    done = miner.step(METRICS)
    (read,) = read_rounds(record)
    assert np.isnan(read.queries[0].precision)
    assert np.array_equal(miner.replay(read).weights, done.weights)
    assert replace(read, seconds=1.0).seconds == 1.0
