"""The tables say what the runs say: paired differences, and which part is weak."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hardmine.bench.runs import Schedule
from hardmine.bench.table import Estimate, markdown, report, summarize, write_report

RNG = np.random.default_rng(0)
FORK = np.linspace(0.0, 0.35, 36)  # the first twelve classes are the weak third


def run(strategy: str, seed: int, gain: float = 0.0, scenario: str = "long-tail") -> dict[str, Any]:
    luck = np.random.default_rng(seed).normal(0, 0.02)
    ap = np.linspace(0.1, 0.4, 36) + luck + RNG.normal(0, 0.001, 36)
    ap[:12] += gain
    return {
        "scenario": scenario,
        "seed": seed,
        "strategy": strategy,
        "ap": ap.tolist(),
        "fork_ap": FORK.tolist(),
        "seconds": 10.0,
        "mining_seconds": 1.0,
    }


def runs(seeds: int = 5) -> list[dict[str, Any]]:
    gains = {"uniform": 0.0, "repeat": 0.01, "class-aware": 0.03, "hardmine": 0.05}
    return [run(strategy, seed, gain) for strategy, gain in gains.items() for seed in range(seeds)]


def test_gains_are_paired_by_seed() -> None:
    done = runs()
    lines, best = summarize(done, "long-tail")
    assert best == "class-aware"
    assert [line.strategy for line in lines] == ["uniform", "repeat", "class-aware", "hardmine"]
    mined = lines[-1]
    weak = {
        strategy: [100 * np.mean(one["ap"][:12]) for one in done if one["strategy"] == strategy]
        for strategy in ("uniform", "hardmine")
    }
    paired = np.subtract(weak["hardmine"], weak["uniform"])
    assert mined.gains["weak"].mean == pytest.approx(5, abs=0.2)
    assert mined.gains["weak"].error == pytest.approx(stats.sem(paired))
    assert mined.parts["weak"].error == pytest.approx(stats.sem(weak["hardmine"]))
    # The luck of a seed is common to its strategies and falls out.
    assert mined.gains["weak"].error < mined.parts["weak"].error / 10
    assert mined.over_best["weak"].mean == pytest.approx(2, abs=0.2)
    assert abs(mined.gains["rest"].mean) < 0.1
    assert mined.by_seed["weak"] == pytest.approx(weak["hardmine"], abs=1e-4)


def test_only_seeds_that_all_arms_have_run_count() -> None:
    done = [one for one in runs() if not (one["strategy"] == "repeat" and one["seed"] == 3)]
    lines, _ = summarize(done, "long-tail")
    assert {line.seeds for line in lines} == {(0, 1, 2, 4)}
    assert summarize([run("uniform", 0), run("hardmine", 1)], "long-tail") == ([], "")
    assert summarize([], "condition") == ([], "")


def test_the_weak_part_of_a_condition_is_where_it_holds() -> None:
    one = run("uniform", 0, scenario="condition") | {
        "ap_inside": [0.1] * 35 + [None],
        "ap_outside": [0.3] * 36,
    }
    (line,), best = summarize([one], "condition")
    assert best == "uniform"
    assert line.parts["weak"].mean == pytest.approx(10)
    assert line.parts["rest"].mean == pytest.approx(30)
    assert np.isnan(line.parts["weak"].error)


def test_the_fine_classes_come_after_the_kinds() -> None:
    one = run("uniform", 0, scenario="confusable") | {"ap": [0.3] * 36 + [0.1] * 8}
    (line,), _ = summarize([one], "confusable")
    assert line.parts["weak"].mean == pytest.approx(10)
    assert line.parts["rest"].mean == pytest.approx(30)


def test_the_report_is_written_as_json_and_markdown(tmp_path) -> None:
    content = report(runs(), ["long-tail", "condition"], Schedule())
    paths = write_report(content, tmp_path)
    read = json.loads(paths[0].read_text())
    assert read["scenarios"]["long-tail"]["lines"][-1]["seeds"] == [0, 1, 2, 3, 4]
    text = paths[1].read_text()
    assert text == markdown(read)
    assert "class-aware *" in text
    assert "condition:" not in text  # nothing was run there
    assert str(Estimate(1.25, 0.5)) in "1.2 ± 0.5 1.3 ± 0.5"
