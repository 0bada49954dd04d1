"""Turns images into shards: decodes, encodes, and clusters and writes, all three in parallel."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.encoders.base import DenseFeatures, Encoder
from hardmine.errors import InputError
from hardmine.index.builder.decode import DecodedBatch, decode_batches, with_pixels
from hardmine.index.builder.plan import FinishedShard, Plan
from hardmine.index.builder.proposals import Proposals, proposals_of
from hardmine.index.builder.regions import on_cpu, regions_of_batch
from hardmine.index.builder.side_stream import SideStream, event_after
from hardmine.index.builder.worker_folder import WorkerFolder
from hardmine.index.storage.image_table import FileFacts
from hardmine.index.storage.shard_files import write_shard
from hardmine.index.storage.store import quantize_rows
from hardmine.records import ImageSet, Regions


@dataclass(frozen=True)
class Progress:
    """Progress of a build on this rank.

    Attributes:
        done: Images finished by this run and earlier ones.
        total: Images to finish in all.
        skipped: Images of this run that could not be read.
        fresh: Images finished by this run.
        seconds: Seconds since this run began.
    """

    done: int
    total: int
    skipped: int
    fresh: int
    seconds: float

    @property
    def rate(self) -> float:
        """Images per second in this run; 0 before the first image."""
        return self.fresh / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        """Seconds until the end at this rate; infinite before the first image."""
        return (self.total - self.done) / self.rate if self.rate else float("inf")


@dataclass
class _OpenShard:
    """Images and regions of the shard that is being filled."""

    facts: list[FileFacts] = field(default_factory=list)
    vectors: list[npt.NDArray[Any]] = field(default_factory=list)
    scales: list[npt.NDArray[np.float32]] = field(default_factory=list)
    counts: list[npt.NDArray[np.int64]] = field(default_factory=list)
    boxes: list[npt.NDArray[np.float16]] = field(default_factory=list)
    mass: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def add(self, regions: Regions, num_images: int, *, quantized: bool) -> None:
        vectors = regions.vectors.float().numpy()
        if not np.isfinite(vectors).all():
            raise InputError(
                "the encoder returned NaN or infinity; its values may be too large for half "
                "precision: try precision fp32 or bf16"
            )
        if quantized:
            vectors, scales = quantize_rows(vectors)
            self.scales.append(scales)
            self.vectors.append(vectors)
        else:
            self.vectors.append(vectors.astype(np.float16))
        rows = regions.image_rows.numpy()
        self.counts.append(np.bincount(rows, minlength=num_images).astype(np.int64))
        self.boxes.append(regions.boxes.float().numpy().astype(np.float16))
        self.mass.append(regions.mass.float().numpy())

    def layout(self, *, quantized: bool) -> dict[str, npt.NDArray[Any]]:
        counts = np.concatenate([np.zeros(1, np.int64), *self.counts])
        arrays: dict[str, npt.NDArray[Any]] = {
            "offsets": np.cumsum(counts),
            "boxes": np.concatenate([np.zeros((0, 4), np.float16), *self.boxes]),
            "mass": np.concatenate([np.zeros(0, np.float32), *self.mass]),
        }
        if quantized:
            arrays["scales"] = np.concatenate([np.zeros(0, np.float32), *self.scales])
        return arrays


@dataclass(frozen=True)
class _Batch:
    """A batch of one shard: the shard's number, rows of its images, and whether it is the last."""

    number: int
    rows: range
    last: bool


class ShardBuilder:
    """Makes the shards of a plan, one after the other.

    Three steps run in parallel: threads decode the next batches, the calling thread runs the
    encoder, and another thread clusters its output and writes finished shards. A batch belongs to
    one shard, so the bytes of a shard do not depend on where a build was interrupted.

    Holds a few batches of pixels and patches, and the vectors of one shard, in memory.
    """

    def __init__(
        self,
        plan: Plan,
        images: ImageSet,
        encoder: Encoder,
        folder: WorkerFolder,
        *,
        batch_size: int,
        workers: int,
        proposals: Proposals | None = None,
    ) -> None:
        self._plan = plan
        self._images = images
        self._encoder = encoder
        self._preprocess = with_pixels(encoder.preprocess, plan.pixels)
        self._folder = folder
        self._batch_size = batch_size
        self._workers = workers
        self._proposals = proposals
        self._open: _OpenShard | None = _OpenShard()
        self._side_stream = SideStream()

    def make(
        self,
        numbers: Sequence[int],
        report: Callable[[Progress], None] | None = None,
        *,
        already_done: int = 0,
    ) -> None:
        """Make some shards of the plan and hand on each one that is finished.

        Args:
            numbers: Numbers of the shards.
            report: Called with the progress after every batch.
            already_done: Images that earlier runs finished.
        """
        total = already_done + sum(len(self._plan.rows(number)) for number in numbers)
        fresh = skipped = 0
        started = time.perf_counter()
        unfinished: deque[Future[None]] = deque()
        batches = decode_batches(
            self._images,
            self._batches(numbers),
            self._preprocess,
            workers=self._workers,
            pinned=torch.device(getattr(self._encoder, "device", "cpu")).type == "cuda",
        )
        with ThreadPoolExecutor(1, thread_name_prefix="cluster") as pool:
            try:
                for decoded in batches:
                    features = self._encode(decoded.pixels)
                    # Without the pixels, which take more memory than what is made of them.
                    done = replace(decoded, pixels=None)
                    encoded = None if features is None else event_after(features.patches.device)
                    unfinished.append(pool.submit(self._finish, done, features, encoded))
                    if len(unfinished) > 2:
                        unfinished.popleft().result()
                    fresh += len(decoded.facts)
                    skipped += len(decoded.facts) - len(decoded.readable)
                    if report is not None:
                        seconds = time.perf_counter() - started
                        report(Progress(already_done + fresh, total, skipped, fresh, seconds))
                while unfinished:
                    unfinished.popleft().result()
            finally:
                batches.close()  # what is encoded is still clustered and written

    def _batches(self, numbers: Sequence[int]) -> Iterator[tuple[_Batch, range]]:
        for number in numbers:
            rows = self._plan.rows(number)
            for start in range(0, len(rows), self._batch_size):
                chosen = rows[start : start + self._batch_size]
                batch = _Batch(number, chosen, last=chosen.stop == rows.stop)
                yield batch, chosen

    def _encode(self, pixels: torch.Tensor | None) -> DenseFeatures | None:
        if pixels is None:
            return None
        with torch.inference_mode():
            return self._encoder.encode_images(pixels)

    def _finish(
        self, decoded: DecodedBatch[_Batch], features: DenseFeatures | None, encoded: Any
    ) -> None:
        # The shard is set aside until the batch has succeeded. After a batch that failed, the
        # batches behind it find no shard and are dropped: no finished shard lacks a batch.
        shard, self._open = self._open, None
        if shard is None:
            return
        shard.facts += decoded.facts
        if features is not None:
            with self._side_stream.after(features.patches.device, encoded):
                regions = on_cpu(self._regions(decoded, features))
            shard.add(regions, len(features.patches), quantized=self._plan.dtype == "int8")
        if decoded.label.last:
            self._write(decoded.label.number, shard)
            shard = _OpenShard()
        self._open = shard

    def _regions(self, decoded: DecodedBatch[_Batch], features: DenseFeatures) -> Regions:
        rows = [decoded.label.rows[place] for place in decoded.readable]
        proposals = None
        if self._proposals is not None:
            ids = self._images.ids[rows].tolist()
            proposals = proposals_of(self._proposals, ids, features.patches.device)
        with torch.inference_mode():
            return regions_of_batch(
                features,
                self._plan.clusters,
                seed=self._plan.seed,
                names=[self._images.paths[row] for row in rows],
                proposals=proposals,
            )

    def _write(self, number: int, shard: _OpenShard) -> None:
        record = write_shard(
            self._folder.path,
            number,
            shard.vectors,
            shard.layout(quantized=self._plan.dtype == "int8"),
            dim=self._encoder.dim,
            dtype=self._plan.dtype,
            scratch=self._folder.path,
        )
        paths = tuple(self._images.paths[row] for row in self._plan.rows(number))
        self._folder.save(FinishedShard(shard=record, paths=paths, facts=tuple(shard.facts)))
