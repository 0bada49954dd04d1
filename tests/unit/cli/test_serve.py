"""``hardmine serve``: the address it prints, where it listens, and a whole run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from hardmine.cli import serve
from hardmine.cli.main import main
from hardmine.datasets import load_images
from hardmine.encoders import load_encoder
from hardmine.errors import InputError
from hardmine.index import build_index


@pytest.mark.parametrize(
    ("host", "address", "names"),
    [
        pytest.param("127.0.0.1", "http://127.0.0.1:80/?token=t", set(), id="this machine"),
        pytest.param("localhost", "http://localhost:80/?token=t", set(), id="by name"),
        pytest.param("::1", "http://[::1]:80/?token=t", set(), id="IPv6"),
        pytest.param("10.0.0.3", "http://10.0.0.3:80/?token=t", {"10.0.0.3"}, id="the network"),
        pytest.param(
            "0.0.0.0", f"http://{socket.gethostname()}:80/?token=t", {"0.0.0.0"}, id="any"
        ),
    ],
)
def test_the_address_can_be_called(host: str, address: str, names: set[str]) -> None:
    assert serve._address(host, 80, "t") == address
    own = {socket.gethostname().lower(), socket.getfqdn().lower()}
    assert serve._names(host) == (names | own if names else set())


def test_a_port_in_use_is_an_error() -> None:
    taken = serve._listen("127.0.0.1", 0)
    with taken, pytest.raises(InputError, match="give another --host or --port"):
        serve._listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError, match="0 to 65535, got 70000"):
        serve._listen("127.0.0.1", 70_000)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An index of eight scenes, and the file of their labels."""
    folder = tmp_path_factory.mktemp("scenes")
    assert main(["scenes", str(folder), "--images", "8"]) == 0
    ann = folder / "annotations" / "train.json"
    images = load_images(folder / "train" / "images", annotations=ann)
    index = folder / "train.hmx"
    build_index(images, load_encoder("tiny"), index, clusters="kmeans:2", workers=1)
    return str(index), str(ann)


def test_collecting(
    built: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table, the JSON and the export say the same; the budget and kept contexts count."""
    index, ann = built
    copies = shutil.copytree(Path(index).parent / "train" / "images", tmp_path / "pool")
    pool = tmp_path / "pool.hmx"
    build_index(load_images(copies), load_encoder("tiny"), pool, clusters="kmeans:2", workers=1)
    command = ["collect", index, "--ann", ann, "--budget", "5", "--pool"]
    assert main([*command, index]) == 1
    assert "0 of 6 images, 6 of which have labels and are left out" in capsys.readouterr().err
    command.append(str(pool))
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    chosen = [(one["id"], one["wish"]) for one in found["images"]]
    assert len({image for image, _ in chosen}) == len(chosen) == 5
    assert sum(one["num_chosen"] for one in found["wishes"]) == 5
    assert main(command) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(line[3], line[1]) for line in lines] == chosen
    file = tmp_path / "to-label.json"
    assert main([*command, "--export", "coco", "--out", str(file)]) == 0
    exported = json.loads(file.read_text())["annotations"]
    assert [one["image_id"] for one in exported] == [image for image, _ in chosen]
    keep = tmp_path / "kept"
    keep.mkdir()
    (keep / "contexts.yaml").write_text("miner: {contexts: [at night]}\n")
    assert main([*command, "--keep", str(keep), "--json"]) == 0
    wanted = json.loads(capsys.readouterr().out)["wishes"]
    assert {"name": "at night", "is_class": False}.items() <= wanted[-1].items()


def test_a_whole_run(built: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    index, ann = built
    capsys.readouterr()
    num_images = len(load_images(ann, check_files=False))
    assert main(["serve", index, "--detections", "none.json"]) == 2
    assert "give --val-ann" in capsys.readouterr().err
    command = [sys.executable, "-m", "hardmine.cli.main", "serve", index, "--ann", ann]
    with subprocess.Popen(
        [*command, "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as server:
        assert server.stdout is not None
        try:
            address = httpx.URL(server.stdout.readline().strip())
            assert address.host == "127.0.0.1"
            with httpx.Client(follow_redirects=True, trust_env=False, timeout=60) as browser:
                assert "Type what to look for" in browser.get(address).text
                asked = browser.post(
                    address.copy_with(raw_path=b"/api/questions"), json={"texts": ["a car"]}
                ).json()
                assert asked["num_found"] == num_images
                picture = browser.get(address.copy_with(raw_path=b"/images/0/small"))
                assert picture.headers["content-type"] == "image/jpeg"
            with httpx.Client(trust_env=False) as stranger:
                assert stranger.get(address.copy_with(query=b"")).status_code == 401
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
