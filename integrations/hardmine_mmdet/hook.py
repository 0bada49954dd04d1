"""``HardMiningHook``: when to mine, where the metrics come from, and where the weights go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from hardmine.config import IndexConfig
from hardmine.errors import InputError
from hardmine.hosts import (
    HostMining,
    MiningOptions,
    PartnerTable,
    StateFolder,
    TrainedBatches,
    scalars,
    state_of_new_loader,
)
from hardmine_mmdet.host import (
    balances_classes,
    is_iteration_based,
    restart_loader,
    training_sampler,
)
from hardmine_mmdet.labels import read_dataset
from hardmine_mmdet.partners import install_partners
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
            confused, where objects are missed and, if the miner has ``contexts``, which class is
            weak in which context.
        val_index: Folder of the index of the validation images, which is built for that;
            ``hardmine/val-index.hmx`` in the work folder if None.
        miner: More arguments of ``hardmine.HardMiner``: contexts, and need, targets and weights,
            which may be dicts, e.g. ``dict(need=dict(patience=5))``.
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
        self._options = MiningOptions(
            encoder=encoder,
            index=index,
            clusters=clusters,
            device=device,
            batch_size=batch_size,
            workers=workers,
            val_index=val_index,
            measure=measure,
            interval=interval,
            begin=begin,
            miner=miner or {},
            strict=strict,
        )
        self._metric = metric
        self._iou_type = iou_type
        self._partners = partners
        # Set when training begins: the same config also serves to validate and to test.
        self._validation: ValidationReader | None = None
        self._training = False
        self._checkpoint_state: dict[str, Any] | None = None
        self._batches: TrainedBatches | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the state in a checkpoint to resume from; not one loaded for its model weights."""
        if runner._resume:
            self._checkpoint_state = checkpoint.get(CHECKPOINT_KEY)

    def before_train(self, runner: Runner) -> None:
        """Find the sampler, open or build the index, and resume from a checkpoint."""
        if sum(isinstance(hook, HardMiningHook) for hook in runner.hooks) > 1:
            raise InputError("custom_hooks has more than one HardMiningHook, and each would mine")
        self._training = True
        self._sampler = training_sampler(runner.train_loop)
        self._work_folder = Path(runner.work_dir) / "hardmine"
        self._states = StateFolder(self._work_folder / "states")
        if runner.val_loop is None:
            runner.logger.warning(
                "hardmine: this run has no validation, so nothing is mined and all images are "
                "drawn equally often; set val_dataloader, val_evaluator and val_cfg to mine",
            )
            return
        self._validation = ValidationReader(
            runner.val_loop.evaluator,
            runner.val_loop.dataloader.dataset,
            metric=self._metric,
            iou_type=self._iou_type,
            measure=self._options.measure,
        )
        dataset = runner.train_loop.dataloader.dataset
        if balances_classes(dataset):
            runner.logger.warning(
                "hardmine: ClassBalancedDataset already repeats images of rare classes, and mining "
                "raises them further; to leave this to mining, take the data set out of the "
                "wrapper",
            )
        train = read_dataset(dataset)
        self._mining = HostMining(
            self._options,
            self._sampler,
            images=train.images,
            dataset_ids=train.images.ids[train.image_rows],
            val_images=self._validation.images,
            measure=True,
            folder=self._work_folder,
            device=str(next(runner.model.parameters()).device),
            log=runner.logger,
            partners=self._install_partners(dataset),
        )
        if runner._resume and runner.iter > 0:
            # mmengine saves a checkpoint before the validation that follows it.
            self._mining.load_state(self._states.newest(runner.iter, self._checkpoint_state))
        if is_iteration_based(runner.train_loop):
            # The loop started its loader before weights and partners were known.
            self._restart_loader(runner.train_loop, skip=runner.iter)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Count the batches that training uses; the loader has drawn more."""
        if self._batches is not None:
            self._batches.count_batch()

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget the predictions of the last validation."""
        if self._validation is not None and self._training:
            self._validation.begin()

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Collect predictions, if they are needed."""
        if self._validation is not None and self._training:
            self._validation.collect(outputs or ())

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Mine: read AP by class, step the miner, log the round, save the state."""
        if self._validation is None or not self._training:
            return
        validation = self._validation
        iterations = len(runner.train_loop.dataloader)  # an epoch
        done = self._mining.after_validation(
            lambda: validation.read(metrics or {}),
            epochs_done=runner.iter / iterations,
            epochs=runner.max_iters / iterations,
        )
        own = self._sampler_state()
        if done is not None:
            runner.visualizer.add_scalars(scalars(done), step=runner.iter)
            if own is not None:
                own = state_of_new_loader(own)
                self._sampler.load_state_dict(own)
                self._restart_loader(runner.train_loop)
        # Gathered here, since all ranks get here but only rank 0 saves checkpoints.
        state = self._mining.state(all_gather_object(own))
        self._mining.save_state(self._states, runner.iter, state)

    def after_train(self, runner: Runner) -> None:
        """A validation after training, such as of the best checkpoint, is not mined."""
        self._training = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save the state with the checkpoint."""
        if self._validation is not None:
            checkpoint[CHECKPOINT_KEY] = self._mining.state([self._sampler_state()])

    def _restart_loader(self, loop: Any, *, skip: int = 0) -> None:
        self._batches = TrainedBatches(loop.dataloader.batch_sampler, self._sampler)
        restart_loader(loop, skip=skip)

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

    def _sampler_state(self) -> dict[str, Any] | None:
        """State of this rank's sampler; None in training by epochs, which resumes at their ends."""
        return None if self._batches is None else self._batches.sampler_state()
