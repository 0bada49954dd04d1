"""From a YAML file to a round: images, encoder, index and miner as the file says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hardmine import HardMiner, load_config, open_index
from hardmine.config import Config, ImagesConfig, IndexConfig, MinerConfig, ValidationConfig
from hardmine.errors import InputError
from hardmine.scenes import write_scenes

CONFIG = """
images:
  source: {out}/scenes
  annotations: {out}/scenes/annotations/train.json
index:
  path: {out}/scenes.hmx
  clusters: kmeans:4+whole
need:
  policy: below:0.5
targets:
  templates: plain
weights:
  cap: 2
  balance: 0
miner:
  contexts: [at night]
  rounds: {out}/rounds.jsonl
"""


def test_a_config_makes_a_miner_that_mines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardmine.mining.scores._MIN_REGIONS", 0)
    write_scenes(tmp_path / "scenes", num_images=8, seed=1, size=64)
    file = tmp_path / "mine.yaml"
    file.write_text(CONFIG.format(out=tmp_path))
    miner = HardMiner.from_config(load_config(file))
    name = miner.class_names[0]
    done = miner.step({name: 0.1})
    assert [query.phrases for query in done.queries] == [(name,), (f"{name} at night",)]
    assert miner.sampler is not None
    assert 1.0 < miner.sampler.weights.max() <= 2.0
    assert (tmp_path / "rounds.jsonl").read_text().count("\n") == 1
    # The next run reads the scores that the first one kept beside the index.
    kept = sorted((tmp_path / "scenes.hmx.scores").rglob("*.f32"))
    assert len(kept) == 2
    assert kept[0].parent.name == open_index(tmp_path / "scenes.hmx").store.digest[:16]
    later = HardMiner.from_config(load_config(file))
    monkeypatch.setattr(type(later.data.scores.index), "iter_scores", None)
    assert later.step({name: 0.1}).digest == done.digest


def test_contexts_are_measured_on_the_validation_images_of_the_config(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", num_images=40, seed=1, size=64)
    file = tmp_path / "mine.yaml"
    file.write_text(
        CONFIG.format(out=tmp_path)
        + f"""
validation:
  source: {tmp_path}/scenes
  annotations: {tmp_path}/scenes/annotations/val.json
  index: {tmp_path}/val.hmx
"""
    )
    miner = HardMiner.from_config(load_config(file))
    assert miner.validation is not None
    assert miner.validation.index is not None
    assert miner.validation.index.ids.tolist() == miner.validation.images.ids.tolist()
    assert (tmp_path / "val.hmx").is_dir()
    nothing_found = miner.step(dict.fromkeys(miner.class_names, 0.1), val_detections=[])
    assert nothing_found.error == ""


def test_without_contexts_the_validation_images_get_an_index_too(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", num_images=8, seed=1, size=64)
    config = replace(
        Config(),
        images=ImagesConfig(str(tmp_path / "scenes"), split="train"),
        index=IndexConfig(str(tmp_path / "scenes.hmx"), clusters="whole"),
        validation=ValidationConfig(
            str(tmp_path / "scenes"), split="val", index=str(tmp_path / "val.hmx")
        ),
        miner=MinerConfig(rounds=None),
    )
    miner = HardMiner.from_config(config)
    assert miner.validation is not None
    assert miner.validation.index is not None
    assert np.array_equal(miner.validation.index.ids, miner.validation.images.ids)


def test_a_config_without_images_is_refused() -> None:
    with pytest.raises(InputError, match=r"set images\.source"):
        HardMiner.from_config(Config())
