"""Scores kept on disk beside the index, so that the next run need not compute them again."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)

_MAX_BYTES = 4 * 2**30
_HASH = 32  # bytes at the start of a file: SHA-256 of the rest


class ScoreFiles:
    """A folder with one file for each query, ``coco.hmx.scores/<hash of the index>/<query>.f32``.

    A file is named by a hash of the query's vector and starts with the hash of its scores. So what
    is read was made for this index and this query, and is whole; a file that is not is made anew.
    The whole folder can be deleted at any time.

    Args:
        index: Folder of the index; the scores lie beside it.
        digest: Hash of the index, in hex. Scores of any other version of it are deleted.
        num_images: Length of each row of scores.
        dtype: Of the scores.
        max_bytes: Disk space; beyond it, files that were not used for longest are deleted.
    """

    def __init__(
        self,
        index: Path,
        digest: str,
        *,
        num_images: int,
        dtype: type[np.floating[Any]],
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        self.folder = index.with_name(f"{index.name}.scores") / digest[:16]
        self._num_images, self._dtype = num_images, np.dtype(dtype).newbyteorder("<")
        self._max_bytes = max_bytes
        self._writable = True

    def read(self, vector: npt.NDArray[np.float32]) -> npt.NDArray[Any] | None:
        """(N,) scores of a query's vector; None if there are none, or they are damaged."""
        path = self._path(vector)
        scores = np.empty(self._num_images, self._dtype)
        try:
            with path.open("rb") as file:
                expected = file.read(_HASH)
                length = file.readinto(scores.view(np.uint8).data)
                whole = length == scores.nbytes and not file.read(1)
            os.utime(path)
        except OSError:
            return None
        if not whole or hashlib.sha256(scores.data).digest() != expected:
            logger.warning("%s is damaged and made anew", path)
            return None
        return scores

    def write(self, vectors: npt.NDArray[np.float32], rows: Iterable[npt.NDArray[Any]]) -> None:
        """Keep the scores of some query vectors, each file atomically.

        Where that fails, training goes on: the cause is logged once, and nothing more is written.
        """
        if not self._writable:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._delete_old(len(vectors) * (self._num_images * self._dtype.itemsize + _HASH))
            for vector, row in zip(vectors, rows, strict=True):
                scores = np.ascontiguousarray(row, self._dtype).data
                path = self._path(vector)
                unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
                with unfinished.open("wb") as file:
                    file.write(hashlib.sha256(scores).digest())
                    file.write(scores)
                unfinished.replace(path)
        except OSError as error:
            self._writable = False
            logger.warning(
                "scores are not kept for the next run, which computes them again: %s: %s",
                self.folder,
                error.strerror,
            )

    def _path(self, vector: npt.NDArray[np.float32]) -> Path:
        name = hashlib.sha256(np.ascontiguousarray(vector, "<f4").tobytes()).hexdigest()
        return self.folder / f"{name[:32]}.{self._dtype.kind}{8 * self._dtype.itemsize}"

    def _delete_old(self, num_bytes: int) -> None:
        """Delete scores of other versions of the index, and those unused for longest if need be."""
        for other in self.folder.parent.iterdir():
            if other != self.folder and re.fullmatch("[0-9a-f]{16}", other.name):
                shutil.rmtree(other, ignore_errors=True)
        files = sorted(
            (entry.stat().st_mtime, entry.stat().st_size, entry.path)
            for entry in os.scandir(self.folder)
        )
        used = sum(size for _, size, _ in files)
        for _, size, path in files:
            if used + num_bytes <= self._max_bytes:
                break
            Path(path).unlink(missing_ok=True)
            used -= size
