"""Locks the folder of an index for one writer; the lock ends with the writer's process."""

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

from hardmine.addresses import require_local
from hardmine.errors import HardmineError
from hardmine.index.storage.files import explain_os_errors

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder of an index for writing; the folder is made if missing.

    The operating system releases the lock when the process ends in any way, so a lock file that
    a killed process left behind blocks nobody. Its content only tells people who holds the lock.

    Raises:
        InputError: If it is an address.
        HardmineError: If another process holds the lock; the message names it.
    """
    require_local(folder, "an index that is written")
    with explain_os_errors(f"write to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(folder / LOCK)
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(_holder()).encode())
    try:
        yield
    finally:
        # Removed while the lock is held: a process that opened the file notices that it is gone.
        (folder / LOCK).unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _describe(path)
            os.close(handle)
            raise HardmineError(
                f"{path.parent} is being written by another process ({holder}); "
                "wait until it ends, or stop it: finished shards are kept"
            ) from None
        except BaseException:
            os.close(handle)
            raise
        try:
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass
        # The previous holder removed the file between our open and our lock: try a new file.
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
        return "unknown: it has not written its name yet"
