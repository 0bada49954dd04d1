"""The folder in which one worker writes its shards, until they are moved into the index."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import torch

from hardmine.encoders.base import Encoder
from hardmine.index.builder.plan import FinishedShard
from hardmine.index.storage.files import explain_os_errors

_PREFIX = "worker"
_LOCK = "lock"


class WorkerFolder:
    """A folder that no other process writes to, with the layout of an index.

    A worker that is believed dead may still be writing: it never touches what another has made.

    Args:
        path: The folder.
        on_shard: Called with each shard whose files are written.
        made_on: What the shards are made on.
    """

    def __init__(
        self, path: Path, on_shard: Callable[[FinishedShard], None], made_on: str = ""
    ) -> None:
        self.path = path
        self._on_shard = on_shard
        self._made_on = made_on

    def save(self, finished: FinishedShard) -> None:
        """Hand on a shard whose files are written."""
        self._on_shard(msgspec.structs.replace(finished, made_on=self._made_on))


@contextmanager
def new_folder(build_folder: Path) -> Iterator[Path]:
    """Make a folder for this worker; it is removed at the end, and after a kill by the next run.

    Its name holds the host and a unique id, as workers on several hosts share the build folder.
    """
    name = f"{_PREFIX}-{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    path = build_folder / name
    with explain_os_errors(f"write {path}"):
        path.mkdir()
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with explain_os_errors(f"write {path}"):
            fcntl.flock(lock, fcntl.LOCK_EX)
            (path / "shards").mkdir()
        yield path
    finally:
        os.close(lock)
        shutil.rmtree(path, ignore_errors=True)


def remove_abandoned(build_folder: Path) -> None:
    """Remove the folders of workers of this host that have ended.

    Those of other hosts stay until the build is finished: their workers may be writing.
    """
    for path in build_folder.glob("ended-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in build_folder.glob(f"{_PREFIX}-{_host()}-*"):
        if not _is_locked(path / _LOCK):
            remove(path)


def remove(path: Path) -> None:
    """Remove a worker's folder, first its name: its worker then fails instead of making files."""
    ended = path.with_name(f"ended-{path.name}")
    with suppress(FileNotFoundError):
        path.rename(ended)
    shutil.rmtree(ended, ignore_errors=True)


def describe_machine(encoder: Encoder) -> str:
    """What decides the last bits of an encoder's vectors: device, threads, version of torch."""
    device = str(getattr(encoder, "device", "unknown device"))
    if device.startswith("cuda"):
        kind = torch.cuda.get_device_name(device)
    else:
        processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        kind = f"{device} {processor}, threads: {torch.get_num_threads()}"
    return f"{kind}, torch {torch.__version__}"


def _host() -> str:
    """Name of this host, as a part of a file name."""
    return "".join(letter if letter.isalnum() else "_" for letter in socket.gethostname()) or "_"


def _is_locked(path: Path) -> bool:
    """Whether a living process of this host holds the lock."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False  # ended before it made the file
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
