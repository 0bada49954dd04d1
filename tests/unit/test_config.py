"""YAML to dataclasses and back, and what is said about mistakes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from hardmine import HardmineError, NeedRules, TargetRules, WeightRules, load_config
from hardmine.config import Config, MinerConfig, dump_config, miner_arguments, read_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_hardmine_yaml_is_every_default_each_with_a_comment() -> None:
    path = CONFIGS / "hardmine.yaml"
    assert load_config(path) == Config()
    assert yaml.safe_load(path.read_text()) == yaml.safe_load(dump_config(Config()))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads(path: Path) -> None:
    config = load_config(path)
    assert read_config(yaml.safe_load(dump_config(config))) == config


def test_an_empty_file_and_an_empty_section_are_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("")
    assert load_config(file) == Config()
    file.write_text("weights:\n  # nothing yet\n")
    assert load_config(file) == Config()


def test_values_of_each_kind() -> None:
    config = read_config(
        {
            "need": {"class_names": ["car", "bus"], "patience": None},
            "weights": {"cap": 3},
            "miner": {"contexts": ["at night"], "rounds": None, "strict": True},
            "targets": {"missing": 0.1, "templates": ["a {}"]},
        }
    )
    assert config.miner == MinerConfig(contexts=("at night",), rounds=None, strict=True)
    assert config.targets.templates == ("a {}",)
    assert config.need.class_names == ("car", "bus")
    assert config.weights.cap == 3.0
    assert config.targets.missing == 0.1


def test_sections_are_arguments_of_the_miner() -> None:
    import inspect

    from hardmine import HardMiner

    arguments = inspect.signature(HardMiner.__init__).parameters
    assert {"need", "targets", "weights"} <= set(arguments)
    assert set(asdict(MinerConfig())) <= set(arguments)
    assert len(arguments) - 1 <= 13  # without self


def test_rules_may_be_mappings() -> None:
    arguments = miner_arguments(
        {"contexts": ["at night"], "need": {"patience": None}, "weights": {"cap": 2}}
    )
    assert arguments["contexts"] == ("at night",)
    assert arguments["need"] == NeedRules(patience=None)
    assert arguments["weights"] == WeightRules(cap=2.0)
    rules = TargetRules(missing=0.0)
    assert miner_arguments({"targets": rules}) == {"targets": rules}
    with pytest.raises(HardmineError, match=r"miner: unknown key 'weights.balanse'"):
        miner_arguments({"weights": {"balanse": 1}})
    with pytest.raises(HardmineError, match="miner: unknown key 'cap'; known: need, targets"):
        miner_arguments({"cap": 4})


def test_weights_may_be_the_name_of_rules() -> None:
    named = WeightRules(cap=1.0, balance=0.0, classes="alike")
    assert read_config({"weights": "class-aware"}).weights == named
    assert miner_arguments({"weights": "class-aware"}) == {"weights": named}
    with pytest.raises(
        HardmineError, match="miner, weights: there are no rules called 'class-awar'"
    ):
        miner_arguments({"weights": "class-awar"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "the file must be a mapping"),
        ({"wieghts": {}}, "unknown key 'wieghts'; did you mean 'weights'"),
        ({"weights": {"balanse": 1}}, "unknown key 'weights.balanse'; did you mean 'balance'"),
        ({"weights": {"xyz": 1}}, "known: cap, balance, classes, look_from"),
        (
            {"weights": "uniform"},
            "my.yaml, weights: there are no rules called .uniform.; known: class-",
        ),
        (
            {"weights": {"classes": "same"}},
            'classes must be "missed", "alike" or "unchanged", got .same.',
        ),
        ({"weights": {"cap": "4"}}, r"weights.cap must be a number, got '4' \(str\); YAML reads"),
        ({"weights": {"cap": True}}, "weights.cap must be a number, got True"),
        ({"sampler": {"seed": 1.5}}, "sampler.seed must be a whole number"),
        ({"sampler": {"shuffle": 1}}, "sampler.shuffle must be true or false"),
        ({"index": {"workers": "two"}}, "index.workers must be a whole number or null"),
        (
            {"miner": {"contexts": "at night"}},
            r"miner: contexts must be a list .* or .auto.; got .at night.",
        ),
        ({"miner": {"contexts": ["a", 3]}}, r"miner.contexts\[1\] must be text, got 3"),
        ({"miner": 5}, "miner must be a mapping"),
        ({"targets": {"mistaken": 2}}, "targets: TargetRules.mistaken must lie in"),
        ({"need": {"policy": 3}}, "need.policy must be text, got 3"),
        ({"need": {"policy": "best"}}, 'need: policy must be "mean"'),
    ],
)
def test_mistakes_are_named_with_their_place(values: Any, message: str) -> None:
    with pytest.raises(HardmineError, match=message):
        read_config(values, name="my.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(HardmineError, match="cannot read the config"):
        load_config(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("weights: [")
    with pytest.raises(HardmineError, match="not valid YAML"):
        load_config(broken)
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(HardmineError, match="must be UTF-8 text"):
        load_config(broken)
