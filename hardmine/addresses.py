"""Addresses such as ``s3://bucket/images``: paths of files that are not on this machine."""

from __future__ import annotations

import datetime
import errno
import functools
import io
import os
import posixpath
import re
import stat
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from hardmine.errors import InputError, MissingExtra, Unreachable

if TYPE_CHECKING or sys.platform != "win32":
    from pathlib import PosixPath as _LocalPath
else:
    from pathlib import WindowsPath as _LocalPath

# Scheme -> what to install. A manifest or a list may name an address, so others are refused.
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "memory": "fsspec"}
# A path keeps one slash of an address: "s3:/bucket/a".
_SCHEME = re.compile(rf"^({'|'.join(_PACKAGES)}):/+(?=[^/])")
_OTHER_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
# What a library's message may hold that nobody else should read.
_SECRETS = re.compile(r"(?<=://)[^/\s@]+@|\?[^\s\"']+")
_BLOCK = 8 << 20  # bytes that an open file fetches at a time
_TIMES = ("LastModified", "mtime", "updated", "created")


class Address(_LocalPath):
    """A path that is read through fsspec; it can be listed and read, never written.

    Rights and end points are those that the libraries find by themselves: environment variables
    such as ``AWS_ENDPOINT_URL``, ``~/.aws``, ``HF_TOKEN`` and fsspec's own configuration. A missing
    file raises ``FileNotFoundError`` as any path does. Whatever else goes wrong raises
    ``Unreachable``, which is no property of the file.

    What a listing said of a file is remembered until ``list_anew``.
    """

    def __str__(self) -> str:
        return _SCHEME.sub(r"\1://", super().__str__(), count=1)

    def __fspath__(self) -> str:
        return str(self)

    def absolute(self) -> Address:
        """The address itself."""
        return self

    def resolve(self, strict: bool = False) -> Address:
        """The address itself: links are not known."""
        return self

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Kind, size and time of change of the file; time 0 where the host tells none."""
        info = self._ask(lambda files, path: files.info(path))
        kind = stat.S_IFDIR if info["type"] == "directory" else stat.S_IFREG
        time = _nanoseconds(next((info[name] for name in _TIMES if info.get(name)), None))
        values = (kind, 0, 0, 0, 0, 0, info.get("size") or 0, 0, 0, 0)
        return os.stat_result(values, {"st_mtime_ns": time})

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is a file or folder."""
        return self._kind() != 0

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is a file."""
        return self._kind() == stat.S_IFREG

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is a folder."""
        return self._kind() == stat.S_IFDIR

    def read_bytes(self) -> bytes:
        """The whole content."""
        return cast(bytes, self._ask(lambda files, path: files.cat_file(path)))

    def read_text(self, encoding: str | None = None, *_: Any, **__: Any) -> str:
        """The whole content as text."""
        return self.read_bytes().decode(encoding or "utf-8")

    def open(  # type: ignore[override]
        self, mode: str = "r", buffering: int = -1, *_: Any, **__: Any
    ) -> IO[Any]:
        """Open the file for reading bytes; parts are fetched as they are read."""
        if mode != "rb":
            raise io.UnsupportedOperation(f"{self}: opened with mode {mode!r}, expected 'rb'")
        file = self._ask(lambda files, path: files.open(path, "rb", block_size=_BLOCK))
        return cast(IO[Any], _File(self, file))

    def list_anew(self) -> None:
        """Forget what was listed of the host, and list all below this folder in few requests."""
        self._ask(lambda files, path: files.invalidate_cache())
        # Of a folder that is not there, some libraries list nothing, others raise.
        with suppress(FileNotFoundError):
            self._ask(lambda files, path: files.find(path))

    def iterdir(self) -> Generator[Address, None, None]:
        """What lies in the folder."""
        _, folders, names = next(self.walk())
        yield from (self / name for name in sorted(folders + names))

    def glob(self, pattern: str, **_: Any) -> Generator[Address, None, None]:
        """Files below the folder that match a pattern; none if there is no such folder."""
        found: list[str] = []
        with suppress(FileNotFoundError):
            found = self._ask(lambda files, path: files.glob(f"{path.rstrip('/')}/{pattern}"))
        for name in found:
            yield Address(f"{self.parts[0]}//{name.lstrip('/')}")

    def rglob(self, pattern: str, **_: Any) -> Generator[Address, None, None]:
        """Files below the folder, at any depth, that match a pattern."""
        yield from self.glob(f"**/{pattern}")

    def walk(self, *_: Any, **__: Any) -> Iterator[tuple[Address, list[str], list[str]]]:
        """Folders from the top, with the names of the folders and files in each.

        As with ``os.walk``, a folder is left out if its name is taken out of the list.
        """
        folders: list[str] = []
        names: list[str] = []
        for entry in self._ask(lambda files, path: files.ls(path, detail=True)):
            # An object store may have an empty object in the place of a folder.
            if name := posixpath.basename(entry["name"]):
                (folders if entry["type"] == "directory" else names).append(name)
        yield self, folders, names
        for name in folders:
            yield from (self / name).walk()

    def read_from(self, start: int, length: int) -> bytes:
        """At most ``length`` bytes that begin at a position below the file's size."""
        content = self._ask(
            lambda files, path: files.cat_file(path, start=start, end=start + length)
        )
        return cast(bytes, content)

    def _kind(self) -> int:
        try:
            return stat.S_IFMT(self.stat().st_mode)
        except FileNotFoundError:
            return 0

    def _ask(self, question: Callable[[Any, str], Any]) -> Any:
        """Ask the host of the address, and tell a missing file from a host out of reach."""
        with _explained(self):
            files = _file_system(self.parts[0].rstrip(":"), os.getpid())
            return question(files, files._strip_protocol(str(self)))


class _File(io.RawIOBase):
    """An open file whose errors name its address."""

    def __init__(self, address: Address, file: Any) -> None:
        self._address, self._file = address, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        with _explained(self._address):
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


def as_path(path: str | PathLike[str]) -> Path:
    """A path as it is to be read: an ``Address`` where it is one.

    >>> as_path("s3://bucket/a.jpg"), Path("images") / "a.jpg"
    (Address('s3://bucket/a.jpg'), PosixPath('images/a.jpg'))

    Raises:
        InputError: If it is an address of a kind that is not read, or holds a password.
    """
    if isinstance(path, Address):
        return path
    text = os.fspath(path)
    if _SCHEME.match(text) is None:
        if other := _OTHER_SCHEME.match(text):
            raise InputError(
                f"addresses that begin with {other[1]}:// are not read; expected one of "
                f"{', '.join(f'{scheme}://' for scheme in _PACKAGES)}, or a path of this machine"
            )
        return Path(path)
    address = Address(text)
    if re.search("[:@]", address.parts[1]):
        raise InputError(
            f"an address that begins with {address.parts[0]}// holds a user or a password; leave "
            "them to environment variables or the configuration of the host's own tools"
        )
    return address


def require_local(path: str | PathLike[str], purpose: str) -> None:
    """Refuse an address where something is written.

    Raises:
        InputError: If it is one.
    """
    if isinstance(as_path(path), Address):
        raise InputError(
            f"{path}: {purpose} needs a folder of this machine, got an address; write it here, "
            "then copy the folder there"
        )


@contextmanager
def _explained(address: Address) -> Iterator[None]:
    """Turn what a library raises into ``FileNotFoundError`` or ``Unreachable``."""
    try:
        yield
    except Unreachable:
        raise
    except ImportError:
        if address.parts[0] == "s3:":
            raise MissingExtra("remote", f"reading {address}") from None
        package = _PACKAGES[address.parts[0].rstrip(":")]
        raise Unreachable(
            f"{address}: reading it needs an optional library; install it with: "
            f"pip install {package}"
        ) from None
    except (FileNotFoundError, NotADirectoryError) as error:
        if _code(error) == "NoSuchBucket":
            raise Unreachable(f"{address}: there is no such bucket: {address.parts[1]}") from None
        raise FileNotFoundError(errno.ENOENT, "no such file", str(address)) from None
    except IsADirectoryError:
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(address)) from None
    except PermissionError as error:
        raise Unreachable(
            f"{address}: no right to read it ({_reason(error)}); without a right to list, a host "
            "says the same of a missing file"
        ) from None
    except Exception as error:
        raise Unreachable(f"{address}: cannot be reached: {_reason(error)}") from None


def _code(error: Exception) -> str:
    response = getattr(error.__cause__, "response", None)
    # Other hosts' libraries have a response too, of another kind.
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _reason(error: Exception) -> str:
    """A library's message in one line, without what may be secret."""
    line = " ".join(str(error).split())
    return _SECRETS.sub("", f"{type(error).__name__}: {line}" if line else type(error).__name__)


@functools.lru_cache(maxsize=16)
def _file_system(scheme: str, process: int) -> Any:
    """The files of a host; one object for all threads, as they share what was listed.

    Args:
        scheme: Of the address.
        process: Id of this process: connections do not survive a fork.
    """
    import fsspec

    return fsspec.filesystem(scheme)


def _nanoseconds(time: Any) -> int:
    """A host's time in ns: a datetime, its text, or seconds; 0 if None."""
    if isinstance(time, str):
        time = datetime.datetime.fromisoformat(time.replace("Z", "+00:00"))
    if isinstance(time, datetime.datetime):
        if time.tzinfo is None:
            time = time.replace(tzinfo=datetime.timezone.utc)
        since = time - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        # Whole microseconds: a float of seconds would round.
        microseconds: int = since // datetime.timedelta(microseconds=1)
        return microseconds * 1000
    return 0 if time is None else int(float(time) * 1e9)
