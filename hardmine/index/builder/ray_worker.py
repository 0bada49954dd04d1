"""A worker on a node of a Ray cluster: makes the shards that the head hands out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import ray

from hardmine._version import __version__
from hardmine.addresses import as_path
from hardmine.encoders import load_encoder
from hardmine.errors import HardmineError, InputError
from hardmine.index.builder.build_folder import BuildFolder
from hardmine.index.builder.executor import MAX_THREADS, make_shard
from hardmine.index.builder.pipeline import Progress
from hardmine.index.builder.plan import FinishedShard, Plan
from hardmine.index.builder.worker_folder import new_folder
from hardmine.records import ImageSet


class Setup(msgspec.Struct, frozen=True):
    """What every worker of a build is told.

    Attributes:
        folder: The index, as the head and all nodes see it.
        plan: Settings of the shards.
        root: Folder of the images.
        encoder: Arguments of ``load_encoder``.
        batch_size: Images that the encoder takes at once.
        threads: Threads that decode images; one per CPU of the worker, at most 16, if None.
        sample: Path of an image that the head has read; empty if it could read none.
        sha256: Hash of that image.
    """

    folder: str
    plan: Plan
    root: str
    encoder: dict[str, Any]
    batch_size: int
    threads: int | None
    sample: str
    sha256: str


class Made(msgspec.Struct, frozen=True):
    """Answer of a worker: a shard and the folder in which it lies, or a problem."""

    shard: FinishedShard | None = None
    folder: str = ""
    problem: str = ""


class Worker:
    """Makes shards with an encoder of its own. Everything that is handed to it is a plain value."""

    def __init__(self) -> None:
        self._until_exit = ExitStack()
        self._progress = (0, 0)

    def prepare(self, version: str, setup: bytes, reader: bytes | None, gpus: int) -> str:
        """Load the encoder and look at the folders; return what this node lacks, or nothing."""
        if version != __version__:
            return f"it has hardmine {__version__}, not {version}; install the same version"
        self._setup = msgspec.json.decode(setup, type=Setup)
        self._reader = None if reader is None else ray.cloudpickle.loads(reader)
        try:
            self._check_folder()
            self._check_images()
            self._encoder = load_encoder(**self._setup.encoder, device="cuda" if gpus else "cpu")
            if self._encoder.fingerprint != self._setup.plan.encoder:
                raise InputError(
                    f"its encoder {self._setup.encoder['name']} is {self._encoder.fingerprint}, "
                    f"not {self._setup.plan.encoder}; are its weights others?"
                )
            build_folder = BuildFolder(Path(self._setup.folder)).path
            self._folder = self._until_exit.enter_context(new_folder(build_folder))
        except HardmineError as error:
            return str(error)
        return ""

    def make(
        self, number: int, paths: Sequence[str], boxes: Sequence[npt.NDArray[Any]] | None
    ) -> bytes:
        """Make one shard of images with these paths; boxes are theirs, for clusters "boxes"."""
        self._progress = (0, 0)
        try:
            shard = make_shard(
                self._setup.plan.only(number),
                number,
                self._images(paths),
                self._encoder,
                self._folder,
                batch_size=self._setup.batch_size,
                workers=self._setup.threads or _own_threads(),
                proposals=None if boxes is None else dict(enumerate(boxes)),
                report=self._note,
            )
        except HardmineError as error:
            return msgspec.json.encode(Made(problem=str(error)))
        except Exception as error:
            return msgspec.json.encode(Made(problem=f"{type(error).__name__}: {error}"))
        return msgspec.json.encode(Made(shard=shard, folder=self._folder.name))

    def progress(self) -> tuple[int, int]:
        """Images of the present shard that are done, and how many of them were skipped."""
        return self._progress

    def _note(self, progress: Progress) -> None:
        self._progress = (progress.fresh, progress.skipped)

    def _images(self, paths: Sequence[str]) -> ImageSet:
        sizes = np.zeros((len(paths), 2), np.int32)
        root = as_path(self._setup.root)
        return ImageSet(root, np.arange(len(paths)), tuple(paths), sizes, reader=self._reader)

    def _check_folder(self) -> None:
        folder = self._setup.folder
        if BuildFolder(Path(folder)).plan() != self._setup.plan:
            raise InputError(
                f"it does not see the build in {folder}; all nodes must share this folder, under "
                "the same path"
            )

    def _check_images(self) -> None:
        if not self._setup.sample:
            return
        images = self._images([self._setup.sample])
        try:
            digest = hashlib.sha256(images.read(0)).hexdigest()
        except InputError as error:
            raise InputError(
                f"{error}; all nodes must see the images, under the same path"
            ) from None
        if digest != self._setup.sha256:
            raise InputError(
                f"its {images.path(0)} is another file; all nodes must see the same images, under "
                "the same path"
            )


def _own_threads() -> int:
    """Threads that decode images: one per CPU that Ray has given to this worker."""
    cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
    return max(1, min(int(cpus), os.cpu_count() or 1, MAX_THREADS))
