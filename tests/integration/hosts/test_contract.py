"""What hardmine promises in every trainer: the same tests over all of them.

Ultralytics answers in ``test_ultralytics.py``, in a process of its own. MMDetection has loops by
epochs and by iterations; the latter resume within an epoch.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host_scenes import BATCHES, NUM_IMAGES, OFTEN, load_scenes
from torch.utils.data import DistributedSampler

from hardmine import HardMiningSampler
from hardmine.history import read_rounds

SUPPORT = Path(__file__).parents[2] / "support"
SEED = 3
EPOCHS = 3
SAVE_EVERY = 4  # batches: in the middle of an epoch of six


class Lightning:
    """Checkpoints are files."""

    name = "lightning"

    @staticmethod
    def after_epoch(work: Path, epoch: int) -> Path:
        return work / "epochs" / f"epoch={epoch}.ckpt"

    @staticmethod
    def after_step(work: Path, step: int) -> Path:
        return work / "steps" / f"step={step}.ckpt"

    @staticmethod
    def state(checkpoint: Path) -> dict[str, Any]:
        return torch.load(checkpoint, weights_only=True)["callbacks"]["HardMining"]


class Transformers:
    """Checkpoints are folders, by step."""

    name = "transformers"

    @staticmethod
    def after_epoch(work: Path, epoch: int) -> Path:
        return work / f"checkpoint-{(epoch + 1) * BATCHES}"

    @staticmethod
    def after_step(work: Path, step: int) -> Path:
        return work / f"checkpoint-{step}"

    @staticmethod
    def state(checkpoint: Path) -> dict[str, Any]:
        return torch.load(checkpoint / "hardmine.pt", weights_only=True)


class Detectron2:
    """Checkpoints are saved before an evaluation, by step; another hook saves after it."""

    name = "detectron2"

    @staticmethod
    def after_epoch(work: Path, epoch: int) -> Path:
        return work / "epochs" / f"{(epoch + 1) * BATCHES}.pth"

    @staticmethod
    def after_step(work: Path, step: int) -> Path:
        return work / "steps" / f"{step}.pth"

    @staticmethod
    def state(checkpoint: Path) -> dict[str, Any]:
        return torch.load(checkpoint, weights_only=True)["hooks"]["HardMining"]


class Mmdet:
    """Checkpoints are saved before a validation, by epoch or step; the rest lies beside them."""

    name = "mmdet"

    @staticmethod
    def after_epoch(work: Path, epoch: int) -> Path:
        return work / f"epoch_{epoch + 1}.pth"

    @staticmethod
    def after_step(work: Path, step: int) -> Path:
        return work / f"iter_{step}.pth"

    @staticmethod
    def state(checkpoint: Path) -> dict[str, Any]:
        states = sorted(
            (checkpoint.parent / "hardmine" / "states").iterdir(),
            key=lambda file: int(file.stem.rpartition("_")[2]),
        )
        epoch = int(checkpoint.stem.rpartition("_")[2])
        return torch.load(states[epoch - 1], weights_only=True)


HOSTS = {host.name: host for host in (Lightning, Transformers, Detectron2)}
if importlib.util.find_spec("mmdet") is not None and importlib.util.find_spec("mmcv") is not None:
    HOSTS["mmdet"] = Mmdet


@pytest.fixture(scope="module", params=HOSTS)
def host(request: pytest.FixtureRequest) -> Any:
    """One of the trainers."""
    return HOSTS[request.param]


@pytest.fixture(scope="module")
def train(host: Any, scenes: Path) -> Callable[..., Any]:
    """Its training, drawn by class and look to the end, as three epochs are short."""
    training = importlib.import_module(f"host_{host.name}").train
    weights = {"look_from": 1.0}
    return lambda work, **more: training(scenes, work, **{"weights": weights} | more)


@pytest.fixture(scope="module")
def whole(train: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Three epochs with workers and partners, without interruption."""
    work = tmp_path_factory.mktemp("whole")
    torch.manual_seed(1)
    return work, train(work, epochs=EPOCHS, workers=2, partners=True)


@pytest.fixture(scope="module")
def stepwise(train: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The same training, saved within epochs."""
    work = tmp_path_factory.mktemp("stepwise")
    return work, train(work, epochs=EPOCHS, workers=2, save_every=SAVE_EVERY)


def expected_counts(weights: Any) -> np.ndarray:
    weights = np.asarray(weights)
    return NUM_IMAGES * weights / weights.sum()


def test_the_first_epoch_is_torchs_seeded_shuffle(whole) -> None:
    _, trained = whole
    plain = DistributedSampler(range(NUM_IMAGES), num_replicas=1, rank=0, seed=SEED)
    assert trained.epochs()[0] == list(plain)


def test_the_very_next_epoch_is_drawn_by_the_new_weights(whole, host) -> None:
    work, trained = whole
    sampler = HardMiningSampler(NUM_IMAGES, seed=SEED)
    assert len(trained.epochs()) == EPOCHS
    for epoch in range(1, EPOCHS):
        weights = host.state(host.after_epoch(work, epoch - 1))["miner"]["weights"]
        expected = expected_counts(weights)
        assert expected.max() > 1.2
        drawn = np.bincount(trained.epochs()[epoch], minlength=NUM_IMAGES)
        assert (np.abs(drawn - expected) < 1).all()
        sampler.set_epoch(epoch)
        sampler.set_weights(weights)
        assert trained.epochs()[epoch] == list(sampler)


def test_partners_follow_the_weights(whole, host) -> None:
    work, trained = whole
    partners = np.array(trained.partners).reshape(EPOCHS, NUM_IMAGES)
    expected = expected_counts(host.state(host.after_epoch(work, 0))["miner"]["weights"])
    by_weight = (expected**2).sum() / expected.sum()
    # The mean image has the value 1: what uniform partners show on average.
    assert by_weight > 1.2
    after = np.mean([expected[partners[epoch]].mean() for epoch in range(1, EPOCHS)])
    assert after > (1 + by_weight) / 2


def test_rounds_reach_the_trainers_log(whole, host) -> None:
    work, trained = whole
    logged = trained.scalars["hardmine/effective_size"]
    assert len(logged) == EPOCHS
    weights = host.state(host.after_epoch(work, 0))["miner"]["weights"].numpy()
    assert logged[0] == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    rounds = read_rounds(work / "hardmine" / "rounds.jsonl")
    assert [done.number for done in rounds] == [1, 2, 3]
    assert trained.scalars[f"hardmine/need/{rounds[0].weak[0]}"][0] > 0


def test_what_is_missed_is_measured_on_the_predicted_boxes(whole) -> None:
    work, _ = whole
    rounds = read_rounds(work / "hardmine" / "rounds.jsonl")
    assert all(done.inputs.ratios.density is not None for done in rounds)


def test_training_resumes_at_the_end_of_an_epoch(whole, host, train, tmp_path) -> None:
    work, trained = whole
    resumed = train(tmp_path, epochs=EPOCHS, workers=2, resume=host.after_epoch(work, 0))
    assert resumed.batches == trained.batches[BATCHES:]


@pytest.mark.parametrize("step", [4, 8])
def test_training_resumes_within_an_epoch(stepwise, host, train, tmp_path, step) -> None:
    work, trained = stepwise
    resumed = train(tmp_path, epochs=EPOCHS, workers=2, resume=host.after_step(work, step))
    assert resumed.batches == trained.batches[step:]


def test_training_resumes_from_the_last_step_of_an_epoch(stepwise, host, train, tmp_path) -> None:
    """This checkpoint is written before the validation that follows it."""
    work, trained = stepwise
    (tmp_path / "hardmine").symlink_to(work / "hardmine")
    resumed = train(tmp_path, epochs=EPOCHS, workers=2, resume=host.after_step(work, 12))
    assert resumed.batches == trained.batches[12:]


def test_where_images_come_often_the_end_alone_is_drawn_by_weight(train, tmp_path) -> None:
    trained = train(tmp_path, epochs=EPOCHS, weights=OFTEN)
    plain = DistributedSampler(range(NUM_IMAGES), num_replicas=1, rank=0, seed=SEED)
    for epoch in range(2):
        plain.set_epoch(epoch)
        assert trained.epochs()[epoch] == list(plain)
    rounds = read_rounds(tmp_path / "hardmine" / "rounds.jsonl")
    assert [done.inputs.weights.look_alone for done in rounds] == [False, True, True]
    assert [done.draws.moved_share > 0 for done in rounds] == [False, True, True]
    assert "equally often until 50 % of the training" in rounds[0].drawn_by


def test_a_failing_round_leaves_training_alone(train, tmp_path) -> None:
    trained = train(tmp_path, fail=True)
    plain = DistributedSampler(range(NUM_IMAGES), num_replicas=1, rank=0, seed=SEED)
    plain.set_epoch(1)
    assert trained.epochs()[1] == list(plain)
    assert "hardmine/effective_size" not in trained.scalars


@pytest.fixture(scope="module")
def ranks(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of a training of two processes in each trainer, one after the other."""
    load_scenes(scenes)
    work = tmp_path_factory.mktemp("ranks")
    places = [str(SUPPORT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "host_rank.py"), str(scenes), str(work), *HOSTS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return work


def test_two_processes_see_all_images_and_one_set_of_weights(host, ranks) -> None:
    work = ranks / host.name
    drawn = [json.loads((work / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    half = BATCHES // 2
    first, second = (
        Counter(row for rank in drawn for batch in rank[start : start + half] for row in batch)
        for start in (0, half)
    )
    assert first == Counter(range(NUM_IMAGES))
    checkpoint = host.after_epoch(work, 0)
    # Where they are counted in steps, two processes need half as many for an epoch.
    by_steps = checkpoint.with_name(checkpoint.name.replace(str(BATCHES), str(half)))
    checkpoint = by_steps if by_steps.exists() else checkpoint
    expected = expected_counts(host.state(checkpoint)["miner"]["weights"])
    assert expected.max() > 1.05  # by look
    assert all(abs(second[row] - expected[row]) < 1 for row in range(NUM_IMAGES))
    rounds = read_rounds(work / "hardmine" / "rounds.jsonl")
    assert all(done.inputs.ratios.density is not None for done in rounds)
