"""Shards made by any worker, moved into the index by the one that holds the lock."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pixel_images import PixelEncoder, folder_bytes, write_images

from hardmine.errors import InputError, MissingExtra
from hardmine.index import build_index
from hardmine.index.builder.build_folder import BuildFolder
from hardmine.index.builder.executor import make_shard
from hardmine.index.builder.pipeline import Progress
from hardmine.index.builder.worker_folder import new_folder
from hardmine.records import ImageSet

OPTIONS: dict[str, Any] = {"clusters": "kmeans:2", "shard_size": 3, "batch_size": 2}


class ElsewhereEncoder(PixelEncoder):
    device = "meta"


class StopError(Exception):
    pass


def unfinished(tmp_path: Path) -> tuple[BuildFolder, ImageSet]:
    """A build of eight images with its first shard of three finished, and nothing else."""
    images = write_images(tmp_path / "images", 8, broken=[4])
    build_folder = BuildFolder(tmp_path / "out")

    def stop(progress: Progress) -> None:
        if progress.done == 3:
            while not build_folder.finished(range(1)):
                time.sleep(0.001)
            raise StopError

    with pytest.raises(StopError):
        build_index(images, ElsewhereEncoder(), build_folder.folder, progress=stop, **OPTIONS)
    return build_folder, images


def test_shards_made_apart_are_those_of_the_index_and_the_first_is_kept(tmp_path: Path) -> None:
    build_folder, images = unfinished(tmp_path)
    plan = build_folder.plan()
    assert plan is not None
    for number in (1, 2):
        # As a worker on another machine does it: only the images of its shard.
        part = images.subset(plan.rows(number))
        with new_folder(build_folder.path) as place:
            one = plan.only(number)
            made = make_shard(one, number, part, PixelEncoder(), place, batch_size=2)
            build_folder.accept(made, place)
        with new_folder(build_folder.path) as place:
            again = make_shard(one, number, part, PixelEncoder(1), place, batch_size=2)
            assert again.shard.vectors.sha256 != made.shard.vectors.sha256
            build_folder.accept(again, place)
    assert build_folder.pending(plan) == []
    build_index(images, PixelEncoder(), tmp_path / "out", **OPTIONS)
    build_index(images, PixelEncoder(), tmp_path / "whole", **OPTIONS)
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")


def test_going_on_leaves_what_a_living_worker_may_be_writing(tmp_path: Path) -> None:
    build_folder, images = unfinished(tmp_path)
    elsewhere = build_folder.path / "worker-otherhost-7-0a1b2c3d"
    elsewhere.mkdir()
    with new_folder(build_folder.path) as living:
        ended = living.with_name(f"{living.name}e")
        ended.mkdir()  # as after a kill: its lock is held by nobody
        (ended / "lock").touch()
        (living / "half.part").write_bytes(b"half")
        build_folder.resume()
        assert not ended.exists()
        assert (living / "half.part").exists()
        assert elsewhere.exists()
        # Once the index is finished, nobody may write to it.
        build_index(images, PixelEncoder(), tmp_path / "out", **OPTIONS)
        assert not build_folder.path.exists()


def test_shards_of_unlike_machines_are_told_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_folder, images = unfinished(tmp_path)
    (finished,) = build_folder.finished(range(9))
    assert finished.made_on.startswith("meta ")
    assert finished.made_on.endswith(f"torch {torch.__version__}")
    with caplog.at_level(logging.WARNING):
        build_index(images, PixelEncoder(), tmp_path / "out", **OPTIONS)
    assert "unlike threads or versions of torch (2 on unknown device " in caplog.text
    assert "; 1 on meta " in caplog.text


def test_an_executor_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_images(tmp_path / "images", 2)
    out = tmp_path / "out"
    with pytest.raises(InputError, match='None, "ray" or "ray:ADDRESS", got \'slurm\''):
        build_index(images, PixelEncoder(), out, executor="slurm")
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(MissingExtra, match=r"pip install 'hardmine\[ray\]'"):
            build_index(images, PixelEncoder(), out, executor="ray")
    assert not out.exists()
