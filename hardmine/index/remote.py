"""Fetches an index that has an address into a cache on this machine, where it is searched."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from hardmine.addresses import Address, as_path
from hardmine.errors import HardmineError, IndexDamaged, InputError, Unreachable
from hardmine.index.storage.files import (
    FileRecord,
    explain_os_errors,
    sha256_of,
    sync_folder,
)
from hardmine.index.storage.joined import read_joined, write_joined
from hardmine.index.storage.manifest import JOINED, MANIFEST, Manifest, read_manifest, render

Content = TypeVar("Content")
log = logging.getLogger(__name__)

_FETCHING = "fetching-"  # before the name of a copy that is not whole
_CHUNK = 16 << 20
_MAX_MANIFEST = 256 << 20
_MAX_GIB = 50.0
# A process that was told of a copy has opened it after so many seconds; then it may be removed.
_SPARED_SECONDS = 600


def local_index(path: str | Path) -> Path:
    """The folder of an index on this machine; an index that has an address is fetched first.

    At each call the manifest at the address is compared with the copy's. A changed index is fetched
    anew, except the files that did not change; who searches the old copy keeps its files. Each file
    is checked against its hash before it counts as fetched, and a copy is whole before it gets its
    name, so a broken-off call is continued by the next. Processes wait for each other. A joined
    index is a list of parts that are fetched so one by one, from where they lie beside it.

    Copies lie in ``$HARDMINE_CACHE``, or ``~/.cache/hardmine``, at most ``$HARDMINE_CACHE_GIB``
    GiB of them (50 by default): the least recently opened are removed.

    Args:
        path: The folder, or an address such as ``s3://bucket/coco.hmx``.

    Raises:
        IndexDamaged: If there is no index at the address, or a file differs from its hash.
        Unreachable: If the host cannot be reached.
        HardmineError: If the index does not fit into the cache, or the disk is full.
    """
    address = as_path(path)
    if not isinstance(address, Address):
        return address
    with _copies_of(address) as copies:
        try:
            if (address / JOINED).is_file():
                copy = _joined_copy(address, copies)
            else:
                copy = _fetched(address, copies)
        except Unreachable as error:
            known = sorted(_whole_copies(copies), key=lambda one: one.stat().st_mtime)
            hint = f"; the copy of an earlier time is {known[-1]}" if known else ""
            raise Unreachable(f"{error}{hint}") from None
        os.utime(copy)  # the time of the last use
        return copy


def _joined_copy(address: Address, copies: Path) -> Path:
    """A joined index whose parts are links to copies; these are kept like those of any index."""
    parts = [address.parent / part for part in _read_there(address, JOINED, copies, read_joined)]
    if address in parts:
        raise IndexDamaged(f"{address} lists itself as one of its parts; join again")
    manifests = []
    for part in parts:
        with _copies_of(part) as own:
            manifests.append(_remote_manifest(part, own))
    _require_room(address, sum(map(_bytes_of, manifests)))
    found: list[Path] = []
    for part, manifest in zip(parts, manifests, strict=True):
        for fetched in found:  # in use: not to be removed to make room for the next
            os.utime(fetched)
        with _copies_of(part) as own:
            found.append(_fetched(part, own, manifest))
    name = hashlib.sha256("\n".join(map(str, found)).encode()).hexdigest()[:12]
    copy, unfinished = copies / name, copies / f"{_FETCHING}{name}"
    if not copy.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        links = [f"{number}-{part.name}" for number, part in enumerate(parts)]
        for link, target in zip(links, found, strict=True):
            (unfinished / link).symlink_to(target, target_is_directory=True)
        write_joined(unfinished, [f"{name}/{link}" for link in links])
        unfinished.rename(copy)
        _remove_others(copies, copy)
    return copy


def _cache() -> Path:
    return Path(os.environ.get("HARDMINE_CACHE") or "~/.cache/hardmine").expanduser() / "indexes"


@contextlib.contextmanager
def _copies_of(address: Address) -> Iterator[Path]:
    """The folder of the copies of an index, for as long as no other process fetches it."""
    copies = _cache() / f"{address.name}-{hashlib.sha256(str(address).encode()).hexdigest()[:12]}"
    with explain_os_errors(f"write {copies}"):
        copies.mkdir(parents=True, exist_ok=True)
        with _alone(copies):
            yield copies


@contextlib.contextmanager
def _alone(copies: Path, *, wait: bool = True) -> Iterator[None]:
    """Wait until no other process fetches the same index; else raise ``BlockingIOError``."""
    import fcntl

    with (copies / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _whole_copies(copies: Path) -> list[Path]:
    found = [*copies.glob(f"*/{MANIFEST}"), *copies.glob(f"*/{JOINED}")]
    return [path.parent for path in found if not path.parent.name.startswith(_FETCHING)]


def _fetched(address: Address, copies: Path, manifest: Manifest | None = None) -> Path:
    """The whole copy of the index as it is now."""
    if manifest is None:
        manifest = _remote_manifest(address, copies)
    try:
        return _copy_of(manifest, address, copies)
    except IndexDamaged as error:
        # An update replaces the manifest, then removes the files that only the old one names.
        latest = _remote_manifest(address, copies)
        if latest == manifest:
            raise IndexDamaged(
                f"{error}; the index there is cut or altered: copy it there again"
            ) from None
    return _fetched(address, copies, latest)


def _copy_of(manifest: Manifest, address: Address, copies: Path) -> Path:
    content = render(manifest)
    name = hashlib.sha256(content).hexdigest()[:12]
    copy, unfinished = copies / name, copies / f"{_FETCHING}{name}"
    if copy.exists():
        return copy
    _make_room(manifest, address, copies)
    _fetch_files(address, manifest, unfinished, copies)
    (unfinished / MANIFEST).write_bytes(content)
    sync_folder(unfinished)
    unfinished.rename(copy)
    _remove_others(copies, copy)
    return copy


def _remove_others(copies: Path, copy: Path) -> None:
    """Remove what is left of broken-off calls, and the copies that nobody uses any more."""
    for other in copies.iterdir():
        left = other.name.startswith(_FETCHING)
        if other.is_dir() and other != copy and (left or _idle(other)):
            _remove(other)


def _remote_manifest(address: Address, copies: Path) -> Manifest:
    """The manifest at the address, checked as any other."""
    return _read_there(address, MANIFEST, copies, read_manifest)


def _read_there(
    address: Address, name: str, copies: Path, read: Callable[[Path], Content]
) -> Content:
    """Read a file of the index at the address as it is read in a folder of this machine."""
    try:
        length = (address / name).stat().st_size
        if length > _MAX_MANIFEST:
            raise IndexDamaged(f"{address / name} has {length} bytes: it is no manifest")
        content = (address / name).read_bytes()
    except OSError as error:
        raise IndexDamaged(
            f"{address} is not an index: {name}: {error.strerror}; was its whole folder copied?"
        ) from None
    scratch = copies / f"{_FETCHING}manifest"
    scratch.mkdir(exist_ok=True)
    (scratch / name).write_bytes(content)
    try:
        return read(scratch)
    except HardmineError as error:
        raise type(error)(str(error).replace(str(scratch), str(address))) from None
    finally:
        shutil.rmtree(scratch)


def _fetch_files(address: Address, manifest: Manifest, copy: Path, copies: Path) -> None:
    """Fetch every file that neither this copy nor an older one has."""
    (copy / "shards").mkdir(parents=True, exist_ok=True)
    have = {record: older for older in _whole_copies(copies) for record in _records(older)}
    missing = []
    for record in manifest.files:
        target = copy / record.name  # of a name that ``read_manifest`` has checked
        if record in have and not target.exists():
            with contextlib.suppress(OSError):  # a file system without links
                os.link(have[record] / record.name, target)
        if not target.exists():  # it gets its name after its hash is compared
            missing.append(record)
    size = sum(record.bytes for record in missing)
    log.info("%s: fetching %d files, %.1f MiB", address, len(missing), size / 2**20)
    address.list_anew()  # the sizes of all files, in few requests
    with ThreadPoolExecutor(8, thread_name_prefix="fetch") as pool:
        futures = [pool.submit(_fetch, address, record, copy) for record in missing]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _records(copy: Path) -> tuple[FileRecord, ...]:
    try:
        return read_manifest(copy).files
    except HardmineError:
        return ()


def _fetch(address: Address, record: FileRecord, copy: Path) -> None:
    """Fetch one file, from where an earlier call was broken off."""
    source = address / record.name
    part = copy / f"{record.sha256}.part"
    begun = part.stat().st_size if part.exists() else 0
    try:
        if (length := source.stat().st_size) != record.bytes:
            raise IndexDamaged(f"{source}: expected {record.bytes} bytes, got {length}")
        with part.open("ab") as file:
            for start in range(begun, record.bytes, _CHUNK):
                file.write(source.read_from(start, min(_CHUNK, record.bytes - start)))
            os.fsync(file.fileno())
    except FileNotFoundError:
        raise IndexDamaged(f"{source} is missing") from None
    if sha256_of(part) == record.sha256:
        part.rename(copy / record.name)
        return
    part.unlink()
    if not begun:
        raise IndexDamaged(f"{source}: its content differs from its hash in the manifest")
    _fetch(address, record, copy)


def _bytes_of(manifest: Manifest) -> int:
    return sum(record.bytes for record in manifest.files)


def _require_room(address: Address, needed: int) -> int:
    """The most bytes that the cache may hold; refuse an index of more."""
    text = os.environ.get("HARDMINE_CACHE_GIB", str(_MAX_GIB))
    try:
        limit = int(float(text) * 2**30)
    except (ValueError, OverflowError):
        raise InputError(f"HARDMINE_CACHE_GIB must be a number of GiB, got {text!r}") from None
    if needed > limit:
        raise HardmineError(
            f"{address} has {needed / 2**30:.1f} GiB, more than the {limit / 2**30:.1f} GiB that "
            "the cache may hold: set HARDMINE_CACHE_GIB, or copy the folder to this machine"
        )
    return limit


def _make_room(manifest: Manifest, address: Address, copies: Path) -> None:
    """Remove the least recently opened copies until the index fits into the cache."""
    needed = _bytes_of(manifest)
    limit = _require_room(address, needed)
    # Not the older copies of this index: the new one takes its unchanged files from them.
    others = [path for path in _cache().glob("*/*") if path.is_dir() and path.parent != copies]
    sizes = {path: _size(path) for path in others}
    for other in sorted(others, key=_used):
        if sum(sizes.values()) + needed <= limit:
            return
        with contextlib.suppress(BlockingIOError), _alone(other.parent, wait=False):
            if _idle(other):
                _remove(other)
                sizes.pop(other)


def _remove(copy: Path) -> None:
    """Remove a copy; who has its files open keeps them."""
    # Renamed first: half a copy must not look whole.
    removed = copy.with_name(f"{_FETCHING}removed")
    copy.rename(removed)
    shutil.rmtree(removed)


def _idle(copy: Path) -> bool:
    """Whether whoever was told of a copy has opened it since."""
    return time.time() - _used(copy) > _SPARED_SECONDS


# Other processes may rename and remove files meanwhile.
def _used(copy: Path) -> float:
    try:
        return copy.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _size(folder: Path) -> int:
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += Path(place, name).stat().st_size
    return size
