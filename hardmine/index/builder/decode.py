"""Image files to tensors in worker threads, a few batches ahead of the encoder."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hardmine.datasets import open_image
from hardmine.errors import InputError
from hardmine.index.storage.image_table import FileFacts

if TYPE_CHECKING:
    import PIL.Image
    import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Decoded:
    """An image ready for the encoder, or why it is not."""

    facts: FileFacts
    pixels: torch.Tensor | None


def decode(path: Path, preprocess: Callable[[PIL.Image.Image], torch.Tensor]) -> Decoded:
    """Read one image; a file that cannot be read is a fact, not an error."""
    try:
        status = path.stat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return Decoded(FileFacts(0, 0, -1, -1, "", problem=error.strerror or str(error)), None)
    size, mtime = status.st_size, status.st_mtime_ns
    try:
        image = open_image(path)
    except InputError as error:
        # The path stands beside it in the table already.
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
    """Decode batch after batch, in order, while the caller works on those before.

    Threads, not processes: Pillow lets go of the interpreter while it decodes and resizes, and
    an encoder's ``preprocess`` need be neither pickled nor safe to fork.

    Args:
        batches: What the caller wants back with a batch, and the batch's files.
        preprocess: The encoder's; called from several threads at once.
        workers: Threads.
        ahead: Batches to hold, at most.
    """
    waiting: deque[tuple[T, list[Future[Decoded]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for label, paths in batches:
                waiting.append((label, [pool.submit(decode, path, preprocess) for path in paths]))
                if len(waiting) >= ahead:
                    first, futures = waiting.popleft()
                    yield first, [future.result() for future in futures]
            while waiting:
                first, futures = waiting.popleft()
                yield first, [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
