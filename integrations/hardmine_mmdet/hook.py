"""``HardMiningHook``: says when to mine, where to read the metrics and where the weights go."""

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
from hardmine import NeedRules, ValidationSet, defaults
from hardmine.config import miner_arguments
from hardmine.errors import InputError
from hardmine.index.base import Index
from hardmine.records import ClassScores, ImageSet
from hardmine_mmdet.batches import TrainedBatches
from hardmine_mmdet.host import find_sampler, is_iteration_based, note_wrappers, restart
from hardmine_mmdet.labels import DatasetImages, read_dataset
from hardmine_mmdet.log import BuildProgress, log_round, tell_error, warn
from hardmine_mmdet.partners import PartnerTable, install_partners
from hardmine_mmdet.state import StateFolder
from hardmine_mmdet.validation import ValidationReader

KEY = "hardmine"


@HOOKS.register_module()
class HardMiningHook(Hook):  # type: ignore[misc]
    """Mines after every validation; goes with ``HardMiningSampler``.

    Before training it opens the index of the training images, or builds it, all ranks together.
    After each validation the weak classes become queries and the images that answer are drawn
    more often. What it carries is saved with the checkpoints and, since mmengine saves before it
    validates, once more after each round.

    Args:
        encoder: What ``hardmine.load_encoder`` takes: a name, a dict of its arguments, or an
            encoder of one's own where the hook is made in Python.
        index: Folder of the index; ``hardmine/index.hmx`` in the work folder if None.
        clusters: How the index is clustered, if it has to be built.
        device: Where images are embedded; the training device if None.
        batch_size: Images embedded at once.
        workers: Threads that decode images for the index.
        metric: Prefix of the metric to mine by, where there are several, such as ``"coco"``.
        iou_type: ``"bbox"`` or ``"segm"``: CocoMetric writes both under one name, so the one that
            is not written last is judged from the predictions.
        interval: Mine after every this many validations.
        begin: Do not mine before this many validations.
        partners: Whether the partners of Mosaic and MixUp are drawn by weight too.
        measure: Whether the boxes predicted in validation are looked at: which classes are taken
            for which and, where the miner has ``contexts``, which class is weak under which.
        val_index: Folder of the index of the validation images, which is built where contexts are
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
        clusters: str = defaults.CLUSTERS,
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
            raise InputError(f"interval must be at least 1, got {interval}")
        self._encoder = dict(encoder) if isinstance(encoder, Mapping) else {"name": encoder}
        self._index = index
        self._build: dict[str, Any] = {
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
        self._val_index = val_index
        self._options = miner_arguments(miner or {})
        self._strict = strict
        # Set up when training begins: the same config also serves to validate and to test.
        self._validation: ValidationReader | None = None
        self._validations = 0
        self._saved: Mapping[str, Any] | None = None
        self._batches: TrainedBatches | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Remember what a checkpoint to resume from holds; weights alone say nothing."""
        if runner._resume:
            self._saved = checkpoint.get(KEY)

    def before_train(self, runner: Runner) -> None:
        """Find the sampler, open or build the index, and go on where a checkpoint stopped."""
        self._sampler = find_sampler(runner.train_loop)
        self._folder = Path(runner.work_dir) / "hardmine"
        self._states = StateFolder(self._folder / "states")
        if runner.val_loop is None:
            warn(
                runner,
                "this run has no validation, so there is nothing to mine by, and the images are "
                "drawn alike",
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
        for note in note_wrappers(dataset, self._sampler):
            warn(runner, note)
        labels = read_dataset(dataset)
        self._table = self._share_partners(runner, dataset)
        self._miner = self._make_miner(runner, labels)
        self._restore(runner)
        if is_iteration_based(runner.train_loop):
            # Its loader started in its constructor, before weights and partners were known.
            self._batches = TrainedBatches(
                runner.train_loop.dataloader.batch_sampler, self._sampler
            )
            restart(runner.train_loop, skip=runner.iter)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Count the batches that training takes; the loader has drawn more."""
        if self._batches is not None:
            self._batches.take()

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin to collect predictions, where they are needed."""
        if self._validation is not None:
            self._validation.begin()

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Collect predictions, where they are needed."""
        if self._validation is not None:
            self._validation.collect(outputs or ())

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Mine: read the class values, step, log, and keep what was learnt."""
        if self._validation is None:
            return
        self._validations += 1
        if self._is_due():
            self._mine(runner, metrics or {})
        # All ranks are here, as they are not where a checkpoint is saved.
        state = self._state(all_gather_object(self._sampler_state()))
        try:
            self._states.save(runner.iter, state)
        except (OSError, RuntimeError) as error:  # torch's own errors of writing are the latter
            if self._strict:
                raise
            tell_error(
                runner,
                "the state after this validation is not saved, so a run resumed here goes on with "
                f"the state before it: {error}",
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save with the checkpoint."""
        if self._validation is not None:
            checkpoint[KEY] = self._state([self._sampler_state()])

    def _make_miner(self, runner: Runner, labels: DatasetImages) -> hardmine.HardMiner:
        device = self._device or str(next(runner.model.parameters()).device)
        encoder = hardmine.load_encoder(**({"device": device} | self._encoder))

        def indexed(images: ImageSet, folder: str | Path) -> Index:
            progress = BuildProgress(runner.logger)
            return hardmine.build_index(images, encoder, folder, progress=progress, **self._build)

        index = indexed(labels.images, self._index or self._folder / "index.hmx")
        assert self._validation is not None
        validation = None
        if self._measure:
            val_images, val_index = self._validation.images, None
            if self._options.get("contexts"):
                val_index = indexed(val_images, self._val_index or self._folder / "val-index.hmx")
            validation = ValidationSet(val_images, val_index)
        options = {"rounds": self._folder / "rounds.jsonl"} | self._options
        rules = options.get("need") or NeedRules()
        if rules.num_instances is None:
            counts = self._validation.num_instances(rules.class_names or labels.images.class_names)
            options["need"] = replace(rules, num_instances=tuple(counts.tolist()))
        return hardmine.HardMiner(
            index,
            self._sampler,
            encoder=encoder,
            images=labels.images,
            dataset_ids=labels.images.ids[labels.image_rows],
            validation=validation,
            strict=self._strict,
            **options,
        )

    def _share_partners(self, runner: Runner, dataset: Any) -> PartnerTable | None:
        if not self._partners:
            return None
        table = install_partners(dataset, seed=self._sampler.seed)
        if table is not None and len(table.rows) != self._sampler.num_images:
            raise InputError(
                "MultiImageMixDataset stands inside another wrapper: its partners cannot be "
                "drawn by weight; make it the outermost, or set partners=False"
            )
        return table

    def _read(self, runner: Runner, metrics: Mapping[str, Any]) -> ClassScores | None:
        """What validation says of each class; None, with a message, where it says nothing."""
        assert self._validation is not None
        try:
            scores = self._validation.read(metrics)
        except Exception as error:  # training must go on whatever mining runs into
            if self._strict:
                raise
            tell_error(
                runner, f"this validation cannot be mined by; the draws stay as they are: {error}"
            )
            return None
        if scores is None:
            reason = "detected nothing"
        elif np.isnan(scores.ap).all():
            reason = "gave no class a value, only NaN or -1: do its labels hold these classes?"
        else:
            return scores
        warn(
            runner,
            f"no class could be judged, and the images are drawn as before: validation {reason}",
        )
        return None

    def _is_due(self) -> bool:
        """Whether to mine by the validation that was counted last."""
        counted = self._validations - self._begin - 1
        return counted >= 0 and counted % self._interval == 0

    def _mine(self, runner: Runner, metrics: Mapping[str, Any]) -> None:
        scores = self._read(runner, metrics)
        if scores is None:
            return
        assert self._validation is not None
        if self._validation.note:
            warn(runner, f"mining does without the predicted boxes: {self._validation.note}")
        done = self._miner.step(scores, val_detections=self._validation.detections)
        if done.error:
            tell_error(
                runner, f"round {done.number} failed; the draws stay as they are: {done.error}"
            )
            return
        self._use(done.weights, done.number)
        log_round(runner, done)

    def _use(self, weights: Any, number: int) -> None:
        if self._table is not None:
            self._table.set_weights(weights, round_number=number)

    def _sampler_state(self) -> dict[str, Any] | None:
        """What this rank draws next; None in training by epochs, which resumes at their ends."""
        return None if self._batches is None else self._batches.sampler_state()

    def _state(self, samplers: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
        """Everything that resuming needs, given the samplers' states of all ranks or the first."""
        return {
            "miner": self._miner.state_dict(),
            "validations": self._validations,
            "samplers": list(samplers),
        }

    def _restore(self, runner: Runner) -> None:
        """Go on where a run stopped, if this one goes on from it."""
        if not runner._resume or runner.iter == 0:
            return
        # Later than the checkpoint's own: it was saved after the validation that followed.
        state = self._states.load(runner.iter) or self._saved
        if state is None:
            warn(
                runner,
                "the checkpoint that this run goes on from was saved without hardmine; images are "
                "drawn alike until the next validation",
            )
            return
        self._miner.load_state_dict(state["miner"])
        self._validations = int(state["validations"])
        weights = state["miner"]["weights"]
        if weights is not None:
            self._use(weights, int(state["miner"]["number"]))
        rank, world_size = get_dist_info()
        samplers = state["samplers"]
        if samplers[0] is not None:
            # Without a state of its own a rank leaves out what waited for a batch.
            own = samplers[rank] if len(samplers) == world_size else samplers[0] | {"waiting": []}
            self._sampler.load_state_dict(own)
