"""``hardmine regions`` with an encoder whose regions are known."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hardmine.cli import main, regions
from hardmine.encoders.base import DenseFeatures

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class ColourEncoder:
    """A patch is the direction of its mean colour; a text is a colour's name."""

    dim = 3
    fingerprint = "colours"

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return (
            torch.from_numpy(np.array(image.resize((60, 40), Image.Resampling.NEAREST)))
            .permute(2, 0, 1)
            .float()
            / 255
        )

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        planes = torch.nn.functional.adaptive_avg_pool2d(batch, (4, 6)).permute(0, 2, 3, 1)
        return DenseFeatures(
            torch.nn.functional.normalize(planes, dim=-1),
            torch.nn.functional.normalize(batch.mean((2, 3)), dim=-1),
        )

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        vectors = torch.tensor([COLOURS[text] for text in texts]).float()
        return torch.nn.functional.normalize(vectors, dim=-1)


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """Left half red; right half green above, blue below."""
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[:, :150] = COLOURS["red"]
    pixels[:100, 150:] = COLOURS["green"]
    pixels[100:, 150:] = COLOURS["blue"]
    path = tmp_path / "flag.png"
    Image.fromarray(pixels).save(path)
    return path


def run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    regions.add_arguments(parser)
    args = parser.parse_args([str(word) for word in words])
    args.encoder = ColourEncoder()
    return regions.run(args)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def test_json_has_each_region_s_box_mass_and_score(
    flag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(flag, "--clusters", "agglomerative:k=3", "--query", "green", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {"region": 1, "box": [0, 0, 0.5, 1], "mass": 0.5, "score": 0},
        {"region": 2, "box": [0.5, 0, 1, 0.5], "mass": 0.25, "score": 1},
        {"region": 3, "box": [0.5, 0.5, 1, 1], "mass": 0.25, "score": 0},
    ]


def test_the_matching_region_is_bright(flag: Path, tmp_path: Path) -> None:
    plain, queried = tmp_path / "plain.png", tmp_path / "queried.png"
    assert run(flag, "--clusters", "agglomerative:k=3", "--out", plain) == 0
    assert run(flag, "--clusters", "agglomerative:k=3", "--query", "blue", "--out", queried) == 0
    narrow, wide = opened(plain), opened(queried)
    assert wide.width > narrow.width + 700
    # The second copy: bright where it is blue, dark elsewhere.
    left, top = 32 + 720 + 28, 32 + 96
    assert wide.getpixel((left + 540, top + 360)) == (0, 0, 255)
    assert max(wide.getpixel((left + 180, top + 240))) < 60
    assert max(wide.getpixel((left + 540, top + 120))) < 60


@pytest.mark.parametrize(
    "words",
    [
        ["--clusters", "pyramid:6+whole"],
        ["--clusters", "none", "--query", "red"],
        ["--clusters", "whole", "--query", "red"],
        ["--clusters", "kmeans:2/3,context=0.4+whole", "--query", "red"],
        ["--clusters", "boxes", "--box", "10,10,200,150", "--query", "red"],
    ],
)
def test_every_kind_of_region_is_drawn(flag: Path, tmp_path: Path, words: list[str]) -> None:
    page = tmp_path / "new" / "page.png"
    assert run(flag, *words, "--out", page) == 0
    assert opened(page).width > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to do"),
        (["--json", "--clusters", "kmean:3"], 'did you mean "kmeans"'),
        (["--json", "--clusters", "boxes"], "needs boxes"),
        (["--json", "--clusters", "boxes", "--box", "1,2,3"], "must be four numbers"),
    ],
)
def test_wrong_arguments_are_an_error(
    flag: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    from hardmine.errors import InputError

    with pytest.raises(InputError, match=message):
        run(flag, *words)


def test_a_missing_image_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["regions", "nowhere.jpg", "--json"]) == 2
    assert "nowhere.jpg" in capsys.readouterr().err
