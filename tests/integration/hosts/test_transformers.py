"""What only the Hugging Face Trainer does: accumulation, resuming by itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from host_scenes import BATCHES, load_scenes
from host_transformers import train

from hardmine.errors import InputError
from hardmine_transformers import HardMining


def test_accumulated_steps_are_counted_as_the_trainer_counts_them(scenes, tmp_path) -> None:
    """An epoch of six batches has three steps of two; the checkpoint lies within the second."""
    more = {"gradient_accumulation_steps": 2, "save_every": 4}
    whole = train(scenes, tmp_path / "whole", **more)
    resumed = train(
        scenes, tmp_path / "resumed", resume=tmp_path / "whole" / "checkpoint-4", **more
    )
    assert resumed.batches == whole.batches[8:]


def test_the_last_checkpoint_is_found_as_the_trainer_finds_it(scenes, tmp_path) -> None:
    whole = train(scenes, tmp_path / "whole", epochs=3)
    train(scenes, tmp_path / "again", epochs=2)
    resumed = train(scenes, tmp_path / "again", epochs=3, resume=True)
    assert resumed.batches == whole.batches[2 * BATCHES :]


def test_a_checkpoint_without_hardmine_draws_uniformly(scenes, tmp_path, caplog) -> None:
    train(scenes, tmp_path / "whole")
    (tmp_path / "whole" / "checkpoint-6" / "hardmine.pt").unlink()
    resumed = train(scenes, tmp_path / "other", resume=tmp_path / "whole" / "checkpoint-6")
    assert sorted(resumed.epochs()[0]) == list(range(24))
    assert "saved without hardmine" in caplog.text


def test_a_data_set_without_length_is_refused(scenes) -> None:
    images, _ = load_scenes(scenes)
    trainer = SimpleNamespace(args=None, train_dataset=iter(range(3)))
    with pytest.raises(InputError, match="a train_dataset with a length"):
        HardMining("unused.hmx", images=images).attach(trainer)
