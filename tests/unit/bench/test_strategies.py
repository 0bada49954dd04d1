"""Scenarios and strategies go together."""

from __future__ import annotations

import pytest

from hardmine.bench.scenarios import SCENARIOS
from hardmine.bench.strategies import STRATEGIES


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_names_strategies_that_exist(scenario) -> None:
    names = SCENARIOS[scenario].strategies
    assert set(names) <= set(STRATEGIES)
    assert len(set(names)) == len(names)


def test_every_strategy_is_compared_somewhere() -> None:
    compared = {name for spec in SCENARIOS.values() for name in spec.strategies}
    assert set(STRATEGIES) - compared <= {"class-aware-80"}


def test_a_fair_baseline_knows_all_labels_and_nothing_more() -> None:
    fair = {name for name, strategy in STRATEGIES.items() if strategy.fair_baseline}
    assert fair == {"repeat", "class-aware", "class-aware-late", "inverse-ap"}
