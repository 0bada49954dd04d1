"""One builder a folder, by a lock that dies with its holder."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hardmine.errors import HardmineError
from hardmine.index.storage.files import explained

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an index folder, made if it is not there, for writing.

    The operating system drops the lock with the process, however that ends, so what a dead
    builder left behind never stands in the way; the file only tells people who holds it.

    Raises:
        HardmineError: If another process holds the folder; the message names it.
    """
    with explained(f"write to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(folder / LOCK)
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(_holder()).encode())
    try:
        yield
    finally:
        # Removed while still held: a waiting builder notices that its file is no longer there.
        (folder / LOCK).unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _describe(path)
            os.close(handle)
            raise HardmineError(
                f"{path.parent} is being written by another process ({holder}); "
                "wait for it to end, or stop it: finished shards are kept"
            ) from None
        except BaseException:
            os.close(handle)
            raise
        try:
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass
        # The holder before us removed the file between our open and our lock: try the new one.
        os.close(handle)


def _holder() -> dict[str, str | int]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
    }


def _describe(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"process {holder['pid']} on {holder['host']} since {holder['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "which has not said who it is"
