"""Images and indexes in a bucket: a real server that speaks S3, moto's, on this machine."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pixel_images import PixelEncoder, write_image

from hardmine import addresses
from hardmine.cli.main import main
from hardmine.datasets import load_images, open_image
from hardmine.errors import InputError, MissingExtra, Unreachable
from hardmine.index import build_index, open_index, read_manifest, update_index
from hardmine.index.builder.pipeline import Progress
from hardmine.index.storage.read import read_images

s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'hardmine[remote]'")
moto_server = pytest.importorskip("moto.server", reason="moto[server] is not installed")

SECRET = "not-for-any-message"
OPTIONS = {"shard_size": 4, "batch_size": 2, "workers": 2}


@dataclass
class Bucket:
    """A bucket ``photos`` with 12 images in ``train``, and a folder with the same."""

    server: Any
    files: Any
    folder: Path

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        """Serve again at the same port; moto keeps its buckets in this process."""
        host, port = self.server.get_host_and_port()
        self.server = moto_server.ThreadedMotoServer(host, port, verbose=False)
        self.server.start()

    def require_rights(self, *, after: float) -> None:
        """Refuse all keys, as none is known, after some requests."""
        host, port = self.server.get_host_and_port()
        request = urllib.request.Request(
            f"http://{host}:{port}/moto-api/reset-auth",
            data=str(after).encode(),
            headers={"Content-Type": "text/plain"},
        )
        urllib.request.urlopen(request).close()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        write_image(folder / "train" / f"{number}.jpg", seed=number)
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setenv("HARDMINE_CACHE", str(folder / "cache"))
        patch.setattr(s3fs.S3FileSystem, "retries", 1)
        addresses._file_system.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()
        files = s3fs.S3FileSystem(skip_instance_cache=True)
        files.mkdir("photos")
        files.put(str(folder / "train"), "photos/train", recursive=True)
        made = Bucket(server, files, folder)
        yield made
        made.server.stop()
        addresses._file_system.cache_clear()


def labels(folder: Path) -> Path:
    """A COCO file of the images: one box each."""
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 24, "width": 32} for n in range(12)]
    boxes = [
        {"id": n + 1, "image_id": n, "category_id": 1, "bbox": [1, 2, 8, 9], "area": 72}
        for n in range(12)
    ]
    file = folder / "instances.json"
    names = [{"id": 1, "name": "car"}]
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": names}))
    return file


def test_an_index_of_a_bucket_is_that_of_a_folder(bucket: Bucket, tmp_path: Path) -> None:
    file, encoder = labels(tmp_path), PixelEncoder()
    bucket.files.put(str(file), "photos/instances.json")
    here = load_images(bucket.folder / "train", annotations=file)
    there = load_images("s3://photos/train", annotations="s3://photos/instances.json")
    assert str(there.root) == "s3://photos/train"
    assert (there.paths, there.fingerprint) == (here.paths, here.fingerprint)
    build_index(here, encoder, tmp_path / "here.hmx", **OPTIONS)
    index = build_index(there, encoder, tmp_path / "there.hmx", **OPTIONS)
    shards = sorted((tmp_path / "here.hmx" / "shards").iterdir())
    assert len(shards) == 6
    for shard in shards:
        made = tmp_path / "there.hmx" / "shards" / shard.name
        assert made.read_bytes() == shard.read_bytes()
    np.testing.assert_array_equal(
        np.asarray(open_image(index.root / index.paths[3])), np.asarray(here.open(3))
    )

    write_image(bucket.folder / "changed.jpg", seed=99)
    bucket.files.put(str(bucket.folder / "changed.jpg"), "photos/train/3.jpg")
    bucket.files.rm("photos/train/5.jpg")
    try:
        with pytest.raises(InputError, match=r"missing below s3://photos/train: 5\.jpg"):
            load_images("s3://photos/train", annotations=file)
        listed = load_images("s3://photos/train", annotations=file, check_files=False)
        updated = update_index(tmp_path / "there.hmx", listed, encoder, **OPTIONS)
        assert len(updated) == 11
        table = read_images(tmp_path / "there.hmx", read_manifest(tmp_path / "there.hmx"))
        assert [fact.problem for fact in table.facts if fact.problem] == ["no such image file"]
        assert [path for path, shard in zip(table.paths, table.shards, strict=True) if shard > 2]
        assert table.shards.tolist() == [0, 0, 0, 3, 1, -1, 1, 1, 2, 2, 2, 2]
    finally:
        for number in (3, 5):
            bucket.files.put(
                str(bucket.folder / "train" / f"{number}.jpg"), f"photos/train/{number}.jpg"
            )


@pytest.mark.parametrize("broken_by", ["network", "rights"])
def test_a_host_out_of_reach_breaks_no_image(
    bucket: Bucket, tmp_path: Path, broken_by: str
) -> None:
    images, encoder = load_images("s3://photos/train"), PixelEncoder()

    def leave(progress: Progress) -> None:
        if progress.fresh == 4:
            bucket.stop() if broken_by == "network" else bucket.require_rights(after=0)

    try:
        with pytest.raises(Unreachable, match="s3://photos/train/") as caught:
            build_index(images, encoder, tmp_path / "a.hmx", progress=leave, **OPTIONS)
        assert SECRET not in str(caught.value)
        with pytest.raises(Unreachable):
            open_index("s3://photos/none.hmx")
    finally:
        if broken_by == "network":
            bucket.start()
        else:
            bucket.require_rights(after=float("inf"))
    assert not (tmp_path / "a.hmx" / "manifest.json").exists()
    shards = tmp_path / "a.hmx" / "shards"
    first = {path.name: path.stat().st_mtime_ns for path in shards.glob("00000.*")}
    assert len(first) == 2
    index = build_index(images, encoder, tmp_path / "a.hmx", **OPTIONS)
    assert len(index) == 12
    assert {path.name: path.stat().st_mtime_ns for path in shards.glob("00000.*")} == first


def test_what_is_not_there_is_said(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable, match="no such bucket: other"):
        load_images("s3://other/train")
    with pytest.raises(InputError, match="s3://photos/val: no such file or folder"):
        load_images("s3://photos/val")
    with pytest.raises(InputError, match=r"s3://photos/train/99\.jpg: no such image file"):
        open_image("s3://photos/train/99.jpg")
    monkeypatch.setattr(addresses, "_file_system", lambda *_: __import__("no_such_package"))
    with pytest.raises(MissingExtra, match=r"pip install 'hardmine\[remote\]'"):
        load_images("s3://photos/train")


def test_commands_take_addresses(
    bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.hmx"
    assert main(["index", "build", "s3://photos/train", "--out", str(out), "--limit", "4"]) == 0
    bucket.files.put(str(out), "photos/a.hmx", recursive=True)
    page = tmp_path / "hits.html"
    assert main(["search", "s3://photos/a.hmx", "a car", "-k", "4", "--html", str(page)]) == 0
    assert page.read_text().count("data:image/jpeg") == 4
    assert main(["index", "verify", "s3://photos/a.hmx"]) == 0
    assert main(["index", "info", "s3://photos/a.hmx"]) == 0
    assert "s3://photos/train" in capsys.readouterr().out
    assert main(["index", "join", str(tmp_path / "all.hmx"), str(out)]) == 0
    bucket.files.put(str(tmp_path / "all.hmx"), "photos/all.hmx", recursive=True)
    capsys.readouterr()
    assert main(["search", "s3://photos/all.hmx", "a car", "-k", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["root"] == "s3://photos/train"
    assert len(found["queries"][0]["hits"]) == 4


@pytest.mark.parametrize(
    "command",
    [
        ["index", "build", ".", "--out", "s3://photos/b.hmx"],
        ["index", "join", "s3://photos/b.hmx", "a.hmx"],
        ["scenes", "s3://photos/scenes"],
        ["demo", "--out", "s3://photos/demo"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_what_is_written_here_is_not_written_to_an_address(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_image(tmp_path / "a.png", 0)
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    assert "needs a folder of this machine" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
