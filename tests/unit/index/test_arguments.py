"""A name or a folder where an object is expected is an error that says how to make the object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pixel_images import PixelEncoder, list_images

from hardmine.errors import InputError
from hardmine.index import build_index, index_from_regions, open_index, update_index
from hardmine.index.arguments import require_encoder, require_images, require_index

IMAGES, ENCODER = list_images(Path("none"), range(2)), PixelEncoder()
TINY = r"encoder must be an encoder, got 'tiny': use hardmine.load_encoder\('tiny'\)"
SCENES = r"images must be an ImageSet, got 'scenes': use hardmine.load_images\('scenes'\)"


def build(images: Any, encoder: Any, out: Path) -> Any:
    return build_index(images, encoder, out)


def update(images: Any, encoder: Any, out: Path) -> Any:
    return update_index(out, images, encoder)


def opened(images: Any, encoder: Any, out: Path) -> Any:
    return open_index(out, images=images, encoder=encoder)


@pytest.mark.parametrize("use", [build, update, opened])
@pytest.mark.parametrize(
    ("images", "encoder", "message"),
    [
        pytest.param("scenes", ENCODER, SCENES, id="a folder as text"),
        pytest.param(Path("scenes"), ENCODER, SCENES, id="a folder"),
        pytest.param(["a.jpg"], ENCODER, r"\['a.jpg'\]: use hardmine.load_images", id="a list"),
        pytest.param(IMAGES, "tiny", TINY, id="the name of an encoder"),
        pytest.param(IMAGES, 3, "an encoder, got 3: use hardmine.load_encoder", id="a number"),
    ],
)
def test_it_is_refused_before_anything_is_written(
    use: Any, images: Any, encoder: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        use(images, encoder, tmp_path / "x.hmx")
    assert list(tmp_path.iterdir()) == []


def test_objects_pass_and_an_index_is_told_from_its_folder() -> None:
    require_images(IMAGES)
    require_encoder(ENCODER)
    require_index(index_from_regions([[1.0]], [0, 1], ids=[1]))
    with pytest.raises(InputError, match=r"got 'x.hmx': use hardmine.open_index\('x.hmx'\)"):
        require_index("x.hmx")
