"""open_clip's weights are downloaded from a hub on this machine, whatever goes wrong."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from local_hub import LocalHub
from open_clip.pretrained import _PRETRAINED
from random_models import TEXT, VIT, random_model
from safetensors.torch import save

from hardmine.encoders import load_encoder
from hardmine.errors import WeightsUnavailable

ARCHITECTURE = "hardmine-test-hub-vit"
FILE = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Random weights of a small architecture, which open_clip is told of."""
    config = tmp_path_factory.mktemp("configs") / f"{ARCHITECTURE}.json"
    config.write_text(json.dumps({"embed_dim": 48, "vision_cfg": VIT, "text_cfg": TEXT}))
    open_clip.add_model_config(config)
    return save(random_model("vit").state_dict())


@pytest.fixture
def hub(content: bytes, empty_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """Holds the weights that open_clip is told are there."""
    monkeypatch.setitem(_PRETRAINED, ARCHITECTURE, {"mine": {"hf_hub": "org/small/"}})
    empty_hub.files = {FILE: content}
    return empty_hub


def load() -> Any:
    return load_encoder(f"{ARCHITECTURE}/mine", device="cpu")


def test_weights_are_downloaded_once_and_size_and_licence_are_said_before(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        encoder = load()
    megabytes = f"{len(hub.files[FILE]) / 1e6:,.1f} MB"
    assert f"downloading {FILE} of org/small: {megabytes}, licence mit" in caplog.text
    own = random_model("vit").state_dict()
    for name, tensor in encoder.model.state_dict().items():
        torch.testing.assert_close(tensor, own[name])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load().fingerprint == encoder.fingerprint
    assert hub.downloads == [FILE]


def test_a_connection_that_is_cut_goes_on_where_it_was(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client keeps whole chunks, of 10 MB; the file has 7.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 20)
    hub.cut_after = len(hub.files[FILE]) * 2 // 3
    load()
    assert hub.downloads == [FILE] * 2


def test_a_repository_with_its_configuration_is_downloaded_once(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"model_cfg": {"embed_dim": 48, "vision_cfg": VIT, "text_cfg": TEXT}}
    hub.files |= {"open_clip_config.json": json.dumps(config).encode(), "vocab.txt": b"of no use"}
    encoder: Any = load_encoder("hf-hub:org/small", device="cpu")
    assert sorted(hub.downloads) == ["open_clip_config.json", FILE, "vocab.txt"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_encoder("hf-hub:org/small", device="cpu").fingerprint == encoder.fingerprint


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"damaged": True}, "arrived damaged: its SHA-256 is not the hub's; try again"),
        ({"private": True}, "no such model, or it needs a login: hf auth login"),
        ({"claimed_size": 10**15}, "MB free; set HF_HUB_CACHE"),
        ({"files": {"README.md": b"none"}}, f"org/small has no {FILE} or"),
    ],
)
def test_a_failed_download_says_why_and_the_next_one_works(
    hub: LocalHub, content: bytes, trouble: dict[str, Any], message: str
) -> None:
    with hub.troubled(**trouble), pytest.raises(WeightsUnavailable, match=message):
        load()
    load()


def test_a_cache_that_cannot_be_written_is_named(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("a file where the cache should be")
    with pytest.raises(WeightsUnavailable, match=f"File exists.*{tmp_path / 'hub'}"):
        load()
