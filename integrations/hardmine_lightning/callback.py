"""``HardMining``: a Lightning callback that mines after each validation."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy.typing as npt

from hardmine import HardMiningSampler
from hardmine.errors import InputError
from hardmine.hosts import (
    HostMining,
    MiningOptions,
    PartnerTable,
    StateFolder,
    ValidationResult,
    find_sampler,
    require_order,
    scalars,
    state_after_epoch,
)
from hardmine.metrics import read_scores
from hardmine.records import ImageSet
from hardmine_lightning.metrics import find_mean_average_precision
from hardmine_lightning.predictions import KeptBoxes

if find_spec("lightning") is not None:
    from lightning.pytorch import Callback
else:
    from pytorch_lightning import Callback  # type: ignore[assignment]

_ADVICE = (
    "give the sampler of HardMining to the one training DataLoader, also where that is made anew, "
    "and use_distributed_sampler=False to the Trainer"
)


class HardMining(Callback):
    """Mines after each validation and gives the weights to the sampler.

    Works in trainers of ``lightning.pytorch`` and of ``pytorch_lightning``. AP by class comes from
    torchmetrics' ``MeanAveragePrecision`` on the module, else from what the module logged. The
    predicted boxes that this metric keeps show, with ``val_images``, where objects are missed and
    which classes are confused.

    The state lies in every checkpoint, and after each validation in a file beside the rounds, for
    checkpoints written just before it. Training resumes with the very next images, in the middle
    of an epoch too, if batches have a fixed size.

    Args:
        index: Folder of the index; built when training begins if it is not there.
        sampler: The one in the training ``DataLoader``. It gives each process its share.
        images: The training images with their labels.
        dataset_ids: Image ids in the order of the data set; that of ``images`` if None.
        val_images: The validation images with their labels, in the order of the validation data
            set, unless each target has its ``image_id``. With them APs of few objects count less,
            and predicted boxes are used.
        detections: Called after each validation; returns what was predicted on ``val_images``, in
            COCO's results format. For modules without the metric.
        metric: Attribute of the module that holds the metric; or, if the module logs AP by class
            itself, the prefix of these keys. Found if None.
        first_label: Label of the first class in torchmetrics: 0, or 1 as in torchvision. None finds
            out, and refuses if the labels leave both possible.
        folder: For rounds; ``hardmine`` in the trainer's root folder if None.
        partners: Table that the data set draws partners from, for Mosaic and the like.
        **options: More of ``hardmine.hosts.MiningOptions``: encoder, interval, miner, strict ...
    """

    def __init__(
        self,
        index: str | Path,
        *,
        sampler: HardMiningSampler,
        images: ImageSet,
        dataset_ids: npt.ArrayLike | None = None,
        val_images: ImageSet | None = None,
        detections: Callable[[], Any] | None = None,
        metric: str | None = None,
        first_label: int | None = None,
        folder: str | Path | None = None,
        partners: PartnerTable | None = None,
        **options: Any,
    ) -> None:
        self._options = MiningOptions(index=index, **options)
        if detections is not None and val_images is None:
            raise InputError("detections= needs val_images=, the images that they belong to")
        self._sampler = sampler
        self._images = images
        self._dataset_ids = dataset_ids
        self._val_images = val_images
        self._detections = detections if self._options.measure else None
        self._metric = metric
        self._first_label = first_label
        self._folder = folder
        self._partners = partners
        self._mining: HostMining | None = None
        self._loaded: dict[str, Any] | None = None
        self._computed: Any = None
        self._boxes: KeptBoxes | None = None
        self._batches = self._trained = self._epoch = 0
        self._share_of_epoch = 0.0
        self._epoch_over = False

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Open or build the index, and resume from a checkpoint.

        Lightning starts the loader's workers right after this.
        """
        if trainer.world_size > 1 and self._sampler.sharded_by == "host":
            raise InputError(
                'the sampler has sharded_by="host", so that each process would draw all images; '
                "make it without that argument"
            )
        found = find_mean_average_precision(pl_module, self._metric)
        if found is not None:
            found.class_metrics = True
            if self._val_images is not None:
                _require_same_numbers(self._images, self._val_images)
            if self._val_images is not None and self._options.measure and not self._detections:
                self._boxes = KeptBoxes(self._val_images, first_label=self._first_label)
        folder = Path(self._folder or Path(trainer.default_root_dir) / "hardmine")
        self._states = StateFolder(folder / "states", unit="batch")
        self._mining = HostMining(
            self._options,
            self._sampler,
            images=self._images,
            dataset_ids=self._dataset_ids,
            val_images=self._val_images,
            measure=self._boxes is not None or self._detections is not None,
            folder=folder,
            device=str(pl_module.device),
            partners=self._partners,
        )
        if trainer.ckpt_path is not None:
            state = self._loaded
            if state is not None:
                self._trained = state["batches"]
                state = self._states.newest(self._trained, state)
            self._mining.load_state(state)
        elif self._sampler.weights.min() < self._sampler.weights.max():
            self._mining.warn(
                "the sampler has weights of an earlier training, or your own, and training begins "
                "by drawing with them; make a new sampler to begin with equal draws"
            )
        # A run that is resumed within an epoch begins none: batches of an earlier run do not count.
        self._batches = 0
        self._epoch_over = False
        self._epoch = self._sampler.epoch

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Check that the loader draws with the sampler, from the images."""
        self._check_sampler(trainer)
        loader = trainer.train_dataloader
        if self._dataset_ids is None:
            require_order(loader.dataset, self._images)
        self._batch_size = getattr(loader.batch_sampler, "batch_size", None)
        if self._mining is not None and trainer.num_training_batches < len(loader):
            # limit_train_batches, overfit_batches or fast_dev_run end each epoch early.
            self._mining.miner.schedule.epoch_share = trainer.num_training_batches / len(loader)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Count batches from here; the loader may be a new one."""
        self._check_sampler(trainer)
        self._epoch = trainer.current_epoch
        self._batches = 0
        self._epoch_over = False

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batches that training used; the loader has drawn more."""
        self._batches += 1
        self._trained += 1
        self._share_of_epoch = (batch_idx + 1) / trainer.num_training_batches
        self._epoch_over = batch_idx + 1 >= trainer.num_training_batches

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the boxes of the last validation."""
        if self._boxes is not None:
            self._boxes.begin()

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note the ids of the images, if the targets have them."""
        if self._boxes is not None:
            self._boxes.note(batch)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Compute and read the metric before the module resets it; its value is cached."""
        if self._mining_of(trainer) is None:
            return
        found = find_mean_average_precision(pl_module, self._metric)
        self._computed = None if found is None else found.compute()
        if found is not None and self._boxes is not None:
            self._boxes.read(found, trainer.val_dataloaders)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Mine: read AP by class, step the miner, log the round."""
        mining = self._mining_of(trainer)
        if mining is None:
            return
        epochs_done = trainer.current_epoch + self._share_of_epoch
        done = mining.after_validation(
            lambda: self._read(trainer),
            epochs_done=epochs_done,
            epochs=_num_epochs(trainer, pl_module, epochs_done),
        )
        if done is not None:
            for logger in trainer.loggers:
                logger.log_metrics(scalars(done), step=trainer.global_step)
        mining.save_state(self._states, self._trained, self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint; Lightning calls this."""
        if self._mining is None:
            return {}
        if self._epoch_over:
            sampler = state_after_epoch(self._sampler, self._epoch)
        else:
            size = self._batch_size
            sampler = self._sampler.state_dict(used=None if size is None else self._batches * size)
        return self._mining.state([sampler]) | {"batches": self._trained}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training begins; Lightning calls this."""
        self._loaded = state_dict or None

    def _check_sampler(self, trainer: Any) -> None:
        if find_sampler(trainer.train_dataloader, advice=_ADVICE) is not self._sampler:
            raise InputError(f"the training loader draws with another HardMiningSampler; {_ADVICE}")

    def _mining_of(self, trainer: Any) -> HostMining | None:
        """None in the sanity check, and in ``trainer.validate`` before or after training."""
        within_training = trainer.state.fn == "fit" and not trainer.sanity_checking
        return self._mining if within_training else None

    def _read(self, trainer: Any) -> ValidationResult:
        names = self._images.class_names
        if self._computed is not None:
            scores = read_scores(self._computed, names, first_label=self._first_label)
        else:
            logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
            scores = read_scores(logged, names, prefix=self._metric)
        if self._detections is not None:
            return ValidationResult.measured(scores, self._detections)
        if self._boxes is not None:
            return ValidationResult.measured(scores, self._boxes.gather)
        return ValidationResult(scores)


def _num_epochs(trainer: Any, module: Any, epochs_done: float) -> float:
    """Epochs of the whole training, which may end by epochs or by steps; 0 if not known."""
    lengths = [float(trainer.max_epochs)] if trainer.max_epochs > 0 else []
    if trainer.max_steps > 0 and module.automatic_optimization:
        batches = trainer.num_training_batches
        lengths.append(trainer.max_steps / math.ceil(batches / trainer.accumulate_grad_batches))
    elif trainer.max_steps > 0 and trainer.global_step > 0:
        # How many steps a batch takes is known to the module alone.
        lengths.append(trainer.max_steps * epochs_done / trainer.global_step)
    return min(lengths, default=0.0)


def _require_same_numbers(images: ImageSet, val_images: ImageSet) -> None:
    """Refuse validation images whose classes are numbered in another way."""
    for number, names in enumerate(zip(images.class_names, val_images.class_names, strict=False)):
        if names[0] != names[1]:
            raise InputError(
                f"torchmetrics tells classes by number, and class {number} is {names[0]!r} in "
                f"images and {names[1]!r} in val_images; make val_images with the class_names of "
                "images, in their order, or log AP by class name and give detections="
            )
