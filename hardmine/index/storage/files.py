"""Writes files atomically: to a temporary name, synced, renamed, then the folder synced."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec

from hardmine.errors import HardmineError, IndexDamaged

_CHUNK = 1 << 20
_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space, then run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space, then run the same command again",
    errno.EFBIG: "the file is larger than this system allows: use a smaller shard size",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "choose another folder or change its permissions",
    errno.EPERM: "choose another folder or change its permissions",
    errno.EEXIST: "a file has this name: choose another folder",
    errno.ENOTDIR: "a part of this path is a file: choose another folder",
}


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name, length and hash of one file of an index.

    Attributes:
        name: Path inside the index folder, with forward slashes.
        bytes: Length in bytes.
        sha256: SHA-256 of the whole file, in hex.
    """

    name: str
    bytes: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


@contextmanager
def explain_os_errors(action: str) -> Iterator[None]:
    """Turn an ``OSError`` into a ``HardmineError`` with the action, the cause and a remedy."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = _ADVICE.get(error.errno or 0, "")
        raise HardmineError(f"cannot {action}: {reason}" + (f"; {advice}" if advice else "")) from (
            error
        )


def write_durably(folder: Path, name: str, chunks: Iterable[Any], *, scratch: Path) -> FileRecord:
    """Write a file of an index atomically: after a crash it is whole or absent.

    Args:
        folder: The index.
        name: Path inside it; an existing file is replaced.
        chunks: Contiguous buffers (bytes or arrays), written in order.
        scratch: Folder on the same file system for the unfinished file.
    """
    target = folder / name
    # The process id separates two builders on a file system without locks.
    unfinished = scratch / f"{target.name}.{os.getpid()}.part"
    digest, length = hashlib.sha256(), 0
    with explain_os_errors(f"write {target}"):
        try:
            with unfinished.open("wb", buffering=0) as file:
                for chunk in chunks:
                    view = memoryview(chunk).cast("B")
                    digest.update(view)
                    length += len(view)
                    while len(view):
                        view = view[file.write(view) :]
                os.fsync(file.fileno())
            os.replace(unfinished, target)  # noqa: PTH105 (tests record the calls of os.replace)
            sync_folder(target.parent)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    return FileRecord(name=name, bytes=length, sha256=digest.hexdigest())


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that new file names survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def damaged(path: Path, error: Exception) -> IndexDamaged:
    """What to raise where a file of an index cannot be read, or does not hold what it should."""
    if isinstance(error, OSError):
        return IndexDamaged(
            f"{path} cannot be read: {error.strerror or error}; restore it, or build again"
        )
    return IndexDamaged(f"{path} is damaged ({error}); restore it, or build again")


def require_regular(path: str | Path, mode: int) -> None:
    """Refuse what is not a regular file: a pipe has no end, and a device may be endless.

    Raises:
        OSError: If ``mode``, of ``os.stat``, says that it is something else.
    """
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Read a whole regular file.

    Raises:
        OSError: If it is not a regular file, or longer than ``max_bytes``.
    """
    status = path.stat()
    require_regular(path, status.st_mode)
    if status.st_size > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than {max_bytes} bytes", str(path))
    return path.read_bytes()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a whole file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
