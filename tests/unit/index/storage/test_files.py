"""Files that are whole or absent after a crash."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hardmine.errors import HardmineError
from hardmine.index.storage.files import explain_os_errors, sha256_of, write_durably


@pytest.mark.parametrize(
    "chunks",
    [
        [],  # the empty file
        [b"abc", b"", b"d" * 3_000_000],
        [np.arange(12, dtype=np.int64).reshape(3, 4), bytearray(b"x")],
    ],
)
def test_content_and_record_of_a_file(tmp_path: Path, chunks: list[object]) -> None:
    record = write_durably(tmp_path, "file", chunks, scratch=tmp_path)
    content = b"".join(bytes(chunk) for chunk in chunks)  # type: ignore[call-overload]
    assert (tmp_path / "file").read_bytes() == content
    assert record.bytes == len(content)
    assert record.sha256 == hashlib.sha256(content).hexdigest() == sha256_of(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_content_is_synced_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The calls are recorded and still made: a test cannot cut the power, but can check their order.
    calls: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def watch_fsync(handle: int) -> None:
        calls.append(("fsync", str(Path(f"/proc/self/fd/{handle}").readlink())))
        fsync(handle)

    def watch_replace(source: Path, target: Path) -> None:
        calls.append(("replace", str(target)))
        assert source.read_bytes() == b"content"
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_replace)
    (tmp_path / "shards").mkdir()
    write_durably(tmp_path, "shards/file", [b"content"], scratch=tmp_path)
    assert calls == [
        ("fsync", str(tmp_path / f"file.{os.getpid()}.part")),
        ("replace", str(tmp_path / "shards" / "file")),
        ("fsync", str(tmp_path / "shards")),
    ]


def test_a_failure_leaves_the_old_file_and_no_temporary_file(tmp_path: Path) -> None:
    write_durably(tmp_path, "file", [b"old"], scratch=tmp_path)

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(HardmineError, match="the disk is full: free some space"):
        write_durably(tmp_path, "file", broken(), scratch=tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "smaller shard size"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, r"Permission denied; choose another folder"),
        (errno.EIO, r"Input/output error$"),  # nothing to advise
    ],
)
def test_an_os_error_is_explained(code: int, advice: str) -> None:
    with pytest.raises(HardmineError, match=advice), explain_os_errors("write a file"):
        raise OSError(code, os.strerror(code))
