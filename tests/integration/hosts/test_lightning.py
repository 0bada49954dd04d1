"""What only Lightning does: wrapped samplers, two libraries, loaders with a state of their own."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from host_lightning import train
from host_scenes import BATCHES, NUM_IMAGES, load_scenes, miner_options
from pixel_images import PixelEncoder
from torchdata.stateful_dataloader import StatefulDataLoader
from torchmetrics.detection import MeanAveragePrecision

from hardmine import HardMiningSampler
from hardmine.errors import InputError
from hardmine.history import read_rounds
from hardmine_lightning import HardMining
from hardmine_lightning.callback import _num_epochs
from hardmine_lightning.metrics import find_mean_average_precision


def test_pytorch_lightning_mines_as_well(scenes, tmp_path) -> None:
    trained = train(scenes, tmp_path, library="pytorch_lightning")
    assert len(trained.scalars["hardmine/effective_size"]) == 2
    assert sorted(trained.epochs()[0]) == list(range(NUM_IMAGES))
    assert sorted(trained.epochs()[1]) != list(range(NUM_IMAGES))


def test_a_stateful_loader_resumes_within_an_epoch(scenes, tmp_path) -> None:
    more = {"epochs": 2, "workers": 2, "loader": StatefulDataLoader}
    whole = train(scenes, tmp_path / "whole", save_every=4, **more)
    checkpoint = tmp_path / "whole" / "steps" / "step=8.ckpt"
    resumed = train(scenes, tmp_path / "resumed", resume=checkpoint, **more)
    assert resumed.batches == whole.batches[8:]


def test_an_epoch_cut_short_is_not_continued_after_a_resume(scenes, tmp_path) -> None:
    more = {"epochs": 2, "limit_train_batches": 4}
    whole = train(scenes, tmp_path / "whole", **more)
    assert len(whole.batches) == 8
    checkpoint = tmp_path / "whole" / "epochs" / "epoch=0.ckpt"
    resumed = train(scenes, tmp_path / "resumed", resume=checkpoint, **more)
    assert resumed.batches == whole.batches[4:]


def test_validation_within_an_epoch_takes_effect_at_the_next(scenes, tmp_path) -> None:
    trained = train(scenes, tmp_path, val_check_interval=0.5)
    assert len(trained.scalars["hardmine/effective_size"]) == 4
    assert sorted(trained.epochs()[0]) == list(range(NUM_IMAGES))
    assert len(trained.batches) == 2 * BATCHES


def callback(scenes, sampler, **options):
    images, _ = load_scenes(scenes)
    encoder, index = PixelEncoder(), scenes / "lightning.hmx"
    return HardMining(
        index,
        sampler=sampler,
        images=images,
        encoder=encoder,
        clusters="none",
        miner=miner_options(),
        **options,
    )


class Trainer:
    """The part of a trainer that the checks look at."""

    world_size = 2
    max_epochs, max_steps = 2, -1
    num_training_batches = NUM_IMAGES
    ckpt_path = None

    def __init__(self, sampler, folder=None) -> None:
        self.default_root_dir = folder
        data = list(range(NUM_IMAGES))
        self.train_dataloader = torch.utils.data.DataLoader(data, sampler=sampler)


def test_a_wrapped_sampler_is_refused(scenes) -> None:
    """Lightning wraps it unless use_distributed_sampler=False, and would shard a shard."""
    from lightning.fabric.utilities.distributed import DistributedSamplerWrapper

    ours = HardMiningSampler(NUM_IMAGES)
    wrapped = DistributedSamplerWrapper(ours, num_replicas=2, rank=0)
    with pytest.raises(InputError, match=r"DistributedSamplerWrapper; .*use_distributed_sampler=F"):
        callback(scenes, ours).on_train_start(Trainer(wrapped), None)
    with pytest.raises(InputError, match="draws with another HardMiningSampler"):
        callback(scenes, ours).on_train_start(Trainer(HardMiningSampler(NUM_IMAGES)), None)
    # reload_dataloaders_every_n_epochs makes new loaders.
    with pytest.raises(InputError, match="draws with another HardMiningSampler"):
        callback(scenes, ours).on_train_epoch_start(Trainer(HardMiningSampler(NUM_IMAGES)), None)
    several = Trainer(ours)
    several.train_dataloader = {"a": several.train_dataloader}
    with pytest.raises(InputError, match=r"a dict to train from has no sampler; .*the one train"):
        callback(scenes, ours).on_train_start(several, None)


@pytest.mark.parametrize(
    "length",
    [
        {"max_epochs": 4},
        {"max_epochs": 4, "optimizers": 2},  # Lightning counts a step of each
        {"max_epochs": 4, "accumulate_grad_batches": 2},
        {"max_epochs": -1, "max_steps": 4 * BATCHES},
        {"max_epochs": 100, "max_steps": 4 * BATCHES},
    ],
)
def test_the_length_of_a_training_is_that_of_what_ends_first(scenes, tmp_path, length) -> None:
    for name, passes, first in (("few", 4, False), ("many", 3.9, True)):
        train(scenes, tmp_path / name, weights={"max_passes": passes}, **length)
        rounds = read_rounds(tmp_path / name / "hardmine" / "rounds.jsonl")
        equal = ["equally often" in done.drawn_by for done in rounds]
        assert equal == [first, first, False, False]
        assert [done.inputs.weights.look_alone for done in rounds] == [False, False, True, True]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"max_epochs": 12}, 12),
        ({"max_epochs": 12, "max_steps": 16, "accumulate_grad_batches": 4}, 8),
        ({"max_steps": 7, "accumulate_grad_batches": 6}, 7),
        ({"max_epochs": 2, "max_steps": 16}, 2),
        # Two steps a batch, which the module takes by hand.
        ({"max_steps": 24, "global_step": 6, "by_hand": True}, 4 * 0.5),
        ({"max_steps": 24, "by_hand": True}, 0),
        ({}, 0),
    ],
)
def test_epochs_are_counted_before_the_first_step_of_an_accumulation(told, expected) -> None:
    trainer = SimpleNamespace(
        **{
            "max_epochs": -1,
            "max_steps": -1,
            "global_step": 0,
            "num_training_batches": 6,
            "accumulate_grad_batches": 1,
        }
        | told
    )
    module = SimpleNamespace(automatic_optimization="by_hand" not in told)
    assert _num_epochs(trainer, module, 0.5) == expected


def test_epochs_that_end_early_draw_an_image_less_often(scenes, tmp_path) -> None:
    train(scenes, tmp_path, epochs=4, limit_train_batches=1, weights={"max_passes": 1})
    rounds = read_rounds(tmp_path / "hardmine" / "rounds.jsonl")
    assert [done.drawn_by for done in rounds[:2]] == ["", ""]
    assert rounds[-1].inputs.weights.look_alone


def test_validation_images_with_other_numbers_of_classes_are_refused(scenes, tmp_path) -> None:
    images, val_images = load_scenes(scenes)
    turned = replace(val_images, class_names=val_images.class_names[::-1])
    sampler = HardMiningSampler(NUM_IMAGES)
    module = torch.nn.Module()
    module.map = MeanAveragePrecision(backend="faster_coco_eval")
    message = (
        f"class 0 is {images.class_names[0]!r} in images and {images.class_names[-1]!r} in val"
    )
    with pytest.raises(InputError, match=message):
        callback(scenes, sampler, val_images=turned).on_fit_start(
            Trainer(sampler, tmp_path), module
        )


def test_batches_of_an_earlier_training_do_not_count(scenes, tmp_path) -> None:
    """A training that is resumed within an epoch begins none, and may follow another."""
    sampler = HardMiningSampler(NUM_IMAGES)
    mining, trainer = callback(scenes, sampler), Trainer(sampler, tmp_path)
    module = torch.nn.Linear(1, 1)
    module.device = "cpu"
    for _ in range(2):
        mining.on_fit_start(trainer, module)
        mining.on_train_start(trainer, module)
        for batch_idx, _ in zip(range(3), trainer.train_dataloader, strict=False):
            mining.on_train_batch_end(trainer, module, None, None, batch_idx)
        assert mining.state_dict()["samplers"][0]["position"] == 3


def test_weights_of_an_earlier_training_are_said(scenes, tmp_path, caplog) -> None:
    sampler = HardMiningSampler(NUM_IMAGES)
    mining, trainer = callback(scenes, sampler), Trainer(sampler, tmp_path)
    module = torch.nn.Linear(1, 1)
    module.device = "cpu"
    mining.on_fit_start(trainer, module)
    assert "weights of an earlier training" not in caplog.text
    sampler.set_weights([2.0] + [1.0] * (NUM_IMAGES - 1))
    mining.on_fit_start(trainer, module)
    assert "weights of an earlier training" in caplog.text


def test_a_sampler_that_leaves_sharding_to_the_host_is_refused(scenes) -> None:
    sampler = HardMiningSampler(NUM_IMAGES, sharded_by="host")
    with pytest.raises(InputError, match="each process would draw all images"):
        callback(scenes, sampler).on_fit_start(Trainer(sampler), None)


def test_one_of_several_metrics_must_be_named() -> None:
    module = torch.nn.ModuleDict(
        {
            name: MeanAveragePrecision(backend="faster_coco_eval")
            for name in ("train_map", "val_map")
        }
    )
    with pytest.raises(InputError, match="several MeanAveragePrecision: train_map, val_map"):
        find_mean_average_precision(module, None)
    assert find_mean_average_precision(module, "val_map") is module["val_map"]
    assert find_mean_average_precision(torch.nn.Linear(1, 1), None) is None
