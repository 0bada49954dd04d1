"""``HardMining``: callbacks of an Ultralytics model that mine after each validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ultralytics
from ultralytics.utils.checks import check_version

from hardmine import HardMiningSampler
from hardmine.distributed import rank_and_world_size
from hardmine.errors import InputError
from hardmine.hosts import (
    HostMining,
    MiningOptions,
    PartnerTable,
    StateFolder,
    ValidationResult,
    scalars,
    state_after_epoch,
)
from hardmine.metrics import read_scores
from hardmine.records import ClassScores
from hardmine_ultralytics.labels import read_dataset
from hardmine_ultralytics.partners import install_partners
from hardmine_ultralytics.predictions import ValidatedBoxes

_TASKS = ("detect", "segment", "pose", "obb")
_OLDEST = "8.4.140"  # older ones start the processes of several devices without the callbacks


class HardMining:
    """Mines after each validation; images, and partners of Mosaic and MixUp, are drawn by weight.

    Images and labels are those of the data yaml. The boxes that each validation predicts show where
    objects are missed and which classes are confused. AP by class is that of masks where the model
    segments, of keypoints where it finds poses, and else of boxes. Rounds and states lie in
    ``hardmine`` in the run's folder, so that a run that is resumed draws the very same images.
    With several devices Ultralytics starts a process for each and sends it this object.

    Args:
        index: Folder of the index; built when training begins if it is not there.
        partners: Whether to draw partners by weight too.
        **options: More of ``hardmine.hosts.MiningOptions``: encoder, interval, miner, strict ...
    """

    def __init__(
        self, index: str | Path | None = None, *, partners: bool = True, **options: Any
    ) -> None:
        self._options = MiningOptions(index=index, **options)
        self._partners = partners

    def attach(self, model: Any) -> Any:
        """Add the callbacks to a model, before ``model.train``; returns the model.

        Raises:
            InputError: If Ultralytics is too old to take the callbacks to several devices.
        """
        installed = ultralytics.__version__
        if not check_version(installed, f">={_OLDEST}"):
            raise InputError(
                f"ultralytics {installed} trains on several devices without callbacks, so nothing "
                f"would be mined; pip install 'ultralytics>={_OLDEST}'"
            )
        attached = [each for functions in model.callbacks.values() for each in functions]
        if any(isinstance(getattr(each, "__self__", None), HardMining) for each in attached):
            raise InputError("a HardMining is attached to this model already, and two would mine")
        for event in ("on_pretrain_routine_end", "on_train_epoch_start", "on_fit_epoch_end"):
            model.add_callback(event, getattr(self, event))
        return model

    def on_pretrain_routine_end(self, trainer: Any) -> None:
        """Open or build the index, put the sampler in the loader, and resume."""
        if trainer.args.task not in _TASKS:
            raise InputError(
                f"task={trainer.args.task!r} has no AP by class; hardmine mines in the tasks "
                f"{', '.join(_TASKS)}"
            )
        if trainer.args.rect:
            raise InputError(
                "rect=True fixes the order of the images, so none can be drawn more often; train "
                "with rect=False"
            )
        if not trainer.args.val:
            raise InputError("val=False leaves nothing to mine by; train with val=True")
        names, root = trainer.data["names"], trainer.data["path"]
        dataset = trainer.train_loader.dataset
        images, positions = read_dataset(dataset, names, root)
        val_set = trainer.test_loader.dataset
        val_images, val_rows = read_dataset(val_set, names, root)
        self._boxes = None
        if self._options.measure:
            files = [label["im_file"] for label in val_set.labels]
            ids = val_images.ids[val_rows].tolist()
            self._boxes = ValidatedBoxes(
                trainer.validator, val_images, dict(zip(files, ids, strict=True))
            )
        self._sampler = HardMiningSampler(dataset, seed=trainer.args.seed)
        self._table = None
        if self._partners:
            self._table = PartnerTable(len(dataset), seed=trainer.args.seed)
        folder = Path(trainer.save_dir) / "hardmine"
        self._states = StateFolder(folder / "states", unit="epoch")
        self._mining = HostMining(
            self._options,
            self._sampler,
            images=images,
            dataset_ids=images.ids[positions],
            val_images=val_images,
            measure=True,
            folder=folder,
            device=str(trainer.device),
            partners=self._table,
        )
        if trainer.args.single_cls:
            self._mining.warn(
                f"single_cls=True leaves one class called {names[0]!r}, and no text finds that; "
                "draws follow the look of what is missed"
            )
        if trainer.start_epoch > 0:
            self._mining.load_state(self._states.load(trainer.start_epoch - 1))
        else:
            self._states.clear()
        self._install(trainer.train_loader)

    def on_train_epoch_start(self, trainer: Any) -> None:
        """Set the epoch; the loader is a new one after a retry with smaller batches."""
        if trainer.train_loader.sampler is not self._sampler:
            self._install(trainer.train_loader)
        self._epoch = trainer.epoch
        self._sampler.set_epoch(trainer.epoch)

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Mine: read AP by class, step the miner, log the round, save the state."""
        # Ultralytics calls this once more for the best model, as if after another epoch.
        if trainer.epoch != self._epoch:
            return
        # The loader has drawn ahead, into the next epoch.
        trainer.train_loader.reset()
        self._sampler.load_state_dict(state_after_epoch(self._sampler, trainer.epoch))
        done = self._mining.after_validation(
            lambda: self._read(trainer.validator),
            epochs_done=trainer.epoch + 1,
            epochs=trainer.epochs,
        )
        if done is not None and trainer.metrics is not None:  # rank 0 alone has metrics
            trainer.metrics = {**trainer.metrics, **scalars(done)}
        state = self._mining.state([self._sampler.state_dict()])
        self._mining.save_state(self._states, trainer.epoch, state)

    def _read(self, validator: Any) -> ValidationResult:
        measured = ValidationResult(None)
        if self._boxes is not None:
            measured = ValidationResult.measured(None, self._boxes.gather)
        if rank_and_world_size()[0] > 0:  # rank 0 alone has the metrics
            return measured
        return replace(measured, scores=read_own_scores(validator))

    def _install(self, loader: Any) -> None:
        """Let a loader draw with the sampler. It is infinite: its batch sampler is repeated."""
        loader.batch_sampler.sampler.sampler = self._sampler
        object.__setattr__(loader, "sampler", self._sampler)
        if self._table is not None:
            install_partners(loader.dataset, self._table)
        loader.reset()


def read_own_scores(validator: Any) -> ClassScores:
    """AP by class in the model's own task; Ultralytics' ``maps`` add that of boxes to it."""
    found = validator.metrics
    name = {"segment": "seg", "pose": "pose"}.get(validator.args.task, "box")
    return read_scores({"maps": getattr(found, name), "names": found.names})
