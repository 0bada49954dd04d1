"""What only the Hugging Face Trainer does: accumulation, resuming by itself."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from host_scenes import NUM_IMAGES, load_scenes
from host_transformers import train
from pixel_images import PixelEncoder
from transformers import Trainer

from hardmine import HardMiningSampler
from hardmine.errors import InputError
from hardmine.history import read_rounds
from hardmine_transformers import HardMining


def test_accumulated_steps_are_counted_as_the_trainer_counts_them(scenes, tmp_path) -> None:
    """An epoch of six batches has three steps of two; the checkpoint lies within the second."""
    more = {"gradient_accumulation_steps": 2, "save_every": 4}
    whole = train(scenes, tmp_path / "whole", **more)
    resumed = train(
        scenes, tmp_path / "resumed", resume=tmp_path / "whole" / "checkpoint-4", **more
    )
    assert resumed.batches == whole.batches[8:]


@pytest.fixture(scope="module")
def one_epoch(scenes, tmp_path_factory) -> Path:
    """Folder of a training of one epoch."""
    work = tmp_path_factory.mktemp("one_epoch")
    train(scenes, work, epochs=1)
    return work


def test_a_checkpoint_without_hardmine_draws_uniformly(scenes, one_epoch, tmp_path, caplog) -> None:
    checkpoint = tmp_path / "checkpoint-6"
    shutil.copytree(one_epoch / "checkpoint-6", checkpoint)
    (checkpoint / "hardmine.pt").unlink()
    resumed = train(scenes, tmp_path / "other", resume=checkpoint)
    assert sorted(resumed.epochs()[0]) == list(range(NUM_IMAGES))
    assert "saved without hardmine" in caplog.text


def test_the_last_checkpoint_is_found_as_the_trainer_finds_it(scenes, one_epoch) -> None:
    resumed = train(scenes, one_epoch, epochs=2, resume=True)
    state = torch.load(one_epoch / "checkpoint-6" / "hardmine.pt", weights_only=True)
    sampler = HardMiningSampler(NUM_IMAGES, seed=3)
    sampler.set_epoch(1)
    sampler.set_weights(state["miner"]["weights"])
    assert resumed.epochs() == [list(sampler)]


def test_a_second_training_starts_from_equal_weights(scenes, tmp_path) -> None:
    first, second = train(scenes, tmp_path, epochs=1, times=2).epochs()
    assert first == second
    assert sorted(second) == list(range(NUM_IMAGES))


def test_only_new_evaluations_of_the_trainers_own_are_mined(
    scenes, one_epoch, tmp_path, caplog
) -> None:
    """Not what eval_on_start evaluates again when a run is resumed, and not the training images."""
    resume, more = one_epoch / "checkpoint-6", {"eval_on_start": True, "evaluate_training": True}
    train(scenes, tmp_path, resume=resume, **more)
    rounds = read_rounds(tmp_path / "hardmine" / "rounds.jsonl")
    assert [done.number for done in rounds] == [2]
    assert "metric_key_prefix='train' are not mined" in caplog.text


@pytest.mark.parametrize(
    ("metric", "prefix", "mined"),
    [
        ("eval_val2", "eval_val2", True),
        ("eval_val2_map", "eval_val2", True),
        ("eval_val2", "eval_val", False),
        (None, "eval", True),
        (None, "train", False),
    ],
)
def test_the_data_set_that_counts_is_told_by_its_whole_name(
    scenes, caplog, metric, prefix, mined
) -> None:
    images, _ = load_scenes(scenes)
    mining = HardMining("no.hmx", images=images, encoder=PixelEncoder(), metric=metric)
    mining._mining = SimpleNamespace(warn=logging.getLogger("hardmine").warning)
    assert mining._is_mined({f"{prefix}_map": 0.1, f"{prefix}_runtime": 2.0}) == mined
    assert ("are not mined" in caplog.text) != mined


def test_each_trial_of_a_search_keeps_its_own_state(scenes, tmp_path, monkeypatch) -> None:
    """A search trains with trials, whose checkpoints lie in folders of their own."""

    def folder_of_trial(self, trial):
        return str(Path(self.args.output_dir) / (f"run-{trial['number']}" if trial else ""))

    def begin_trial(self, trial):
        self._trial = {"number": 3}

    monkeypatch.setattr(Trainer, "_hp_search_setup", begin_trial)
    save = Trainer._save_checkpoint
    monkeypatch.setattr(
        Trainer, "_save_checkpoint", lambda self, model, trial: save(self, model, self._trial)
    )
    monkeypatch.setattr(Trainer, "_get_output_dir", folder_of_trial)
    train(scenes, tmp_path, epochs=1)
    kept = [path.name for path in (tmp_path / "run-3" / "checkpoint-6").iterdir()]
    assert {"hardmine.pt", "trainer_state.json"} <= set(kept)
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"train_sampling_strategy": "group_by_length"}, "'group_by_length' chooses the order"),
        ({"group_by_length": True}, "'group_by_length' chooses the order"),
        ({"eval_dataset": {"day": [], "night": []}}, r"\(day, night\).*metric='eval_day'"),
        (
            {"callbacks": [HardMining("unused.hmx", images=None)]},
            "attached to this trainer already",
        ),
    ],
)
def test_what_cannot_be_mined_is_refused(settings, reason) -> None:
    args = SimpleNamespace(**settings)
    trainer = SimpleNamespace(
        args=args,
        train_dataset=range(3),
        eval_dataset=settings.get("eval_dataset"),
        callback_handler=SimpleNamespace(callbacks=settings.get("callbacks", [])),
    )
    with pytest.raises(InputError, match=reason):
        HardMining("unused.hmx", images=None).attach(trainer)


def test_a_loader_with_a_sampler_of_its_own_is_refused() -> None:
    loader = torch.utils.data.DataLoader(range(3), shuffle=True)
    with pytest.raises(InputError, match="draws with RandomSampler; a get_train_dataloader of"):
        HardMining("unused.hmx", images=None).on_train_begin(
            None, None, None, train_dataloader=loader
        )


def test_a_data_set_without_length_is_refused(scenes) -> None:
    images, _ = load_scenes(scenes)
    trainer = SimpleNamespace(args=None, train_dataset=iter(range(3)))
    with pytest.raises(InputError, match="a train_dataset with a length"):
        HardMining("unused.hmx", images=images).attach(trainer)
