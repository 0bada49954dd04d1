"""Writing that a crash cannot tear: to a scratch name, synced, renamed, the folder synced."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec

from hardmine.errors import HardmineError

_CHUNK = 1 << 20
_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space, then run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space, then run the same command again",
    errno.EFBIG: "the file is larger than this system allows: use a smaller shard size",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "permission denied: choose another folder or mend its permissions",
    errno.EPERM: "permission denied: choose another folder or mend its permissions",
}


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file must be, byte for byte.

    Attributes:
        name: Path inside the index folder, with forward slashes.
        bytes: Length.
        sha256: Of the whole file, in hex.
    """

    name: str
    bytes: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn an operating system's refusal into a message that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = _ADVICE.get(error.errno or 0, "")
        raise HardmineError(f"cannot {doing}: {reason}" + (f"; {advice}" if advice else "")) from (
            error
        )


def write_durably(folder: Path, name: str, chunks: Iterable[Any], *, scratch: Path) -> FileRecord:
    """Write a file of an index so that it is either whole, under its name, or not there.

    Args:
        folder: The index.
        name: Path inside it; an existing file is replaced.
        chunks: Contiguous buffers (bytes or arrays), written one after the other.
        scratch: Folder on the same file system for the unfinished file.
    """
    target = folder / name
    # The process id keeps two builders of a folder that does not support locks apart.
    unfinished = scratch / f"{target.name}.{os.getpid()}.part"
    digest, length = hashlib.sha256(), 0
    with explained(f"write {target}"):
        try:
            with unfinished.open("wb", buffering=0) as file:
                for chunk in chunks:
                    view = memoryview(chunk).cast("B")
                    digest.update(view)
                    length += len(view)
                    while len(view):
                        view = view[file.write(view) :]
                os.fsync(file.fileno())
            os.replace(unfinished, target)  # noqa: PTH105 (watched by the tests)
            sync_folder(target.parent)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    return FileRecord(name=name, bytes=length, sha256=digest.hexdigest())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """SHA-256 of a whole file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
