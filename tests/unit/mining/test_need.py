from __future__ import annotations

import numpy as np
import pytest

from hardmine.errors import InputError
from hardmine.mining.need import NeedRules, class_need, shrink
from hardmine.records import ClassScores

NAN = np.nan


def scores(ap: list[float], counts: list[int] | None = None) -> ClassScores:
    names = tuple("abcdefgh"[: len(ap)])
    return ClassScores(
        names, np.array(ap, float), None, None if counts is None else np.array(counts)
    )


def test_needs_nothing_but_metrics() -> None:
    need = class_need({"person": 0.6, "fork": 0.15, "cow": -1})
    assert need.class_names == ("person", "fork", "cow")
    np.testing.assert_allclose(need.need, [0, 0.6, 0])  # mean of the known: 0.375
    assert np.isnan(need.ap).tolist() == [False, False, True]
    assert need.unmatched == []
    assert np.asarray(need).tolist() == need.need.tolist()
    assert len(need) == 3


def test_is_ordered_as_the_classes_asked_for_and_says_what_did_not_match() -> None:
    need = class_need(
        {"traffic_light": 0.1, "cat": 0.5, "mAP": 0.3},
        ["cat", "traffic light", "zebra"],
        rules=NeedRules(policy="below:0.5"),
    )
    np.testing.assert_allclose(need.need, [0, 0.8, 0])
    np.testing.assert_array_equal(need.ap, [0.5, 0.1, NAN])
    assert need.unmatched == [
        "'traffic light' is read from 'traffic_light'",
        "'zebra' has no score",
        "the score of 'mAP' belongs to no class",
    ]


def test_metrics_of_other_classes_are_refused() -> None:
    with pytest.raises(InputError, match="name none of the 2 classes: they name loss"):
        class_need({"loss": 0.4}, ["cat", "dog"])


@pytest.mark.parametrize(
    ("ap", "counts", "prior", "expected"),
    [
        ([], [], 10, []),
        ([NAN, NAN], [0, 0], 10, [NAN, NAN]),
        # As many instances as the prior: half way to the mean, (0.0 / 2 + 0.6) / 1.5 = 0.4.
        ([0.0, 0.6], [10, 10**9], 10, [0.2, 0.6]),
        ([0.0, 0.6], [10, 10**9], 0, [0.0, 0.6]),  # a prior of 0 believes all
        ([0.5, NAN], [0, 5], 10, [0.5, NAN]),  # no instances known anywhere: nothing to lean on
    ],
)
def test_shrinkage(ap: list[float], counts: list[int], prior: float, expected: list[float]) -> None:
    shrunk = shrink(np.array(ap, float), np.array(counts, int), prior=prior)
    np.testing.assert_allclose(shrunk, expected, atol=1e-6)


def test_shrinkage_helps_where_aps_rest_on_few_instances() -> None:
    # Classes with known true levels, measured as the mean of n noisy values: the textbook case.
    rng = np.random.default_rng(0)
    truth = rng.beta(8, 12, 400)
    counts = rng.integers(1, 60, 400)
    measured = rng.binomial(counts, truth) / counts
    plain, shrunk = measured - truth, shrink(measured, counts, prior=20.0) - truth
    assert np.mean(shrunk**2) < 0.6 * np.mean(plain**2)


def test_few_instances_make_less_need_than_many() -> None:
    need = class_need(scores([0.1, 0.1, 0.5, 0.5], [2, 500, 400, 400]))
    assert 0 < need.need[0] < need.need[1]
    assert need.level[0] > need.level[1]
    assert need.ap.tolist() == [0.1, 0.1, 0.5, 0.5]  # as measured


def test_counts_can_be_given_beside_the_metrics() -> None:
    given = class_need({"a": 0.1, "b": 0.5}, rules=NeedRules(num_instances=[3, 300]))
    within = class_need(scores([0.1, 0.5], [3, 300]))
    np.testing.assert_array_equal(given.need, within.need)
    with pytest.raises(InputError, match=r"one value a class \(expected 2, got 1\)"):
        class_need({"a": 0.1, "b": 0.5}, rules=NeedRules(num_instances=[3]))


def test_levels_average_over_rounds() -> None:
    slow, quick = (NeedRules(policy="below:1", momentum=value) for value in (0.75, 0))
    first = class_need(scores([0.2, 0.6]), rules=slow)
    second = class_need(scores([0.4, 0.6]), rules=slow, previous=first)
    np.testing.assert_allclose(second.level, [0.25, 0.6])
    np.testing.assert_allclose(second.need, [0.75, 0.4])
    fresh = class_need(scores([0.4, 0.6]), rules=quick, previous=first)
    np.testing.assert_allclose(fresh.need, [0.6, 0.4])


def test_a_class_that_was_not_measured_keeps_its_level() -> None:
    first = class_need(scores([0.2, NAN, 0.6]), rules=NeedRules(policy="below:1"))
    second = class_need(scores([NAN, NAN, 0.6]), rules=NeedRules(policy="below:1"), previous=first)
    np.testing.assert_allclose(second.need, [0.8, 0, 0.4])
    np.testing.assert_array_equal(second.ap, [NAN, NAN, 0.6])


def test_previous_need_is_matched_by_name() -> None:
    first = class_need({"b": 0.2, "a": 0.8}, rules=NeedRules(policy="below:1"))
    second = class_need(
        {"a": 0.8, "c": 0.1, "b": 0.2}, rules=NeedRules(policy="below:1"), previous=first
    )
    np.testing.assert_allclose(second.level, [0.8, 0.1, 0.2])


def test_stalled_classes_are_those_that_gained_nothing() -> None:
    rules = NeedRules(policy="stalled:0.05", momentum=0)
    first = class_need(scores([0.3, 0.3, 0.9]), rules=rules)
    assert not first.need.any()  # no progress is known yet
    second = class_need(scores([0.3, 0.4, 0.9]), rules=rules, previous=first)
    np.testing.assert_allclose(second.need, [0.7, 0, 0.1])


def test_a_class_that_was_not_measured_is_not_stalled() -> None:
    rules = NeedRules(policy="stalled:0.05", momentum=0)
    first = class_need(scores([0.2, 0.5]), rules=rules)
    second = class_need(scores([NAN, 0.5]), rules=rules, previous=first)
    assert second.level.tolist() == [0.2, 0.5]
    assert second.need.tolist() == [0, 0.5]
    # The next gain counts from the level that it kept.
    third = class_need(scores([0.225, 0.6]), rules=rules, previous=second)
    np.testing.assert_allclose(third.need, [0.775 / 2, 0])


@pytest.mark.parametrize("policy", ["mean", "below:0.5", "bottom:1", "bottom:20%"])
def test_an_unknown_gain_changes_no_other_need(policy: str) -> None:
    rules = NeedRules(policy=policy)
    first = class_need(scores([0.2, 0.5]), rules=rules)
    second = class_need(scores([NAN, 0.5]), rules=rules, previous=first)
    assert np.array_equal(second.need, first.need)
    assert first.need[0] > 0


def test_sizes_are_judged_each_against_its_own() -> None:
    given = ClassScores(
        ("a", "b"), np.array([0.5, 0.3]), np.array([[0.1, 0.5, NAN], [0.3, 0.1, 0.6]])
    )
    need = class_need(given, ["b", "a"])
    assert need.by_size is not None
    np.testing.assert_allclose(need.by_size, [[0, 2 / 3, 0], [0.5, 0, 0]])
    assert class_need({"a": 0.5}).by_size is None


def test_ones_own_policy() -> None:
    def only_terrible(ap: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return (ap < 0.15).astype(float)

    need = class_need(scores([0.1, 0.2]), rules=NeedRules(policy=only_terrible))
    assert need.need.tolist() == [1, 0]
    assert need.policy == "only_terrible"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": 1.5}, r"momentum must be in \[0, 1\), got 1.5"),
        ({"momentum": "half"}, r"momentum must be in \[0, 1\), got 'half'"),
        ({"prior": -1}, "prior must be a number of instances, at least 0, got -1"),
        ({"patience": "x"}, "patience must be a number of rounds, at least 1, or None, got 'x'"),
        ({"patience": 0}, "patience must be a number of rounds, at least 1"),
        ({"class_names": "car"}, "class_names must be a list of texts, .* got 'car'"),
        ({"class_names": [3]}, "class_names must be a list of texts"),
        ({"policy": 5}, "policy must be a name or a function, got 5"),
        ({"policy": "weak"}, "policy must be"),
        ({"policy": lambda ap, gain: ap - 1}, "a policy must give one need a class"),
        ({"policy": lambda ap, gain: ap[:0]}, "a policy must give one need a class"),
    ],
)
def test_bad_rules_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        class_need({"a": 0.5}, rules=NeedRules(**options))  # type: ignore[arg-type]


def test_an_unknown_rule_is_refused_when_made() -> None:
    with pytest.raises(TypeError, match="momentm"):
        NeedRules(momentm=0.5)  # type: ignore[call-arg]


def test_classes_of_the_rules_are_judged_where_no_others_are_given() -> None:
    rules = NeedRules(class_names=["b", "a"])
    assert class_need({"a": 0.1, "b": 0.5}, rules=rules).class_names == ("b", "a")
    assert class_need({"a": 0.1, "b": 0.5}, ["a"], rules=rules).class_names == ("a",)
