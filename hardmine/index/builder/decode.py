"""Decodes image files to tensors in threads, a few batches ahead of the encoder."""

from __future__ import annotations

import errno
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hardmine.datasets import open_image
from hardmine.errors import InputError
from hardmine.index.storage.files import require_regular, sha256_of
from hardmine.index.storage.image_table import FileFacts

if TYPE_CHECKING:
    import PIL.Image
    import torch

T = TypeVar("T")
# Pillow decodes at most 179 M pixels; as 16-bit RGBA, without compression, they have 1.4 GB.
_MAX_BYTES = 1 << 31
# A byte that is not UTF-8, as ``escape_names`` writes it.
_ESCAPED = re.compile(r"\\udc[89a-f][0-9a-f]")


@dataclass(frozen=True)
class Decoded:
    """The state of an image's file, and its pixels for the encoder; None if it is broken."""

    facts: FileFacts
    pixels: torch.Tensor | None


def decode(path: Path, preprocess: Callable[[PIL.Image.Image], torch.Tensor]) -> Decoded:
    """Read one image; a broken file is reported in the facts, not raised."""
    size = mtime = -1
    digest = ""
    try:
        status = path.stat()
        size, mtime = status.st_size, status.st_mtime_ns
        require_regular(path, status.st_mode)
        if size > _MAX_BYTES:
            raise OSError(errno.EFBIG, f"it has {size} bytes, more than any image that is decoded")
        digest = sha256_of(path)
    except OSError as error:
        problem = error.strerror or str(error)
        if size < 0 and _ESCAPED.search(path.as_posix()):
            problem = "its name is not UTF-8: rename it"
        return Decoded(FileFacts(0, 0, size, mtime, digest, problem=problem), None)
    try:
        image = open_image(path)
    except InputError as error:
        # The table of images has the path beside the problem.
        problem = str(error).removeprefix(f"{path}: ") or "cannot be decoded"
        return Decoded(FileFacts(0, 0, size, mtime, digest, problem=problem), None)
    return Decoded(FileFacts(image.height, image.width, size, mtime, digest), preprocess(image))


def decode_batches(
    batches: Iterable[tuple[T, Sequence[Path]]],
    preprocess: Callable[[PIL.Image.Image], torch.Tensor],
    *,
    workers: int,
    ahead: int = 3,
) -> Generator[tuple[T, list[Decoded]], None, None]:
    """Decode batches in order, while the caller works on the previous ones.

    Uses threads, not processes: Pillow releases the GIL while it decodes and resizes, and an
    encoder's ``preprocess`` then needs no pickling and no safe fork.

    Args:
        batches: Pairs of a label, which is returned with the batch, and the batch's files.
        preprocess: The encoder's ``preprocess``; called from several threads at once.
        workers: Number of threads.
        ahead: Largest number of batches to hold.
    """
    in_progress: deque[tuple[T, list[Future[Decoded]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for label, paths in batches:
                in_progress.append(
                    (label, [pool.submit(decode, path, preprocess) for path in paths])
                )
                if len(in_progress) >= ahead:
                    first, futures = in_progress.popleft()
                    yield first, [future.result() for future in futures]
            while in_progress:
                first, futures = in_progress.popleft()
                yield first, [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
