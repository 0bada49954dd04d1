"""The tables hold what the runs say: differences paired by seed, and the weak part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hardmine.bench.runs import Schedule
from hardmine.bench.scenarios import SCENARIOS
from hardmine.bench.strategies import STRATEGIES
from hardmine.bench.table import Estimate, build_report, summarize, to_markdown, write_report

RNG = np.random.default_rng(0)
WARMUP_AP = np.linspace(0.0, 0.35, 36)  # the first twelve classes are the weak third


def run(strategy: str, seed: int, gain: float = 0.0, scenario: str = "long-tail") -> dict[str, Any]:
    noise = np.random.default_rng(seed).normal(0, 0.02)
    ap = np.linspace(0.1, 0.4, 36) + noise + RNG.normal(0, 0.001, 36)
    ap[:12] += gain
    return {
        "scenario": scenario,
        "seed": seed,
        "strategy": strategy,
        "ap": ap.tolist(),
        "warmup_ap": WARMUP_AP.tolist(),
        "seconds": 10.0,
        "mining_seconds": 1.0,
    }


def runs(seeds: int = 5) -> list[dict[str, Any]]:
    gains = {"uniform": 0.0, "repeat": 0.01, "class-aware": 0.03, "hardmine": 0.05}
    return [run(strategy, seed, gain) for strategy, gain in gains.items() for seed in range(seeds)]


def test_gains_are_paired_by_seed() -> None:
    done = runs()
    results, best = summarize(done, "long-tail")
    assert best == "class-aware"
    assert [result.strategy for result in results] == [
        "uniform",
        "repeat",
        "class-aware",
        "hardmine",
    ]
    mined = results[-1]
    weak = {
        strategy: [100 * np.mean(one["ap"][:12]) for one in done if one["strategy"] == strategy]
        for strategy in ("uniform", "hardmine")
    }
    paired = np.subtract(weak["hardmine"], weak["uniform"])
    assert mined.gains["weak"].mean == pytest.approx(5, abs=0.2)
    assert mined.gains["weak"].error == pytest.approx(stats.sem(paired))
    assert mined.parts["weak"].error == pytest.approx(stats.sem(weak["hardmine"]))
    # The noise of a seed is common to its strategies and cancels out.
    assert mined.gains["weak"].error < mined.parts["weak"].error / 10
    assert mined.over_best["weak"].mean == pytest.approx(2, abs=0.2)
    assert abs(mined.gains["rest"].mean) < 0.1
    assert mined.by_seed["weak"] == pytest.approx(weak["hardmine"], abs=1e-4)


def test_only_seeds_that_all_strategies_have_run_count() -> None:
    done = [one for one in runs() if not (one["strategy"] == "repeat" and one["seed"] == 3)]
    results, _ = summarize(done, "long-tail")
    assert {result.seeds for result in results} == {(0, 1, 2, 4)}
    assert summarize([run("uniform", 0), run("hardmine", 1)], "long-tail") == ([], "")
    assert summarize([], "night") == ([], "")


def test_the_weak_part_of_a_context_is_inside_it() -> None:
    one = run("uniform", 0, scenario="night") | {
        "ap_inside": [0.1] * 35 + [None],
        "ap_outside": [0.3] * 36,
    }
    (result,), best = summarize([one], "night")
    assert best == "uniform"
    assert result.parts["weak"].mean == pytest.approx(10)
    assert result.parts["rest"].mean == pytest.approx(30)
    assert np.isnan(result.parts["weak"].error)


def test_the_fine_classes_come_after_the_kinds() -> None:
    one = run("uniform", 0, scenario="confusable") | {"ap": [0.3] * 36 + [0.1] * 8}
    (result,), _ = summarize([one], "confusable")
    assert result.parts["weak"].mean == pytest.approx(10)
    assert result.parts["rest"].mean == pytest.approx(30)


def test_the_report_is_written_as_json_and_markdown(tmp_path) -> None:
    report = build_report(runs(), ["long-tail", "night"], Schedule())
    paths = write_report(report, tmp_path)
    read = json.loads(paths[0].read_text())
    assert read["scenarios"]["long-tail"]["results"][-1]["seeds"] == [0, 1, 2, 3, 4]
    text = paths[1].read_text()
    assert text == to_markdown(read)
    assert "class-aware *" in text
    assert "night:" not in text  # nothing was run there
    assert str(Estimate(1.25, 0.5)) in "1.2 ± 0.5 1.3 ± 0.5"


@pytest.mark.parametrize("name", ["training", "training_width16"])
def test_the_recorded_results_name_present_scenarios_and_strategies(name: str) -> None:
    results = Path(__file__).parents[2] / "benchmarks" / "results"
    recorded = json.loads((results / f"{name}.json").read_text())
    assert to_markdown(recorded) == (results / f"{name}.md").read_text()
    for scenario, entry in recorded["scenarios"].items():
        assert entry["about"] == SCENARIOS[scenario].about
        for result in entry["results"]:
            assert result["about"] == STRATEGIES[result["strategy"]].about
