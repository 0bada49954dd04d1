"""Scores kept on disk beside the index, so that the next run need not compute them again."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)

_LEFT_SECONDS = 24 * 3600  # since an unfinished file grew: whoever wrote it is gone
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
        max_bytes: int,
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

    def lack(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """(Q,) which query vectors have no file; the files of the others count as used now."""
        lacking = np.ones(len(vectors), bool)
        for place, vector in enumerate(vectors):
            with contextlib.suppress(OSError):
                os.utime(self._path(vector))
                lacking[place] = False
        return lacking

    def have_room(self, num_queries: int) -> bool:
        """Whether the scores of so many queries may be kept, and fit on the disk."""
        num_bytes = self._bytes_of(num_queries)
        if not self._writable or num_bytes > self._max_bytes:
            return False
        return shutil.disk_usage(self.folder.parent.parent).free > num_bytes

    def write(self, vectors: npt.NDArray[np.float32], blocks: Iterable[npt.NDArray[Any]]) -> None:
        """Keep the scores of some query vectors, each file atomically.

        Where that fails, training goes on: the cause is logged once, and nothing more is written.

        Args:
            vectors: (Q, D).
            blocks: (Q, n) scores of some images each, in the order of the images.
        """
        if not self._writable:
            return
        rows = {self._path(vector): row for row, vector in enumerate(vectors)}
        parts = [path.with_name(f"{path.name}.{os.getpid()}.part") for path in rows]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._delete_old(self._bytes_of(len(vectors)))
            hashes = [hashlib.sha256() for _ in parts]
            for part in parts:
                part.write_bytes(bytes(_HASH))
            for block in blocks:
                for part, hashed, row in zip(parts, hashes, rows.values(), strict=True):
                    scores = np.ascontiguousarray(block[row], self._dtype).data
                    hashed.update(scores)
                    with part.open("ab") as file:
                        file.write(scores)
            for part, hashed, path in zip(parts, hashes, rows, strict=True):
                with part.open("r+b") as file:
                    file.write(hashed.digest())
                part.replace(path)
        except OSError as error:
            self._writable = False
            logger.warning(
                "scores are not kept for the next run, which computes them again: %s: %s",
                self.folder,
                error.strerror,
            )
        finally:
            for part in parts:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)

    def _bytes_of(self, num_queries: int) -> int:
        return num_queries * (self._num_images * self._dtype.itemsize + _HASH)

    def _path(self, vector: npt.NDArray[np.float32]) -> Path:
        name = hashlib.sha256(np.ascontiguousarray(vector, "<f4").tobytes()).hexdigest()
        return self.folder / f"{name[:32]}.{self._dtype.kind}{8 * self._dtype.itemsize}"

    def _delete_old(self, num_bytes: int) -> None:
        """Delete scores of other versions of the index, and those unused for longest if need be.

        So are unfinished files of a process that is gone.
        """
        for other in self.folder.parent.iterdir():
            if other != self.folder and re.fullmatch("[0-9a-f]{16}", other.name):
                shutil.rmtree(other, ignore_errors=True)
        files = sorted(
            (entry.stat().st_mtime, entry.stat().st_size, entry.path)
            for entry in os.scandir(self.folder)
        )
        used = sum(size for _, size, _ in files)
        left_since = time.time() - _LEFT_SECONDS
        for changed, size, path in files:
            left = path.endswith(".part") and changed < left_since
            if left or used + num_bytes > self._max_bytes:
                Path(path).unlink(missing_ok=True)
                used -= size
