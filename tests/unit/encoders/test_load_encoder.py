"""Loading encoders by name: known and unknown names, checkpoint files, unavailable weights."""

from __future__ import annotations

import json
import os
import pickle
import socket
import time
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from random_models import TEXT, VIT, random_model, tokenizer
from safetensors.torch import save_file
from torch import nn

from hardmine.encoders import hub, load_encoder
from hardmine.encoders.open_clip import OpenClipEncoder
from hardmine.errors import InputError, WeightsUnavailable

ARCHITECTURE = "hardmine-test-vit"


@pytest.fixture(scope="module", autouse=True)
def architecture(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Registers a small architecture in open_clip."""
    file = tmp_path_factory.mktemp("configs") / f"{ARCHITECTURE}.json"
    file.write_text(json.dumps({"embed_dim": 48, "vision_cfg": VIT, "text_cfg": TEXT}))
    open_clip.add_model_config(file)


@pytest.fixture(autouse=True)
def empty_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and a hub at an address without a server."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)


def vectors(encoder: Any) -> tuple[torch.Tensor, torch.Tensor]:
    batch = torch.randn((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    return encoder.encode_images(batch).patches, encoder.encode_texts(["a cat"])


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "lightning.ckpt.pt"])
def test_a_checkpoint_file_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    model = random_model("vit")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    file = tmp_path / f"mine.{suffix}"
    if suffix == "safetensors":
        save_file(state, file)
    elif suffix == "pt":
        torch.save(state, file)
    else:  # as open_clip's training saves it, with DistributedDataParallel
        wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": wrapped}, file)
    monkeypatch.chdir(tmp_path)
    encoder: Any = load_encoder(f"{ARCHITECTURE}/mine.{suffix}", image_size=96, dense="qq")
    own = OpenClipEncoder(model, tokenizer(), image_size=96, dense="qq")
    assert encoder.fingerprint == own.fingerprint
    for one, other in zip(vectors(encoder), vectors(own), strict=True):
        torch.testing.assert_close(one, other)
    # The spec is JSON with an absolute path, and loads the encoder from any working directory.
    monkeypatch.chdir("/")
    again: Any = load_encoder(**json.loads(json.dumps(encoder.spec)))
    assert again.fingerprint == encoder.fingerprint
    assert again.spec == encoder.spec
    for one, other in zip(vectors(encoder), vectors(again), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4:UserWarning")
def test_a_checkpoint_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "it ran"),))

    file = tmp_path / "evil.pt"
    torch.save({"state_dict": {"weight": Evil()}}, file)
    with pytest.raises(InputError, match="must contain only tensors"):
        load_encoder(f"{ARCHITECTURE}/{file}")
    file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError):
        load_encoder(f"{ARCHITECTURE}/{file}")
    assert not (tmp_path / "it ran").exists()


def test_a_checkpoint_of_another_architecture_is_an_error(tmp_path: Path) -> None:
    other = random_model("vit", width=32, head_width=16)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=f"does not load as a checkpoint of {ARCHITECTURE}"):
        load_encoder(f"{ARCHITECTURE}/{tmp_path}/other.safetensors")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4:UserWarning")
@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"\x80\x04}."])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_broken_checkpoint_is_an_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"broken.{suffix}"
    file.write_bytes(content)
    with pytest.raises(InputError, match=str(file)):
        load_encoder(f"{ARCHITECTURE}/{file}")


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file:UserWarning")
def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "program.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)
    with pytest.raises(InputError, match="TorchScript program"):
        load_encoder(f"{ARCHITECTURE}/{file}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tinny", "unknown encoder 'tinny'; similar known names: tiny"),
        ("RN50x6/openai", "unknown encoder 'RN50x6/openai'; similar known names: RN50x64/openai"),
        ("ViT-B-16", "needs the name of its weights; similar known names: ViT-B-16/"),
        ("ViT-B-16/laion2b_s34b_b88", "similar known names: ViT-B-16/laion2b_s34b_b88k"),
        ("ViT-B-16/gone.pt", "no file .*gone.pt"),
        ("local-dir:/nowhere", "must contain open_clip_config.json"),
        ("precomputed:/nowhere.npz", "cannot be read"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_encoder(name)


@pytest.mark.parametrize(
    ("name", "file", "advice"),
    [
        ("RN50x64/openai", "open_clip_model.safetensors", "RN50x64-quickgelu/PATH/"),
        ("ViT-B-16/laion2b_s34b_b88k", "open_clip_model.safetensors", "ViT-B-16/PATH/"),
        ("MobileCLIP-S1/datacompdr", "open_clip_model.safetensors", "MobileCLIP-S1/PATH/"),
        ("hf-hub:org/model", "open_clip_model.safetensors", ""),
        ("owlvit/google/owlvit-base-patch32", "model.safetensors", ""),
    ],
)
def test_unavailable_weights(name: str, file: str, advice: str) -> None:
    start = time.monotonic()
    with pytest.raises(WeightsUnavailable) as caught:
        load_encoder(name)
    message = str(caught.value)
    for part in (name, file, advice, "does not answer", "hf download", "'tiny' needs no download"):
        assert part in message
    assert time.monotonic() - start < 20  # the hub's own client would retry for half a minute


def test_a_hub_that_does_not_answer_times_out_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        start = time.monotonic()
        assert "does not answer" in hub.unreachable()
    assert time.monotonic() - start < 5


def test_hf_hub_offline_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailable, match="HF_HUB_OFFLINE is set"):
        load_encoder("RN50/openai")


def cache(tmp_path: Path, repository: str, files: dict[str, Any]) -> None:
    """Write files as the hub's client stores them in its cache."""
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    for name, content in files.items():
        if isinstance(content, dict) and name.endswith(".safetensors"):
            save_file(content, snapshot / name)
        else:
            (snapshot / name).write_text(json.dumps(content))


def test_a_cached_tag_has_its_activation_and_preprocessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's weights need QuickGELU, which the name RN50 does not say."""
    from open_clip.pretrained import _PRETRAINED

    config = {"hf_hub": "org/small/", "quick_gelu": True, "mean": (0.5, 0.4, 0.3), "std": (1, 1, 1)}
    config["interpolation"] = "bilinear"
    monkeypatch.setitem(_PRETRAINED, ARCHITECTURE, {"mine": config})
    model = random_model("vit", quick_gelu=True)
    cache(tmp_path, "org/small", {"open_clip_model.safetensors": model.state_dict()})
    encoder: Any = load_encoder(f"{ARCHITECTURE}/mine")
    assert encoder.preprocess.mean == (0.5, 0.4, 0.3)
    assert encoder.preprocess.interpolation == "bilinear"
    own = OpenClipEncoder(model, tokenizer())
    for one, other in zip(vectors(encoder), vectors(own), strict=True):
        torch.testing.assert_close(one, other)
    # A checkpoint file, where all known weights of the architecture have the same preprocessing.
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    from_file: Any = load_encoder(f"{ARCHITECTURE}/{tmp_path}/mine.safetensors")
    assert from_file.preprocess == encoder.preprocess


@pytest.mark.parametrize("kind", ["hf-hub", "local-dir"])
def test_a_folder_with_a_configuration_loads(tmp_path: Path, kind: str) -> None:
    model = random_model("vit")
    config = {
        "model_cfg": {"embed_dim": 48, "vision_cfg": VIT, "text_cfg": TEXT},
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    }
    files = {"open_clip_config.json": config, "open_clip_model.safetensors": model.state_dict()}
    cache(tmp_path, "org/small", files)
    snapshot = tmp_path / "hub" / "models--org--small" / "snapshots" / ("0" * 40)
    encoder: Any = load_encoder("hf-hub:org/small" if kind == "hf-hub" else f"local-dir:{snapshot}")
    assert encoder.preprocess.mean == (0.5, 0.5, 0.5)
    own = OpenClipEncoder(model, tokenizer())
    for one, other in zip(vectors(encoder), vectors(own), strict=True):
        torch.testing.assert_close(one, other)
    assert load_encoder(**encoder.spec).fingerprint == encoder.fingerprint


def test_an_encoder_object_is_returned_unchanged() -> None:
    encoder = OpenClipEncoder(random_model("vit"), tokenizer())
    assert load_encoder(encoder) is encoder
    assert encoder.spec is None


def test_an_object_that_is_not_an_encoder_is_an_error() -> None:
    with pytest.raises(InputError, match="Linear lacks"):
        load_encoder(nn.Linear(2, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize(("device", "said"), [("gpu", "must be like"), ("cuda:64", "is not here")])
def test_a_device_that_is_not_here_is_refused(device: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_encoder("tiny", device=device)
