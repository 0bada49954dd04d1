"""``HardMining``: a hook that mines after each evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from torch.utils.data import DataLoader

from hardmine import HardMiningSampler
from hardmine.distributed import rank_and_world_size
from hardmine.errors import InputError
from hardmine.hosts import (
    HostMining,
    MiningOptions,
    PartnerTable,
    StateFolder,
    ValidationResult,
    predicted_boxes,
    scalars,
)
from hardmine.metrics import read_scores
from hardmine_detectron2.evaluator import BoxEvaluator
from hardmine_detectron2.labels import read_dicts
from hardmine_detectron2.sampler import LoaderSampler


class HardMining(HookBase):  # type: ignore[misc]
    """Mines after each evaluation; images are drawn by weight from the next pass on.

    Give ``sampler`` to ``build_detection_train_loader``, put ``evaluator`` beside the
    ``COCOEvaluator``, and register the hook after the trainer's own and before
    ``resume_or_load``. All ranks must do so.

    AP by class is what the evaluation of this iteration stored: ``bbox/AP-<class>``. The state lies
    in each checkpoint and, since detectron2 saves before it evaluates, in a file beside the rounds
    after each evaluation. Training resumes with the very next images; with aspect ratio grouping,
    which holds images back, a few are left out or drawn twice.

    Args:
        index: Folder of the index; built when training begins if it is not there.
        dataset: Dicts of the training images, in the order of the loader.
        val_dataset: Dicts of the images that ``evaluator`` evaluates.
        class_names: ``thing_classes`` of the metadata.
        metric: Prefix of the keys with AP by class, if there are several; boxes if None.
        seed: Of the shuffle.
        folder: For rounds; ``hardmine`` in the config's output folder if None.
        partners: Table that the data set draws partners from, for Mosaic and the like.
        **options: More of ``hardmine.hosts.MiningOptions``: encoder, interval, miner, strict ...

    Attributes:
        sampler: For the training loader.
        evaluator: For the evaluation of ``val_dataset``.
    """

    def __init__(
        self,
        index: str | Path,
        dataset: Sequence[Mapping[str, Any]],
        val_dataset: Sequence[Mapping[str, Any]],
        *,
        class_names: Sequence[str],
        metric: str | None = None,
        seed: int = 0,
        folder: str | Path | None = None,
        partners: PartnerTable | None = None,
        **options: Any,
    ) -> None:
        self._options = MiningOptions(index=index, **options)
        self._images, self._rows = read_dicts(dataset, class_names)
        self._val_images, _ = read_dicts(val_dataset, class_names)
        rank, world_size = rank_and_world_size()
        # Draws what training has used. The loader's own runs ahead, in worker processes too.
        self._used = HardMiningSampler(
            len(dataset), seed=seed, rank=rank, world_size=world_size, infinite=True
        )
        self.sampler = LoaderSampler(self._used)
        self.evaluator = BoxEvaluator()
        self._metric = metric
        self._folder = folder
        self._partners = partners
        self._mining: HostMining | None = None
        self._loaded: dict[str, Any] | None = None

    def before_train(self) -> None:
        """Open or build the index, resume, and start the loader by the present weights."""
        loop = self._loop()
        self._batch_size = _batch_size(loop.data_loader)
        folder = self._folder or Path(self.trainer.cfg.OUTPUT_DIR) / "hardmine"
        self._states = StateFolder(Path(folder) / "states")
        self._mining = HostMining(
            self._options,
            self._used,
            images=self._images,
            dataset_ids=self._images.ids[self._rows],
            val_images=self._val_images,
            measure=True,
            folder=Path(folder),
            device=str(next(loop.model.parameters()).device),
            partners=self._partners,
        )
        if self.trainer.start_iter > 0:
            # A checkpoint may be saved before the evaluation that follows it.
            self._mining.load_state(self._states.newest(self.trainer.start_iter, self._loaded))
        self._restart_loader()

    def before_step(self) -> None:
        """Count the images of the batch: a checkpoint of this step may come before our turn."""
        for _ in range(self._batch_size):
            next(self._draws)

    def after_step(self) -> None:
        """Mine, if an evaluation just ended."""
        assert self._mining is not None
        if not self.evaluator.finished:
            return
        self.evaluator.finished = False
        iterations = len(self._used) / self._batch_size  # an epoch
        done = self._mining.after_validation(
            self._read,
            epochs_done=(self.trainer.iter + 1) / iterations,
            epochs=self.trainer.max_iter / iterations,
        )
        if done is not None:
            self.trainer.storage.put_scalars(**scalars(done), smoothing_hint=False)
            self._restart_loader()
        state = self._mining.state([self._used.state_dict()])
        self._mining.save_state(self._states, self.trainer.iter + 1, state)

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint; detectron2 calls this."""
        if self._mining is None:
            return {}
        return self._mining.state([self._used.state_dict()])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the state until training begins; detectron2 calls this."""
        self._loaded = state

    def _loop(self) -> Any:
        """The trainer that has the loader; a ``DefaultTrainer`` holds one."""
        return getattr(self.trainer, "_trainer", self.trainer)

    def _restart_loader(self) -> None:
        """Let the loader draw from where training is, by the weights last set."""
        state = self._used.state_dict()
        self._used.load_state_dict(state)
        self._draws = iter(self._used)
        self.sampler.state = state
        self._loop()._data_loader_iter_obj = None

    def _read(self) -> ValidationResult:
        now = self.trainer.iter
        metrics = {
            name: value
            for name, (value, iteration) in self.trainer.storage.latest().items()
            if iteration == now and "AP-" in name
        }
        scores = None
        if metrics:
            scores = read_scores(metrics, self._val_images.class_names, prefix=self._metric)
        if not self._options.measure:
            return ValidationResult(scores)
        return ValidationResult.measured(
            scores, lambda: predicted_boxes(self.evaluator.gather(), self._val_images)
        )


def _batch_size(loader: Any) -> int:
    """Images that this rank trains on in a step.

    Raises:
        InputError: If it cannot be told, or if workers outlive their iterator, so that new weights
            never reach them.
    """
    layers = [loader]
    # A collate function, and grouping by aspect ratio, each wrap the DataLoader.
    while not isinstance(layers[-1], DataLoader) and layers[-1] is not None:
        layers.append(getattr(layers[-1], "_dataset", getattr(layers[-1], "dataset", None)))
    if getattr(layers[-1], "persistent_workers", False):
        raise InputError(
            "persistent_workers=True keeps workers that draw by the weights of the start; build "
            "the training loader without it"
        )
    for layer in layers:
        if isinstance(getattr(layer, "batch_size", None), int):
            return int(layer.batch_size)
    raise InputError(
        f"cannot tell the batch size of {type(loader).__name__}; build the training loader with "
        "build_detection_train_loader"
    )
