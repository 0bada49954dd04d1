"""Decodes image files to tensors in threads, a few batches ahead of the encoder."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hardmine.errors import InputError
from hardmine.image_files.decode import decode_image
from hardmine.index.storage.image_table import FileFacts
from hardmine.records import ImageSet

if TYPE_CHECKING:
    import PIL.Image
    import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Decoded:
    """The state of an image's file, and its pixels for the encoder; None if it is broken."""

    facts: FileFacts
    pixels: torch.Tensor | None


def decode(
    images: ImageSet, row: int, preprocess: Callable[[PIL.Image.Image], torch.Tensor]
) -> Decoded:
    """Read one image; a broken file is reported in the facts, not raised."""
    path = images.path(row)
    # The time before the content: a file that is replaced in between is read again next time.
    time = images.modified(row)
    try:
        content = images.read(row)
    except InputError as error:
        return Decoded(FileFacts(0, 0, -1, -1, "", problem=_problem(error, path)), None)
    digest = hashlib.sha256(content).hexdigest()
    try:
        image = decode_image(content, path)
    except InputError as error:
        facts = FileFacts(0, 0, len(content), time, digest, problem=_problem(error, path))
        return Decoded(facts, None)
    facts = FileFacts(image.height, image.width, len(content), time, digest)
    return Decoded(facts, preprocess(image))


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
) -> Generator[tuple[T, list[Decoded]], None, None]:
    """Decode batches in order, while the caller works on the previous ones.

    Uses threads, not processes: Pillow releases the GIL while it decodes and resizes, and an
    encoder's ``preprocess`` then needs no pickling and no safe fork.

    Args:
        images: The images.
        batches: Pairs of a label, which is returned with the batch, and rows of its images.
        preprocess: The encoder's ``preprocess``; called from several threads at once.
        workers: Number of threads.
        ahead: Largest number of batches to hold.
    """
    in_progress: deque[tuple[T, list[Future[Decoded]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for label, rows in batches:
                in_progress.append(
                    (label, [pool.submit(decode, images, row, preprocess) for row in rows])
                )
                if len(in_progress) >= ahead:
                    first, futures = in_progress.popleft()
                    yield first, [future.result() for future in futures]
            while in_progress:
                first, futures = in_progress.popleft()
                yield first, [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
