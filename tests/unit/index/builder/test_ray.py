"""What a build on Ray decides without a cluster: where workers go, and what a node lacks."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import msgspec
import pytest
from pixel_images import PixelEncoder, write_images

from hardmine._version import __version__
from hardmine.encoders import load_encoder
from hardmine.errors import InputError
from hardmine.index.builder.build_folder import BuildFolder
from hardmine.index.builder.plan import Plan

pytest.importorskip("ray", reason="Ray is not installed (pip install 'hardmine[ray]')")

from hardmine.index.builder.on_ray import OnRay
from hardmine.index.builder.ray_cluster import places_of
from hardmine.index.builder.ray_worker import Setup, Worker


def node(name: str, *, cpus: float = 0, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    """A node as ``ray.nodes`` describes it, as far as it matters."""
    resources = {kind: count for kind, count in (("CPU", cpus), ("GPU", gpus)) if count}
    return {
        "NodeID": name,
        "NodeName": name,
        "NodeManagerHostname": "host",
        "Alive": alive,
        "Resources": {"memory": 1e9, **resources},
    }


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([], []),
        ([node("a")], []),  # a head that takes no work
        ([node("a", cpus=2), node("b", cpus=8, alive=False)], [("a", 1, 2, 0)]),
        ([node("a", cpus=40)], [("a", 3, 13, 0)]),
        # One worker to each GPU; nodes without one are left out.
        (
            [node("a", cpus=8), node("b", cpus=32, gpus=4), node("c", cpus=1, gpus=2)],
            [("b", 4, 8, 1), ("c", 2, 0, 1)],
        ),
    ],
)
def test_workers_go_to_gpus_or_else_to_cpus(
    nodes: list[dict[str, Any]], expected: list[tuple[str, int, int, int]]
) -> None:
    places = places_of(nodes)
    assert [(each.node_id, each.workers, each.cpus, each.gpus) for each in places] == expected
    assert all(each.name == f"{each.node_id} (host)" for each in places)


def test_what_a_node_lacks_is_said(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 2)
    encoder: Any = load_encoder("tiny", device="cpu")
    plan = Plan(-1, encoder.fingerprint, "none", 0, "float16", "", "", 2, 2, 0)
    (tmp_path / "out").mkdir()
    BuildFolder(tmp_path / "out").begin(plan)
    setup = Setup(
        folder=str(tmp_path / "out"),
        plan=plan,
        root=str(images.root),
        encoder=encoder.spec,
        batch_size=2,
        threads=1,
        sample="0.jpg",
        sha256=hashlib.sha256(images.read(0)).hexdigest(),
    )

    def lacks(version: str = __version__, **changes: Any) -> str:
        changed = msgspec.structs.replace(setup, **changes)
        return Worker().prepare(version, msgspec.json.encode(changed), None, 0)

    assert lacks() == ""
    assert lacks("9.9") == f"it has hardmine {__version__}, not 9.9; install the same version"
    assert "does not see the build in /nowhere; all nodes" in lacks(folder="/nowhere")
    assert "all nodes must see the images" in lacks(root=str(tmp_path / "elsewhere"))
    assert f"its {images.path(1)} is another file" in lacks(sample="1.jpg")
    fsspec.filesystem("memory").put(str(images.root), "/seen", recursive=True)
    assert lacks(root="memory://seen") == ""
    BuildFolder(tmp_path / "out").begin(other := msgspec.structs.replace(plan, encoder="other"))
    assert f"is {encoder.fingerprint}, not other; are its weights" in lacks(plan=other)


def test_what_cannot_travel_is_refused(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 2)
    encoder = load_encoder("tiny", device="cpu")
    with pytest.raises(InputError, match="by its name, but this encoder has none"):
        OnRay(None, images, PixelEncoder())
    lock = threading.Lock()
    with pytest.raises(InputError, match="cannot be sent to other nodes"):
        OnRay(None, replace(images, reader=lambda path: bytes(lock.locked())), encoder)
    held = bytes(2 << 20)
    with pytest.raises(InputError, match="holds 2 MiB, more than can be sent"):
        OnRay(None, replace(images, reader=lambda path: held), encoder)
