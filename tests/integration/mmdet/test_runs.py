"""The real Runner trains, validates, mines, checkpoints and resumes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import host_mmdet
import mmdet_noisy  # noqa: F401 - registers NoisyDetector
import numpy as np
import pytest
import torch
from mmdet_case import Recorder, coco, config, make_runner, retinanet, rtmdet_tiny
from pixel_images import PixelEncoder

from hardmine.errors import HardmineError, InputError
from hardmine.history import read_rounds
from hardmine_mmdet import HardMiningHook
from hardmine_mmdet.safe_checkpoints import SAFE_GLOBALS  # resuming needs it from torch 2.6 on

# Untrained detectors find nothing: with a target AP as policy all classes are weak at once.
MINER = {
    "need": {"policy": "below:0.9", "patience": None},
    "weights": {"cap": 8.0},
}
BATCHES = 6  # of four images, in an epoch of 24
# Where only the draws are asked about, a detector that costs nothing.
INSTANT = {"model": {"type": "NoisyDetector"}}
# Batches of one aspect ratio, as in the stock configs.
SAME_SHAPE = {"train_dataloader.batch_sampler": {"type": "AspectRatioBatchSampler"}}


@pytest.fixture(autouse=True)
def _safe_globals() -> None:
    """Bring back what a ``torch.serialization.safe_globals`` block of another trainer took out."""
    if hasattr(torch.serialization, "add_safe_globals"):
        torch.serialization.add_safe_globals(SAFE_GLOBALS)


def train(scenes, work: Path, *, hook: dict[str, Any] | None = None, **more: Any):
    """Train with a recorder and a hook; returns the recorder and the runner."""
    settings = config(*scenes, work, custom_hooks=[], **more)
    recorder = Recorder()
    runner = make_runner(settings, recorder)
    options = {"encoder": PixelEncoder(), "clusters": "kmeans:4+whole", "miner": MINER}
    runner.register_hook(HardMiningHook(**(options | (hook or {}))))
    runner.train()
    return recorder, runner


def state_after(work: Path, iterations: int) -> dict[str, Any]:
    return torch.load(work / "hardmine" / "states" / f"iter_{iterations}.pth", weights_only=True)


def expected_counts(state: dict[str, Any]) -> np.ndarray:
    weights = state["miner"]["weights"].numpy()
    return len(weights) * weights / weights.sum()


def assert_drawn_by(counts: Counter[int], expected: np.ndarray) -> None:
    """Each image was drawn the floor or the ceiling of its expected count."""
    drawn = np.array([counts[1000 + 3 * row] for row in range(len(expected))])
    assert drawn.sum() == len(expected)
    assert (drawn >= np.floor(expected - 1e-9)).all()
    assert (drawn <= np.ceil(expected + 1e-9)).all()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, scenes):
    """Two epochs of RetinaNet without interruption."""
    work = tmp_path_factory.mktemp("uninterrupted")
    train(scenes, work, epochs=2, **SAME_SHAPE)
    return work


def test_the_rounds_hold_the_aps_of_the_metric(uninterrupted) -> None:
    work = uninterrupted
    rounds = read_rounds(work / "hardmine" / "rounds.jsonl")
    assert [done.number for done in rounds] == [1, 2]
    [scalars] = work.glob("*/vis_data/scalars.json")
    logged = [json.loads(line) for line in scalars.read_text().splitlines()]
    validations = [line for line in logged if "coco/bbox_mAP" in line]
    for done, line in zip(rounds, validations, strict=True):
        for name, ap in zip(done.class_names, done.ap, strict=True):
            assert np.isclose(ap, line[f"coco/{name}_precision"], equal_nan=True)
    mined = [line for line in logged if "hardmine/effective_size" in line]
    assert [line["step"] for line in mined] == [6, 12]
    assert mined[0]["hardmine/effective_size"] < 24
    assert mined[0][f"hardmine/need/{rounds[0].weak[0]}"] > 0


def test_resuming_from_the_checkpoint_alone(uninterrupted, scenes, tmp_path) -> None:
    """In another folder, without the hook's states: the checkpoint lacks the last round."""
    work = uninterrupted
    resumed, _ = train(scenes, tmp_path, epochs=3, resume=True, load_from=str(work / "epoch_2.pth"))
    assert_drawn_by(resumed.counts(0, BATCHES), expected_counts(state_after(work, BATCHES)))


def iterations(**more: Any) -> dict[str, Any]:
    return {
        "train_cfg": {
            "type": "IterBasedTrainLoop",
            "max_iters": 16,
            "val_interval": 4,
        },
        "train_dataloader.sampler": {"type": "HardMiningSampler", "infinite": True},
        "default_hooks.checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 5},
        **more,
    }


def resume(scenes, work: Path, *, stop: int, into: Path, **more: Any) -> Recorder:
    """Resume from a checkpoint, with the hook's states."""
    into.mkdir()
    (into / "hardmine").symlink_to(work / "hardmine")
    checkpoint = str(work / f"iter_{stop}.pth")
    return train(scenes, into, resume=True, load_from=checkpoint, **more)[0]


def test_iteration_based_training_resumes_in_the_middle_of_a_pass(scenes, tmp_path) -> None:
    more = iterations(model=rtmdet_tiny())
    work = tmp_path / "whole"
    uninterrupted, _ = train(scenes, work, **more)
    assert set(uninterrupted.counts(0, BATCHES).values()) == {1}
    assert set(uninterrupted.counts(2 * BATCHES, 16)) != set(uninterrupted.counts(0, BATCHES))
    for stop in (5, 10):
        resumed = resume(scenes, work, stop=stop, into=tmp_path / f"from_{stop}", **more)
        assert resumed.batches == uninterrupted.batches[stop:]


def test_new_weights_draw_the_next_pass_although_workers_are_in_it(tmp_path) -> None:
    """A validation at the end of each pass, when the loader has begun the next one."""
    alone, ahead = (
        host_mmdet.train(
            tmp_path / "scenes", tmp_path / str(workers), epochs=3, workers=workers, save_every=6
        )
        for workers in (0, 2)
    )
    assert [len(set(epoch)) < 24 for epoch in alone.epochs()[:2]] == [False, True]
    assert ahead.batches == alone.batches


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_that_wait_for_a_batch_are_not_lost(scenes, tmp_path, num_workers) -> None:
    more = iterations(
        **{
            "train_dataloader.num_workers": num_workers,
            "train_dataloader.persistent_workers": num_workers > 0,
            **SAME_SHAPE,
            **INSTANT,
            "default_hooks.checkpoint.interval": 1,
        }
    )
    work = tmp_path / "whole"
    uninterrupted, _ = train(scenes, work, **more)
    for batch in uninterrupted.batches:
        assert len({image % 15 == 1000 % 15 for image in batch}) == 1
    waiting = state_after(work, 8)["samplers"][0]["waiting"]
    assert waiting
    # After 32 draws the first pass over 24 images is over: each was trained on or waits.
    drawn = {image for batch in uninterrupted.batches[:8] for image in batch}
    assert drawn | {1000 + 3 * row for row in waiting} == {1000 + 3 * row for row in range(24)}
    # First from a checkpoint saved before its validation, then from one between two validations
    # of the resumed run.
    once = resume(scenes, work, stop=8, into=tmp_path / "once", **more)
    assert once.batches == uninterrupted.batches[8:]
    twice = resume(scenes, tmp_path / "once", stop=11, into=tmp_path / "twice", **more)
    assert twice.batches == uninterrupted.batches[11:]


def test_aspect_ratio_batches_persistent_workers_and_rare_validation(scenes, tmp_path) -> None:
    recorder, _ = train(
        scenes,
        tmp_path,
        epochs=3,
        **{
            **SAME_SHAPE,
            **INSTANT,
            "train_dataloader.num_workers": 2,
            "train_dataloader.persistent_workers": True,
            "train_cfg.val_interval": 2,
        },
    )
    ends = np.cumsum([len(batch) for batch in recorder.batches])
    [first, second] = [int(np.searchsorted(ends, 24 * epoch)) + 1 for epoch in (1, 2)]
    assert set(recorder.counts(0, first).values()) == {1}
    assert set(recorder.counts(first, second).values()) == {1}
    expected = expected_counts(state_after(tmp_path, second))
    assert_drawn_by(recorder.counts(second, len(recorder.batches)), expected)
    tall = {1000 + 15 * row for row in range(5)}
    mixed = [batch for batch in recorder.batches if 0 < len(tall & set(batch)) < len(set(batch))]
    assert len(mixed) <= 3  # at most the last batch of each epoch


@pytest.mark.parametrize(
    ("wrap", "length"),
    [
        (lambda inner: {"type": "RepeatDataset", "times": 2, "dataset": inner}, 48),
        (
            lambda inner: {
                "type": "MultiImageMixDataset",
                "dataset": inner,
                "pipeline": [
                    {"type": "Mosaic", "img_scale": (64, 64)},
                    {"type": "Resize", "scale": (64, 64)},
                    {"type": "PackDetInputs"},
                ],
            },
            24,
        ),
    ],
    ids=["repeated", "mixed"],
)
def test_wrapped_data_sets_train(scenes, tmp_path, wrap, length) -> None:
    inner = coco(scenes[0], train=True)
    inner["pipeline"] = inner["pipeline"][:2] if length == 24 else inner["pipeline"]
    train(
        scenes,
        tmp_path,
        epochs=2,
        **INSTANT,
        **{"train_dataloader.dataset": wrap(inner)},
    )
    weights = state_after(tmp_path, length // 4)["miner"]["weights"].numpy()
    assert len(weights) == length
    # All repeats of an image have the same weight.
    np.testing.assert_array_equal(weights[:24], weights[-24:])
    assert weights.max() > weights.min()


def test_nothing_detected_leaves_the_weights_alone(scenes, tmp_path, caplog) -> None:
    silent = retinanet()
    silent["test_cfg"]["score_thr"] = 1.0
    recorder, _ = train(scenes, tmp_path, epochs=2, model=silent)
    assert set(recorder.counts(BATCHES, 2 * BATCHES).values()) == {1}
    assert not (tmp_path / "hardmine" / "rounds.jsonl").exists()


def test_training_without_validation_draws_uniformly(scenes, tmp_path) -> None:
    recorder, _ = train(
        scenes,
        tmp_path,
        epochs=2,
        val_dataloader=None,
        val_evaluator=None,
        val_cfg=None,
        **INSTANT,
        train_cfg={"type": "EpochBasedTrainLoop", "max_epochs": 2},
    )
    assert set(recorder.counts(BATCHES, 2 * BATCHES).values()) == {1}


@pytest.fixture
def strangers(scenes, tmp_path):
    """A validation set that shares no class with the training set."""
    folder = tmp_path / "strangers"
    folder.mkdir()
    labels = json.loads((scenes[1] / "labels.json").read_text())
    for category in labels["categories"]:
        category["name"] = f"strange {category['name']}"
    (folder / "labels.json").write_text(json.dumps(labels))
    (folder / "images").symlink_to(scenes[1] / "images")
    names = tuple(category["name"] for category in labels["categories"])
    return folder, {"val_dataloader.dataset.metainfo": {"classes": names}}


def test_a_failing_round_stops_strict_training(scenes, strangers, tmp_path) -> None:
    folder, more = strangers
    with pytest.raises(HardmineError, match="have none of the 8 classes"):
        train(
            (scenes[0], folder),
            tmp_path / "work",
            hook={"strict": True},
            epochs=2,
            **INSTANT,
            **more,
        )


def test_another_sampler_is_refused_before_training(scenes, tmp_path) -> None:
    sampler = {"type": "DefaultSampler", "shuffle": True}
    with pytest.raises(InputError, match="type='HardMiningSampler'"):
        train(scenes, tmp_path, **INSTANT, **{"train_dataloader.sampler": sampler})


def test_two_hooks_are_refused(scenes, tmp_path) -> None:
    """A base config may have one already."""
    settings = config(*scenes, tmp_path, custom_hooks=[{"type": "HardMiningHook"}] * 2, **INSTANT)
    with pytest.raises(InputError, match="more than one HardMiningHook"):
        make_runner(settings).train()


@pytest.mark.parametrize(
    ("loop", "infinite", "reason"),
    [
        ({"type": "IterBasedTrainLoop", "max_iters": 4}, False, "set infinite=True for"),
        ({"type": "EpochBasedTrainLoop", "max_epochs": 1}, True, "never ends"),
    ],
)
def test_a_sampler_for_the_other_loop_is_refused(scenes, tmp_path, loop, infinite, reason) -> None:
    """An infinite sampler would never end an epoch, a finite one would end too early."""
    sampler = {"type": "HardMiningSampler", "infinite": infinite}
    with pytest.raises(InputError, match=reason):
        train(scenes, tmp_path, train_cfg=loop, **INSTANT, **{"train_dataloader.sampler": sampler})


def test_validations_are_counted_over_a_resume(scenes, tmp_path) -> None:
    """Every second validation is mined, and the run stops after one that was not."""
    hook = {"interval": 2, "miner": {"weights": {"look_from": 1}}}
    train(scenes, tmp_path, hook=hook, epochs=2, **INSTANT)
    train(scenes, tmp_path, hook=hook, epochs=3, resume=True, **INSTANT)
    rounds = read_rounds(tmp_path / "hardmine" / "rounds.jsonl")
    states = [state_after(tmp_path, epoch * BATCHES) for epoch in (1, 2, 3)]
    assert [state["validations"] for state in states] == [1, 2, 3]
    assert [state["miner"]["number"] for state in states] == [1, 1, 2]
    assert [done.number for done in rounds] == [1, 2]


def test_validating_alone_needs_no_training_images(scenes, tmp_path) -> None:
    """The config of a run with mining can also be used to validate or test."""
    nowhere = coco(tmp_path / "nowhere", train=True)
    settings = config(*scenes, tmp_path, **{"train_dataloader.dataset": nowhere})
    settings.custom_hooks = [{"type": "HardMiningHook", "encoder": "tiny"}]
    metrics = make_runner(settings).val()
    assert "coco/bbox_mAP" in metrics
    assert not (tmp_path / "hardmine").exists()
