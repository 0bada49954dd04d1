"""Decodes image files to tensors in threads, a few batches ahead of the encoder."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from hardmine.encoders.preprocess import WholeImage
from hardmine.errors import InputError
from hardmine.image_files.decode import decode_image, decode_reduced
from hardmine.index.storage.image_table import FileFacts
from hardmine.records import ImageSet

if TYPE_CHECKING:
    import PIL.Image
    import torch

T = TypeVar("T")
# A byte that is not UTF-8, as ``escape_names`` writes it.
_ESCAPED = re.compile(r"\\udc[89a-f][0-9a-f]")


@dataclass(frozen=True)
class DecodedBatch(Generic[T]):
    """Images of a batch.

    Attributes:
        label: What the batch was given with.
        facts: State of each of the B files; broken ones have a problem.
        pixels: (b, 3, height, width) of the others, in order; None if all are broken.
    """

    label: T
    facts: list[FileFacts]
    pixels: torch.Tensor | None

    @property
    def readable(self) -> list[int]:
        """Positions of the images that are not broken."""
        return [place for place, fact in enumerate(self.facts) if not fact.problem]


class _Stack:
    """Stacked pixels of a batch, each copied by the thread that decoded it.

    One thread that stacks all batches would be busy for longer than a fast GPU encodes. The stack
    lies in memory as its images do, so that each is one plain copy.
    """

    def __init__(self, count: int, *, pinned: bool) -> None:
        self.pixels: torch.Tensor | None = None
        self._count = count
        self._pinned = pinned
        self._lock = threading.Lock()

    def put(self, place: int, pixels: torch.Tensor) -> None:
        with self._lock:
            if self.pixels is None:
                self.pixels = self._empty(pixels)
        if (pixels.shape, pixels.dtype) != (self.pixels.shape[1:], self.pixels.dtype):
            raise InputError(
                "the encoder's preprocess must return tensors of one shape and type, got "
                f"{tuple(self.pixels.shape[1:])} {self.pixels.dtype} and {tuple(pixels.shape)} "
                f"{pixels.dtype} in a batch"
            )
        self.pixels[place] = pixels

    def _empty(self, pixels: torch.Tensor) -> torch.Tensor:
        # torch keeps pinned memory that is freed, and hands it out again.
        stack = pixels.new_empty((self._count, pixels.numel()), pin_memory=self._pinned)
        if pixels.ndim == 3 and not pixels.is_contiguous():
            channels, height, width = pixels.shape
            return stack.view(self._count, height, width, channels).permute(0, 3, 1, 2)
        return stack.view(self._count, *pixels.shape)


def with_pixels(
    preprocess: Callable[[PIL.Image.Image], torch.Tensor], pixels: str
) -> Callable[[PIL.Image.Image], torch.Tensor]:
    """An encoder's ``preprocess`` for the pixels of an index, see ``Plan``.

    Raises:
        InputError: If they are "fast" and it is one of the user's own.
    """
    if pixels == "exact":
        return preprocess
    if not isinstance(preprocess, WholeImage):
        raise InputError(
            "the index was made with the fast resizing of hardmine's own encoders, expected their "
            f"preprocess (WholeImage), got {type(preprocess).__name__}; update it with the encoder "
            "that built it"
        )
    return replace(preprocess, fast=True)


def decode(
    images: ImageSet, row: int, preprocess: Callable[[PIL.Image.Image], torch.Tensor]
) -> tuple[FileFacts, torch.Tensor | None]:
    """Read one image; of a broken file the facts tell the problem, and there are no pixels."""
    path = images.path(row)
    # The time before the content: a file that is replaced in between is read again next time.
    time = images.modified(row)
    try:
        content = images.read(row)
    except InputError as error:
        problem = _problem(error, path)
        if time < 0 and _ESCAPED.search(path.as_posix()):
            problem = "its name is not UTF-8: rename it"
        return FileFacts(0, 0, -1, -1, "", problem=problem), None
    digest = hashlib.sha256(content).hexdigest()
    try:
        if isinstance(preprocess, WholeImage) and preprocess.fast:
            image, (height, width) = decode_reduced(content, path, preprocess.size)
        else:
            image = decode_image(content, path)
            height, width = image.height, image.width
    except InputError as error:
        facts = FileFacts(0, 0, len(content), time, digest, problem=_problem(error, path))
        return facts, None
    facts = FileFacts(height, width, len(content), time, digest)
    return facts, preprocess(image)


def _problem(error: InputError, path: Path) -> str:
    """What is wrong; the table of images has the path beside it."""
    return str(error).removeprefix(f"{path}: ") or "cannot be decoded"


def decode_batches(
    images: ImageSet,
    batches: Iterable[tuple[T, Sequence[int]]],
    preprocess: Callable[[PIL.Image.Image], torch.Tensor],
    *,
    workers: int,
    ahead: int = 3,
    pinned: bool = False,
) -> Generator[DecodedBatch[T], None, None]:
    """Decode batches in order, while the caller works on the previous ones.

    Uses threads, not processes: Pillow releases the GIL while it decodes and resizes, and an
    encoder's ``preprocess`` then needs no pickling and no safe fork.

    Args:
        images: The images.
        batches: Pairs of a label, which is returned with the batch, and rows of its images.
        preprocess: The encoder's ``preprocess``; called from several threads at once.
        workers: Number of threads.
        ahead: Largest number of batches to hold.
        pinned: Whether to stack in pinned memory, from which a GPU copies by itself.
    """

    def work(row: int, stack: _Stack, place: int) -> FileFacts:
        facts, pixels = decode(images, row, preprocess)
        if pixels is not None:
            stack.put(place, pixels)
        return facts

    in_progress: deque[tuple[T, _Stack, list[Future[FileFacts]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for label, rows in batches:
                stack = _Stack(len(rows), pinned=pinned)
                futures = [pool.submit(work, row, stack, place) for place, row in enumerate(rows)]
                in_progress.append((label, stack, futures))
                if len(in_progress) >= ahead:
                    yield _finished(*in_progress.popleft())
            while in_progress:
                yield _finished(*in_progress.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _finished(label: T, stack: _Stack, futures: list[Future[FileFacts]]) -> DecodedBatch[T]:
    batch = DecodedBatch(label, [future.result() for future in futures], stack.pixels)
    if stack.pixels is None or len(batch.readable) == len(batch.facts):
        return batch
    return replace(batch, pixels=stack.pixels[batch.readable])
