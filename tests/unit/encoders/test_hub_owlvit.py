"""An OWL-ViT is downloaded from a hub on this machine, with its tokenizer, whatever goes wrong."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from local_hub import LocalHub
from random_owlvit import random_owlvit, word_tokenizer

from hardmine.encoders import load_encoder
from hardmine.encoders.owlvit import OwlVitEncoder
from hardmine.errors import WeightsUnavailable

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What transformers saves of a small model, and files that are of no use here."""
    folder = tmp_path_factory.mktemp("owlvit")
    random_owlvit().save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    saved = {path.name: path.read_bytes() for path in folder.iterdir()}
    return saved | {"README.md": b"about", "flax_model.msgpack": b"weights of another library"}


@pytest.fixture
def hub(files: dict[str, bytes], empty_hub: LocalHub) -> LocalHub:
    empty_hub.files = dict(files)
    return empty_hub


def load() -> Any:
    return load_encoder("owlvit/org/small", device="cpu", precision="fp32")


def test_a_model_is_downloaded_once_with_its_tokenizer(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        encoder = load()
    megabytes = f"{len(hub.files[WEIGHTS]) / 1e6:,.1f} MB"
    assert f"downloading {WEIGHTS} of org/small: {megabytes}, licence mit" in caplog.text
    own = OwlVitEncoder(random_owlvit(), word_tokenizer(), device="cpu", precision="fp32")
    assert encoder.fingerprint == own.fingerprint
    texts = ["a cat", "two dogs"]
    assert encoder.encode_texts(texts).equal(own.encode_texts(texts))
    assert sorted(hub.downloads) == sorted({*hub.files} - {"README.md", "flax_model.msgpack"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load().fingerprint == encoder.fingerprint


def test_a_connection_that_is_cut_goes_on_where_it_was(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 10)
    hub.cut_after = len(hub.files[WEIGHTS]) * 2 // 3
    load()
    assert hub.downloads.count(WEIGHTS) == 2


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        pytest.param({"damaged": True}, "arrived damaged: its SHA-256", id="a wrong hash"),
        pytest.param({"private": True}, "it needs a login: hf auth login", id="401"),
        pytest.param({"claimed_size": 10**15}, "set HF_HUB_CACHE", id="a full disk"),
        pytest.param(
            {"refused": frozenset({"tokenizer.json"})}, "config.json is not", id="half of it"
        ),
        pytest.param({"files": {"README.md": b"none"}}, f"has no {WEIGHTS} or", id="no weights"),
    ],
)
def test_a_failed_download_says_why_and_the_next_one_works(
    hub: LocalHub, trouble: dict[str, Any], message: str
) -> None:
    with hub.troubled(**trouble), pytest.raises(WeightsUnavailable, match=message):
        load()
    load()


def test_without_a_network_the_error_says_what_to_copy(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailable, match="HF_HUB_OFFLINE is set") as caught:
        load()
    assert "hf download org/small\n" in str(caught.value)
    assert f"copy the folder it makes to {tmp_path / 'hub' / 'models--org--small'}" in str(
        caught.value
    )
