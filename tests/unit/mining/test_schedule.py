"""Which rules hold in which place of a training."""

from __future__ import annotations

import numpy as np
import pytest

from hardmine.mining.weights import Schedule, WeightRules


def kinds(epochs: float, every: float, *, told: bool = False, draws: float = 1.0) -> list[str]:
    """What draws follow after each validation."""
    schedule = Schedule(WeightRules(), draws)
    found = []
    for done in np.arange(every, epochs + 1e-9, every):
        rules = schedule.step(float(done), epochs, every if told else None)
        assert rules is not None
        equal = rules.classes == "unchanged" and rules.balance == 0
        found.append("look" if rules.look_alone else "equal" if equal else "rules")
    return found


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    ("epochs", "every", "expected"),
    [
        (8, 1, ["rules"] * 5 + ["look"] * 3),
        (100, 10, ["equal"] * 7 + ["look"] * 3),
        # The next validation is at the end, where nothing is drawn any more.
        (12, 4, ["rules", "look", "look"]),
        (12, 6, ["look", "look"]),
        (36, 12, ["equal", "look", "look"]),
        (20, 7, ["equal", "look"]),
        (3, 1, ["rules", "look", "look"]),
        (2, 1, ["look", "look"]),
        # Weights count from the next epoch on: those of 2.25 are never drawn by.
        (3, 0.25, ["rules"] * 7 + ["look"] * 5),
        (12.5, 1, ["equal"] * 9 + ["look"] * 3),
    ],
)
def test_some_of_the_training_is_drawn_by_look(epochs, every, expected, told) -> None:
    assert kinds(epochs, every, told=told) == expected


def test_mining_can_be_turned_off_for_the_whole_training() -> None:
    off = WeightRules(cap=1, balance=0, look_from=1)
    for done, passes in ((1, 8), (7, 8), (8, 8), (1, 100), (90, 100)):
        assert (off.at(done, passes).cap, off.at(done, passes).balance) == (1, 0)


def test_how_often_an_epoch_draws_an_image_counts() -> None:
    assert kinds(8, 1, draws=8)[0] == "equal"
    assert kinds(100, 10, draws=0.1)[0] == "rules"
    schedule = Schedule(WeightRules(), 1.0)
    schedule.epoch_share = 1 / 6
    assert schedule.step(1, 12, None) == WeightRules()


def test_a_resumed_training_does_not_take_its_start_for_the_last_round() -> None:
    schedule = Schedule(WeightRules(), 1.0)
    schedule.resume()
    first, second = (schedule.step(done, 10, None) for done in (6, 7))
    assert first == second == WeightRules()


def test_an_unknown_length_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    schedule = Schedule(WeightRules(), 1.0)
    assert [schedule.step(done, 0, None) for done in (0, 3, 60)] == [WeightRules()] * 3
    [message] = caplog.messages
    assert "the length of the training is not known (epochs_done=, epochs=)" in message


def test_nothing_is_said_where_rules_do_not_change(caplog: pytest.LogCaptureFixture) -> None:
    assert Schedule(None, 1.0).step(1, 0, None) is None
    Schedule(WeightRules(look_from=1), 1.0).step(1, 0, None)
    assert not caplog.messages
