"""Images and an index in a repository of a hub on this machine, through Hugging Face's client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_hub import LocalHub, serve
from pixel_images import PixelEncoder, write_images

from hardmine import addresses
from hardmine.datasets import load_images
from hardmine.errors import InputError, Unreachable
from hardmine.index import build_index, open_index

hub_client = pytest.importorskip("huggingface_hub", minversion="1.0")


def files_of(folder: Path, name: str) -> dict[str, bytes]:
    """Content of all files below a folder, by their paths below a folder with a name."""
    return {
        f"{name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with serve(LocalHub({})) as served, pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.ENDPOINT", served.endpoint)
        # The client makes it from the endpoint when it is imported.
        template = served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        patch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))
        addresses._file_system.cache_clear()
        hub_client.HfFileSystem.clear_instance_cache()
        yield served
    addresses._file_system.cache_clear()
    hub_client.HfFileSystem.clear_instance_cache()


def test_an_index_of_a_repository_is_that_of_a_folder(hub: LocalHub, tmp_path: Path) -> None:
    here = write_images(tmp_path / "train", 4)
    hub.files |= files_of(tmp_path / "train", "train")
    there = load_images("hf://org/small/train")
    assert (str(there.root), there.paths) == ("hf://org/small/train", here.paths)
    options = {"shard_size": 2, "batch_size": 2, "workers": 1}
    build_index(here, PixelEncoder(), tmp_path / "here.hmx", **options)
    build_index(there, PixelEncoder(), tmp_path / "there.hmx", **options)
    shards = files_of(tmp_path / "there.hmx" / "shards", "shards")
    assert len(shards) == 4
    assert shards == files_of(tmp_path / "here.hmx" / "shards", "shards")
    hub.files |= files_of(tmp_path / "there.hmx", "a.hmx")
    index = open_index("hf://org/small/a.hmx")
    assert (len(index), str(index.root)) == (4, "hf://org/small/train")


def test_what_is_not_there_is_said(hub: LocalHub) -> None:
    for missing in ("hf://org/other/train", "hf://org/small/val"):
        with pytest.raises(InputError, match=f"{missing}: no such file or folder"):
            load_images(missing)


def test_a_hub_out_of_reach_is_said(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="hf://org/small/train: cannot be reached"):
        load_images("hf://org/small/train")
