"""``HardMiningHook``: when to mine, where the metrics come from, and where the weights go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

import hardmine
from hardmine import NeedRules, ValidationSet
from hardmine.config import IndexConfig, miner_arguments
from hardmine.errors import InputError
from hardmine.index import Index
from hardmine.records import ClassScores, ImageSet
from hardmine_mmdet.batches import TrainedBatches
from hardmine_mmdet.host import balances_classes, find_sampler, is_iteration_based, restart_loader
from hardmine_mmdet.labels import DatasetImages, read_dataset
from hardmine_mmdet.log import BuildProgress, log_error, log_round, log_warning
from hardmine_mmdet.partners import PartnerTable, install_partners
from hardmine_mmdet.state import StateFolder
from hardmine_mmdet.validation import ValidationReader

CHECKPOINT_KEY = "hardmine"


@HOOKS.register_module()
class HardMiningHook(Hook):  # type: ignore[misc]
    """Mines after each validation and gives the weights to the ``HardMiningSampler``.

    Before training, the hook opens the index of the training images or builds it on all ranks.
    After each validation it mines: weak classes become queries, and images that match are drawn
    more often from the next epoch on. Its state is saved with every checkpoint and, since mmengine
    saves before it validates, once more after each validation.

    Args:
        encoder: A name for ``hardmine.load_encoder``, a dict of its arguments, or an encoder
            object if the hook is made in Python.
        index: Folder of the index; ``hardmine/index.hmx`` in the work folder if None.
        clusters: How to cluster the images if the index has to be built.
        device: Device that embeds images; that of the model if None.
        batch_size: Images embedded at once.
        workers: Threads that decode images for the index; chosen by the number of cores if None.
        metric: Prefix of the metric to read, such as ``"coco"``; the first that reports AP by class
            if None.
        iou_type: ``"bbox"`` or ``"segm"``. CocoMetric reports both under the same names, so only
            the last of its metrics can be read; the other is computed from the predictions.
        interval: Validations from one round to the next.
        begin: Validations before the first round that are not mined.
        partners: Whether to draw the partners of Mosaic and MixUp by weight too.
        measure: Whether to use the boxes predicted in validation. They show which classes are
            confused and, if the miner has ``contexts``, which class is weak in which context.
        val_index: Folder of the index of the validation images, which is built if contexts are
            measured; ``hardmine/val-index.hmx`` in the work folder if None.
        miner: More arguments of ``hardmine.HardMiner``: contexts, and need, targets and weights,
            which may be dicts, e.g. ``dict(weights=dict(budget=0.4))``.
        strict: Whether a round that fails ends the training.
    """

    priority = "NORMAL"

    def __init__(
        self,
        encoder: Any = "RN50x64/openai",
        *,
        index: str | None = None,
        clusters: str = IndexConfig.clusters,
        device: str | None = None,
        batch_size: int = 32,
        workers: int | None = None,
        metric: str | None = None,
        iou_type: str = "bbox",
        interval: int = 1,
        begin: int = 0,
        partners: bool = True,
        measure: bool = True,
        val_index: str | None = None,
        miner: Mapping[str, Any] | None = None,
        strict: bool = False,
    ) -> None:
        if iou_type not in ("bbox", "segm"):
            raise InputError(f'iou_type must be "bbox" or "segm", got {iou_type!r}')
        if interval < 1:
            raise InputError(f"interval must be at least 1 validation, got {interval}")
        self._encoder = dict(encoder) if isinstance(encoder, Mapping) else {"name": encoder}
        self._index_folder = index
        self._build_options: dict[str, Any] = {
            "clusters": clusters,
            "batch_size": batch_size,
            "workers": workers,
        }
        self._device = device
        self._metric = metric
        self._iou_type = iou_type
        self._interval = interval
        self._begin = begin
        self._partners = partners
        self._measure = measure
        self._val_index_folder = val_index
        self._miner_options = miner_arguments(miner or {})
        self._strict = strict
        # Set when training begins: the same config also serves to validate and to test.
        self._validation: ValidationReader | None = None
        self._num_validations = 0
        self._checkpoint_state: Mapping[str, Any] | None = None
        self._batches: TrainedBatches | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the state in a checkpoint to resume from; not one loaded for its model weights."""
        if runner._resume:
            self._checkpoint_state = checkpoint.get(CHECKPOINT_KEY)

    def before_train(self, runner: Runner) -> None:
        """Find the sampler, open or build the index, and resume from a checkpoint."""
        self._sampler = find_sampler(runner.train_loop)
        self._work_folder = Path(runner.work_dir) / "hardmine"
        self._states = StateFolder(self._work_folder / "states")
        if runner.val_loop is None:
            log_warning(
                runner,
                "this run has no validation, so nothing is mined and all images are drawn equally "
                "often; set val_dataloader, val_evaluator and val_cfg to mine",
            )
            return
        self._validation = ValidationReader(
            runner.val_loop.evaluator,
            runner.val_loop.dataloader.dataset,
            metric=self._metric,
            iou_type=self._iou_type,
            measure=self._measure,
        )
        dataset = runner.train_loop.dataloader.dataset
        if balances_classes(dataset):
            log_warning(
                runner,
                "ClassBalancedDataset already repeats images of rare classes, and mining raises "
                "them further; to leave this to mining, take the data set out of the wrapper",
            )
        self._partner_table = self._install_partners(dataset)
        self._miner = self._make_miner(runner, read_dataset(dataset))
        self._restore(runner)
        if is_iteration_based(runner.train_loop):
            # The loop started its loader before weights and partners were known.
            self._batches = TrainedBatches(
                runner.train_loop.dataloader.batch_sampler, self._sampler
            )
            restart_loader(runner.train_loop, skip=runner.iter)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Count the batches that training uses; the loader has drawn more."""
        if self._batches is not None:
            self._batches.count_batch()

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget the predictions of the last validation."""
        if self._validation is not None:
            self._validation.begin()

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Collect predictions, if they are needed."""
        if self._validation is not None:
            self._validation.collect(outputs or ())

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Mine: read AP by class, step the miner, log the round, save the state."""
        if self._validation is None:
            return
        self._num_validations += 1
        if self._is_due():
            self._mine(runner, metrics or {})
        # Gathered here, since all ranks get here but only rank 0 saves checkpoints.
        state = self._state(all_gather_object(self._sampler_state()))
        try:
            self._states.save(runner.iter, state)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError if it cannot write
            if self._strict:
                raise
            log_error(
                runner,
                "the state after this validation could not be saved; a run resumed from here will "
                f"use the state before it: {error}",
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save the state with the checkpoint."""
        if self._validation is not None:
            checkpoint[CHECKPOINT_KEY] = self._state([self._sampler_state()])

    def _make_miner(self, runner: Runner, train: DatasetImages) -> hardmine.HardMiner:
        device = self._device or str(next(runner.model.parameters()).device)
        encoder = hardmine.load_encoder(**({"device": device} | self._encoder))

        def index_of(images: ImageSet, folder: str | Path) -> Index:
            progress = BuildProgress(runner.logger)
            return hardmine.build_index(
                images, encoder, folder, progress=progress, **self._build_options
            )

        index = index_of(train.images, self._index_folder or self._work_folder / "index.hmx")
        assert self._validation is not None
        validation = None
        if self._measure:
            val_images, val_index = self._validation.images, None
            if self._miner_options.get("contexts"):
                val_index = index_of(
                    val_images, self._val_index_folder or self._work_folder / "val-index.hmx"
                )
            validation = ValidationSet(val_images, val_index)
        options: dict[str, Any] = {
            "rounds": self._work_folder / "rounds.jsonl",
            "strict": self._strict,
            **self._miner_options,
        }
        rules = options.get("need") or NeedRules()
        if rules.num_instances is None:
            counts = self._validation.num_instances(rules.class_names or train.images.class_names)
            options["need"] = replace(rules, num_instances=tuple(counts.tolist()))
        return hardmine.HardMiner(
            index,
            self._sampler,
            encoder=encoder,
            images=train.images,
            dataset_ids=train.images.ids[train.image_rows],
            validation=validation,
            **options,
        )

    def _install_partners(self, dataset: Any) -> PartnerTable | None:
        if not self._partners:
            return None
        table = install_partners(dataset, seed=self._sampler.seed)
        if table is not None and len(table.rows) != self._sampler.num_images:
            raise InputError(
                "MultiImageMixDataset is inside another wrapper, so its partners cannot be drawn "
                "by weight; make it the outermost wrapper, or set partners=False"
            )
        return table

    def _read(self, runner: Runner, metrics: Mapping[str, Any]) -> ClassScores | None:
        """AP by class; None, with a message in the log, if validation gives none."""
        assert self._validation is not None
        try:
            scores = self._validation.read(metrics)
        except Exception as error:  # training must go on whatever mining runs into
            if self._strict:
                raise
            log_error(
                runner, f"cannot mine by this validation; the weights stay as they are: {error}"
            )
            return None
        if scores is None:
            reason = "nothing was detected"
        elif np.isnan(scores.ap).all():
            reason = "all classes have AP NaN or -1; do the validation labels hold these classes?"
        else:
            return scores
        log_warning(
            runner,
            f"nothing to mine by in this validation; the weights stay as they are: {reason}",
        )
        return None

    def _is_due(self) -> bool:
        """Whether to mine after the validation that was counted last."""
        since_begin = self._num_validations - self._begin - 1
        return since_begin >= 0 and since_begin % self._interval == 0

    def _mine(self, runner: Runner, metrics: Mapping[str, Any]) -> None:
        scores = self._read(runner, metrics)
        if scores is None:
            return
        assert self._validation is not None
        if self._validation.detections_error:
            log_warning(
                runner,
                "mining without the predicted boxes, which cannot be read: "
                f"{self._validation.detections_error}",
            )
        done = self._miner.step(scores, val_detections=self._validation.detections)
        if done.failed:
            log_error(
                runner, f"round {done.number} failed; the weights stay as they are: {done.error}"
            )
            return
        self._set_partner_weights(done.weights, done.number)
        log_round(runner, done)

    def _set_partner_weights(self, weights: Any, number: int) -> None:
        if self._partner_table is not None:
            self._partner_table.set_weights(weights, round_number=number)

    def _sampler_state(self) -> dict[str, Any] | None:
        """State of this rank's sampler; None in training by epochs, which resumes at their ends."""
        return None if self._batches is None else self._batches.sampler_state()

    def _state(self, samplers: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
        """All state needed to resume.

        Args:
            samplers: The sampler's state on every rank, or on rank 0 alone.
        """
        return {
            "miner": self._miner.state_dict(),
            "validations": self._num_validations,
            "samplers": list(samplers),
        }

    def _restore(self, runner: Runner) -> None:
        """Resume from the saved state, if this run resumes."""
        if not runner._resume or runner.iter == 0:
            return
        # The file is newer: it was saved after the validation that follows the checkpoint.
        state = self._states.load(runner.iter) or self._checkpoint_state
        if state is None:
            log_warning(
                runner,
                "the checkpoint to resume from was saved without hardmine; all images are drawn "
                "equally often until the next validation",
            )
            return
        self._miner.load_state_dict(state["miner"])
        self._num_validations = int(state["validations"])
        weights = state["miner"]["weights"]
        if weights is not None:
            self._set_partner_weights(weights, int(state["miner"]["number"]))
        rank, world_size = get_dist_info()
        samplers = state["samplers"]
        if samplers[0] is not None:
            # A rank without a saved state of its own drops the rows that waited for a batch.
            own = samplers[rank] if len(samplers) == world_size else samplers[0] | {"waiting": []}
            self._sampler.load_state_dict(own)
