"""Behaves like the parts of detectron2 that hardmine_detectron2 meets; written from its source.

detectron2 is not on PyPI. Where it is installed, the tests use it instead.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
import warnings
import weakref
from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from hardmine.distributed import rank_and_world_size


class HookBase:
    """A hook of the trainer."""

    trainer: Any = None

    def before_train(self) -> None:
        pass

    def after_train(self) -> None:
        pass

    def before_step(self) -> None:
        pass

    def after_step(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}


class Storage:
    """The EventStorage: the last value of each scalar with its iteration."""

    def __init__(self, start: int) -> None:
        self.iter = start
        self._latest: dict[str, tuple[float, int]] = {}

    def put_scalars(self, *, smoothing_hint: bool = True, **values: float) -> None:
        for name, value in values.items():
            self._latest[name] = (float(value), self.iter)

    def latest(self) -> dict[str, tuple[float, int]]:
        return self._latest


class SimpleTrainer:
    """Trains in a loop; the loader's iterator is made when a batch is asked for."""

    def __init__(self, model: Any, data_loader: Any, optimizer: Any) -> None:
        model.train()
        self._hooks: list[Any] = []
        self.iter = self.start_iter = 0
        self.model = model
        self.data_loader = data_loader
        self._data_loader_iter_obj: Any = None
        self.optimizer = optimizer

    def register_hooks(self, hooks: list[Any]) -> None:
        for hook in hooks:
            hook.trainer = weakref.proxy(self)
        self._hooks.extend(hooks)

    def train(self, start_iter: int, max_iter: int) -> None:
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        self.storage = Storage(start_iter)
        for hook in self._hooks:
            hook.before_train()
        for self.iter in range(start_iter, max_iter):
            self.storage.iter = self.iter
            for hook in self._hooks:
                hook.before_step()
            self.run_step()
            for hook in self._hooks:
                hook.after_step()
        for hook in self._hooks:
            hook.after_train()

    @property
    def _data_loader_iter(self) -> Any:
        if self._data_loader_iter_obj is None:
            self._data_loader_iter_obj = iter(self.data_loader)
        return self._data_loader_iter_obj

    def run_step(self) -> None:
        losses = self.model(next(self._data_loader_iter))
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        states = {type(hook).__qualname__: hook.state_dict() for hook in self._hooks}
        return {"iteration": self.iter, "hooks": {name: s for name, s in states.items() if s}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.iter = state["iteration"]
        for hook in self._hooks:
            if type(hook).__qualname__ in state["hooks"]:
                hook.load_state_dict(state["hooks"][type(hook).__qualname__])


class DatasetEvaluator:
    """Looks at the outputs of an evaluation."""


class BoxMode:
    """Forms of boxes."""

    XYXY_ABS, XYWH_ABS = 0, 1

    @staticmethod
    def convert(box: list[float], from_mode: int, to_mode: int) -> list[float]:
        assert to_mode == BoxMode.XYXY_ABS
        x, y, *rest = box
        return box if from_mode == BoxMode.XYXY_ABS else [x, y, x + rest[0], y + rest[1]]


class ToIterableDataset(IterableDataset[Any]):
    """Iterates the sampler in every worker, each of which takes its chunks of it."""

    def __init__(self, dataset: Any, sampler: Any, shard_chunk_size: int) -> None:
        self.dataset, self.sampler, self.shard_chunk_size = dataset, sampler, shard_chunk_size

    def __iter__(self) -> Iterator[Any]:
        rows, worker = self.sampler, get_worker_info()
        if worker is not None and worker.num_workers > 1:
            rows = _shard(rows, self.shard_chunk_size, worker.id, worker.num_workers)
        for row in rows:
            yield self.dataset[row]


def _shard(sampler: Any, size: int, own: int, workers: int) -> Iterator[int]:
    """Each place in a chunk iterates the sampler for itself."""
    places = [islice(sampler, own * size + place, None, workers * size) for place in range(size)]
    while True:
        yield from map(next, places)


class AspectRatioGroupedDataset(IterableDataset[Any]):
    """Groups wide and high images; what waits for a batch stays when it is iterated anew."""

    def __init__(self, dataset: Any, batch_size: int) -> None:
        self.dataset, self.batch_size = dataset, batch_size
        self._buckets: list[list[Any]] = [[], []]

    def __iter__(self) -> Iterator[Any]:
        for each in self.dataset:
            bucket = self._buckets[0 if each["width"] > each["height"] else 1]
            bucket.append(each)
            if len(bucket) == self.batch_size:
                batch = bucket[:]
                del bucket[:]
                yield batch


def build_detection_train_loader(
    dataset: Dataset[Any],
    *,
    mapper: None,
    sampler: Any,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    **more: Any,
) -> Any:
    """The loader of one rank."""
    size = total_batch_size // rank_and_world_size()[1]
    rows = ToIterableDataset(dataset, sampler, size)
    if aspect_ratio_grouping:
        inner = DataLoader(rows, num_workers=num_workers, collate_fn=lambda one: one[0], **more)
        return AspectRatioGroupedDataset(inner, size)
    return DataLoader(
        rows,
        batch_size=size,
        drop_last=True,
        num_workers=num_workers,
        collate_fn=list,
        **more,
    )


MODULES = {
    "detectron2": (),
    "detectron2.engine": (HookBase, SimpleTrainer),
    "detectron2.evaluation": (DatasetEvaluator,),
    "detectron2.structures": (BoxMode,),
    "detectron2.data": (build_detection_train_loader,),
}


def install() -> None:
    """Let ``import detectron2`` find these, unless it is installed."""
    if importlib.util.find_spec("detectron2") is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in MODULES:
                importlib.import_module(name)
        return
    for name, members in MODULES.items():
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        vars(module).update({member.__name__: member for member in members})
        sys.modules[name] = module
