"""Builds interrupted by kills, other builders, full disks and failing ranks."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pixel_images import FAST_FOLDER, PixelEncoder, as_nobody, folder_bytes, write_images

from hardmine.errors import HardmineError
from hardmine.index import build_index, open_index, update_index, verify_index

SUPPORT = Path(__file__).resolve().parents[1] / "support"


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A folder in memory if the system has one: a killed process loses nothing there either."""
    with tempfile.TemporaryDirectory(dir=FAST_FOLDER) as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    ("scenario", "min_steps"), [("build", 45), ("update", 55), ("compact", 30)]
)
def test_a_kill_at_any_step_loses_no_finished_shard(
    scenario: str, min_steps: int, memory_folder: Path
) -> None:
    process = subprocess.run(
        [sys.executable, str(SUPPORT / "index_killer.py"), scenario, str(memory_folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["problems"] == []
    assert report["steps"] >= min_steps
    assert report["kills"] > 0


def test_ranks_make_the_same_index_as_one_process(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 16, broken=[5])
    build_index(
        images.subset(range(13)),
        PixelEncoder(),
        tmp_path / "one",
        clusters="kmeans:2",
        shard_size=3,
        batch_size=2,
    )
    update_index(
        tmp_path / "one", images.subset(range(2, 16)), PixelEncoder(), shard_size=3, batch_size=2
    )
    with subprocess.Popen(
        [sys.executable, str(SUPPORT / "index_ranks.py"), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            messages = process.communicate(timeout=200)[1]
        finally:
            # Ranks that wait for each other would outlive their parent process.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, messages
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "one")
    # No rank waits for one that failed, and each reports the cause.
    zero = "integer division or modulo by zero"
    assert (tmp_path / "broadcast-0").read_text() == f"ZeroDivisionError: {zero}"
    assert (tmp_path / "broadcast-1").read_text() == f"HardmineError: {zero}"
    assert (tmp_path / "error-0").read_text() == "rank 1: out of memory"
    assert (tmp_path / "error-1").read_text() == "out of memory"


def test_a_second_builder_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 5)
    out = tmp_path / "out"
    hold = (
        "import sys, pathlib; from hardmine.index.builder.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(HardmineError, match=rf"another process \(process {holder.pid} on "):
            build_index(images, PixelEncoder(), out)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        # The lock file of the killed process is still there, and blocks nobody.
        assert (out / ".lock").exists()
        assert len(build_index(images, PixelEncoder(), out)) == 5
    assert not (out / ".lock").exists()


FIVE_AT_ONCE = """
import multiprocessing, sys
from pathlib import Path
from pixel_images import PixelEncoder, list_images
from hardmine.index import build_index

def work(number, barrier, root, out):
    images, encoder = list_images(root, range(6)), PixelEncoder()
    for _ in range(3):
        if number == 0:  # what a killed writer leaves: all five want to remove it
            (out / ".lock").touch()
            (out / "shards" / "00099.vectors.npy").write_bytes(b"unfinished")
        barrier.wait(30)
        assert len(build_index(images, encoder, out)) == 6

root, out = map(Path, sys.argv[1:])
context = multiprocessing.get_context("fork")
barrier = context.Barrier(5)
five = [context.Process(target=work, args=(n, barrier, root, out)) for n in range(5)]
for one in five:
    one.start()
for one in five:
    one.join(60)
sys.exit(any(one.exitcode != 0 for one in five))
"""


def test_five_builds_at_once_open_a_finished_index(tmp_path: Path) -> None:
    images, out = write_images(tmp_path / "images", 6), tmp_path / "out"
    build_index(images, PixelEncoder(), out)
    finished = folder_bytes(out)
    five = subprocess.run(
        [sys.executable, "-c", FIVE_AT_ONCE, str(tmp_path / "images"), str(out)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert five.returncode == 0, five.stderr
    assert len(build_index(images, PixelEncoder(), out)) == 6
    assert folder_bytes(out) == finished


@contextmanager
def files_no_longer_than(limit: int) -> Iterator[None]:
    """Make the system refuse longer files, as a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_is_explained_and_can_be_repeated(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 12)
    out, whole = tmp_path / "out", tmp_path / "whole"
    options = {"clusters": "none", "shard_size": 5}
    with files_no_longer_than(1000), pytest.raises(HardmineError, match=r"cannot write .*npy: "):
        build_index(images, PixelEncoder(), out, **options)  # type: ignore[arg-type]
    assert not list(out.rglob("*.part"))
    build_index(images, PixelEncoder(), out, **options)  # type: ignore[arg-type]
    build_index(images, PixelEncoder(), whole, **options)  # type: ignore[arg-type]
    assert folder_bytes(out) == folder_bytes(whole)


def test_a_full_disk_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 40)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=80k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        out = disk / "out"
        build_index(images.subset(range(8)), PixelEncoder(), out, clusters="none", shard_size=4)
        before = list(open_index(out).paths)
        with pytest.raises(HardmineError, match="disk is full: free some space"):
            update_index(out, images, PixelEncoder(), shard_size=4)
        assert list(open_index(out).paths) == before
        assert verify_index(out) == ()
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert len(update_index(out, images, PixelEncoder(), shard_size=4)) == 40
    finally:
        # Lazily: files stay mapped as long as an index of them is in memory.
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_read_only_index_opens_and_refuses_to_change() -> None:
    # Not tmp_path: its parents are closed to other users.
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        images = write_images(folder / "images", 6)
        out = folder / "out"
        build_index(images, PixelEncoder(), out)
        (out / ".lock").touch()  # left by a killed process
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        with as_nobody():
            assert len(open_index(out, encoder=PixelEncoder(), images=images)) == 6
            assert verify_index(out) == ()
            assert len(build_index(images, PixelEncoder(), out)) == 6
            assert len(update_index(out, images, PixelEncoder())) == 6
            with pytest.raises(HardmineError, match="Permission denied; choose another"):
                update_index(out, images.subset(range(5)), PixelEncoder())
            for target, resume in ((out, False), (folder / "other", True)):
                with pytest.raises(HardmineError, match="Permission denied; choose another"):
                    build_index(images, PixelEncoder(), target, resume=resume)
        folder.chmod(0o755)
        out.chmod(0o755)


def test_an_interrupted_build_raises_the_cause_and_continues(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 9)
    options = {"shard_size": 2, "batch_size": 2}
    seen: list[int] = []

    class StopError(Exception):
        pass

    def stop(progress: object) -> None:
        seen.append(progress.done)  # type: ignore[attr-defined]
        if len(seen) == 4:
            raise StopError

    with pytest.raises(StopError):
        build_index(images, PixelEncoder(), tmp_path / "out", progress=stop, **options)  # type: ignore[arg-type]
    with pytest.raises(HardmineError, match="is not finished: run the build again"):
        open_index(tmp_path / "out")
    seen.clear()
    build_index(
        images,
        PixelEncoder(),
        tmp_path / "out",
        progress=lambda progress: seen.append(progress.done),
        **options,  # type: ignore[arg-type]
    )
    # Progress starts with the images already done: at least the first two shards of two.
    assert seen[0] >= 6
    assert seen[-1] == 9
    build_index(images, PixelEncoder(), tmp_path / "whole", **options)  # type: ignore[arg-type]
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")
