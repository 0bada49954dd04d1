"""``HardMining``: a callback of the Hugging Face Trainer that mines after each evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any

import numpy.typing as npt
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from hardmine import HardMiningSampler
from hardmine.errors import InputError
from hardmine.hosts import (
    HostMining,
    MiningOptions,
    PartnerTable,
    ValidationResult,
    find_sampler,
    load_state,
    require_order,
    save_state,
    scalars,
    state_after_epoch,
)
from hardmine.metrics import read_scores
from hardmine.records import ImageSet
from hardmine_transformers.predictions import EvaluatedBoxes, boxes_of_evaluation

_FILE = "hardmine.pt"
_ADVICE = (
    "a get_train_dataloader of your own must take the sampler of self._get_train_sampler(), which "
    "HardMining.attach sets"
)


class HardMining(TrainerCallback):
    """Mines after each evaluation and draws the training images by weight.

    AP by class comes from ``compute_metrics`` as in transformers' own example of object detection:
    ``map_<class>`` beside ``map``; any form that ``hardmine.metrics.read_scores`` reads will do.
    With ``val_images`` the predicted boxes show where objects are missed and which classes are
    confused; the image processor that the Trainer has as ``processing_class`` reads them from the
    model's outputs.

    The state lies in each checkpoint folder. Training resumes with the very next images, in the
    middle of an epoch too, as the Trainer skips what was trained.

    Args:
        index: Folder of the index; built when training begins if it is not there.
        images: The training images with their labels.
        dataset_ids: Image ids in the order of ``train_dataset``; that of ``images`` if None.
        val_images: The evaluated images with their labels, in the order of ``eval_dataset``, unless
            each label has its ``image_id``. With them APs of few objects count less, and predicted
            boxes are used.
        detections: Called with each ``EvalPrediction``; returns what was predicted on
            ``val_images``, in COCO's results format. For models whose outputs the image processor
            cannot read.
        metric: Prefix of the keys with AP by class, if there are several.
        folder: For rounds; ``hardmine`` in the output folder if None.
        partners: Table that the data set draws partners from, for Mosaic and the like.
        **options: More of ``hardmine.hosts.MiningOptions``: encoder, interval, miner, strict ...
    """

    def __init__(
        self,
        index: str | Path,
        *,
        images: ImageSet,
        dataset_ids: npt.ArrayLike | None = None,
        val_images: ImageSet | None = None,
        detections: Callable[[Any], Any] | None = None,
        metric: str | None = None,
        folder: str | Path | None = None,
        partners: PartnerTable | None = None,
        **options: Any,
    ) -> None:
        self._options = MiningOptions(index=index, **options)
        if detections is not None and val_images is None:
            raise InputError("detections= needs val_images=, the images that they belong to")
        self._images = images
        self._dataset_ids = dataset_ids
        self._val_images = val_images
        self._detections = detections
        self._metric = metric
        self._folder = folder
        self._partners = partners
        self._mining: HostMining | None = None
        self._boxes: EvaluatedBoxes | None = None
        self._checkpoint: str | None = None
        self._steps_per_epoch = 0
        self._saved_at = -1

    def attach(self, trainer: Any) -> Any:
        """Let a trainer draw by weight and mine after each evaluation; returns the trainer."""
        args = trainer.args
        if not isinstance(trainer.train_dataset, Sized):
            raise InputError(
                "the trainer needs a train_dataset with a length to draw from, got "
                f"{type(trainer.train_dataset).__name__}"
            )
        if any(isinstance(each, HardMining) for each in trainer.callback_handler.callbacks):
            raise InputError("a HardMining is attached to this trainer already, and two would mine")
        strategy = getattr(args, "train_sampling_strategy", "random")
        if getattr(args, "group_by_length", False):  # of transformers 4
            strategy = "group_by_length"
        if strategy != "random":
            raise InputError(
                f"train_sampling_strategy={strategy!r} chooses the order of the images, so none "
                "can be drawn more often; leave it at 'random'"
            )
        if isinstance(trainer.eval_dataset, dict) and self._metric is None:
            first = next(iter(trainer.eval_dataset), "")
            raise InputError(
                f"the trainer evaluates several data sets ({', '.join(trainer.eval_dataset)}); say "
                f"which counts, as in HardMining(metric='eval_{first}')"
            )
        if self._dataset_ids is None:
            require_order(trainer.train_dataset, self._images)
        seed = args.seed if args.data_seed is None else args.data_seed
        # Accelerate shards what the sampler draws.
        self._sampler = HardMiningSampler(len(trainer.train_dataset), seed=seed, sharded_by="host")
        self._fresh = self._sampler.state_dict()
        self._trainer = trainer
        train = trainer.train

        def train_from(resume_from_checkpoint: Any = None, *more: Any, **options: Any) -> Any:
            if isinstance(resume_from_checkpoint, bool):
                self._checkpoint = (
                    get_last_checkpoint(args.output_dir)  # type: ignore[no-untyped-call]
                    if resume_from_checkpoint
                    else None
                )
            else:
                self._checkpoint = resume_from_checkpoint
            return train(resume_from_checkpoint, *more, **options)

        trainer.train = train_from
        trainer._get_train_sampler = lambda *dataset: self._sampler
        if self._val_images is not None and self._options.measure:
            self._boxes = boxes_of_evaluation(trainer, self._val_images, self._detections)
        trainer.add_callback(self)
        return trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open or build the index, and resume from a checkpoint."""
        loader = kwargs["train_dataloader"]
        if find_sampler(loader, advice=_ADVICE) is not self._sampler:
            raise InputError(f"the trainer draws with another HardMiningSampler; {_ADVICE}")
        self._steps_per_epoch = math.ceil(len(loader) / args.gradient_accumulation_steps)
        # A search of hyperparameters trains many times: each starts from equal weights.
        self._sampler.load_state_dict(self._fresh)
        self._mining = HostMining(
            self._options,
            self._sampler,
            images=self._images,
            dataset_ids=self._dataset_ids,
            val_images=self._val_images,
            measure=self._boxes is not None,
            folder=Path(self._folder or Path(args.output_dir) / "hardmine"),
            device=str(args.device),
            partners=self._partners,
        )
        self._saved_at = -1
        self._begun_at = state.global_step
        if self._checkpoint is not None:
            self._mining.load_state(load_state(Path(self._checkpoint) / _FILE))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the epoch, which Accelerate does not pass on to every sampler."""
        self._sampler.set_epoch(state.global_step // self._steps_per_epoch)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Mine: read AP by class, step the miner, log the round."""
        # With eval_on_start a resumed run evaluates what the run before it has mined.
        if self._mining is None or state.global_step == self._begun_at:
            return
        if not self._is_mined(metrics):
            return
        done = self._mining.after_validation(
            lambda: self._read(metrics),
            epochs_done=state.global_step / self._steps_per_epoch,
            epochs=state.max_steps / self._steps_per_epoch,
        )
        if done is not None:
            self._trainer.log(scalars(done))
        if self._saved_at == state.global_step:
            # Saved by steps, just before the epoch was evaluated: the round belongs to it.
            self.on_save(args, state, control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the state in the checkpoint's folder."""
        if self._mining is None:
            return
        epoch, steps = divmod(state.global_step, self._steps_per_epoch)
        if steps == 0:
            sampler = state_after_epoch(self._sampler, epoch - 1)
        else:
            # The Trainer draws the epoch from its start again, and skips what was trained.
            sampler = self._sampler.state_dict(used=0)
        self._saved_at = state.global_step
        # Each trial of a search of hyperparameters has a folder of its own.
        run = self._trainer._get_output_dir(getattr(self._trainer, "_trial", None))
        folder = Path(run) / f"checkpoint-{state.global_step}"
        save_state(folder / _FILE, self._mining.state([sampler]))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluations after training are not mined."""
        self._mining = None

    def _is_mined(self, metrics: Mapping[str, Any]) -> bool:
        """Whether an evaluation is that of the trainer, not one of the training images or a test.

        Its prefix, which the Trainer gives to all keys, tells.
        """
        timed = [key.removesuffix("_runtime") for key in metrics if key.endswith("_runtime")]
        prefix = timed[0] if len(timed) == 1 else "eval"
        if prefix == "eval" or f"{self._metric or ''}_".startswith(f"{prefix}_"):
            return True
        assert self._mining is not None
        self._mining.warn(
            f"evaluations with metric_key_prefix={prefix!r} are not mined; to mine by them, give "
            f"HardMining(metric={prefix!r})"
        )
        return False

    def _read(self, metrics: Any) -> ValidationResult:
        names = (self._val_images or self._images).class_names
        scores = read_scores(metrics, names, prefix=self._metric)
        if self._boxes is None:
            return ValidationResult(scores)
        return ValidationResult.measured(scores, self._boxes.take)
