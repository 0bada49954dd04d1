"""Builds on a Ray cluster of two nodes on this machine, which are lost and interrupted."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pixel_images import folder_bytes, write_images

from hardmine.datasets import load_images
from hardmine.encoders import load_encoder
from hardmine.index import build_index
from hardmine.index.builder.pipeline import Progress
from hardmine.records import ImageSet

pytest.importorskip("ray", reason="Ray is not installed (pip install 'hardmine[ray]')")

OPTIONS: dict[str, Any] = {"clusters": "kmeans:2", "shard_size": 1, "batch_size": 2}
STORE = 80_000_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        from ray.cluster_utils import Cluster

        made = Cluster()
        node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": STORE}
        try:
            made.add_node(**node, include_dashboard=False)
            made.add_node(**node)
        except Exception as error:  # Ray's own, without a class
            made.shutdown()
            pytest.skip(f"the machine is too busy to start Ray nodes: {error}")
        yield made
        made.shutdown()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As a worker of one CPU has: the number of threads decides the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    root = tmp_path_factory.mktemp("data") / "images"
    write_images(root, 40, broken=[5])
    return load_images(root, check_files=False)


@pytest.fixture(scope="module")
def expected(images: ImageSet) -> dict[str, bytes]:
    """The files of the index that this process makes."""
    out = images.root.parent / "one.hmx"
    build_index(images, load_encoder("tiny", device="cpu"), out, **OPTIONS)
    return folder_bytes(out)


@pytest.mark.slow
def test_two_nodes_make_the_same_index_though_a_worker_and_a_node_are_killed(
    cluster: Any,
    images: ImageSet,
    expected: dict[str, bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out.hmx"
    killed: list[str] = []
    seen: list[Progress] = []

    def kill(progress: Progress) -> None:
        seen.append(progress)
        if progress.done >= 3 and not killed:
            # The folder of a worker is named for its host, its process and a unique id.
            worker = next((out / ".build").glob("worker-*")).name
            os.kill(int(worker.split("-")[-2]), signal.SIGKILL)
            killed.append(worker)
        elif progress.done >= 9 and len(killed) == 1:
            (second,) = cluster.worker_nodes
            cluster.remove_node(second, allow_graceful=False)
            killed.append("node")

    encoder = load_encoder("tiny", device="cpu")
    address = f"ray:{cluster.address}"
    with caplog.at_level(logging.WARNING):
        build_index(images, encoder, out, executor=address, progress=kill, **OPTIONS)
    assert len(killed) == 2
    assert "lost a worker (" in caplog.text
    assert (seen[-1].done, seen[-1].total, seen[-1].skipped) == (40, 40, 1)
    assert folder_bytes(out) == expected


@pytest.mark.slow
def test_an_interrupted_command_leaves_a_build_that_goes_on(
    cluster: Any, images: ImageSet, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out.hmx"
    command = ["build", images.root, "--out", out, "--clusters", "kmeans:2", "--ray"]
    command += [cluster.address, "--shard-size", "1", "--batch-size", "2", "--device", "cpu"]
    with subprocess.Popen(
        [sys.executable, "-m", "hardmine.cli.main", "index", *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that starts the tests in the background has them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 300
        while not list(out.glob(".build/000*.json")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # As a terminal does it: to every process of the command.
        os.killpg(process.pid, signal.SIGINT)
        messages = process.communicate(timeout=200)[1]
    assert process.returncode == 130, messages
    assert messages.splitlines()[-1] == "hardmine index: interrupted"
    assert 0 < len(list(out.glob(".build/000*.json"))) < 40
    files = {path: path.stat().st_mtime_ns for path in out.glob("shards/*")}
    build_index(images, load_encoder("tiny", device="cpu"), out, **OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert folder_bytes(out) == expected
