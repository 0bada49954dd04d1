"""HTML pages with one layout and one way to show an image and its match.

A page is a template of this folder that extends ``page.html`` and may import the macros of
``parts.html``. All values are escaped. Pictures, style and script are inside the file, and its
content security policy forbids every request. A server gives another ``layout``, which links them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from hardmine._version import __version__
from hardmine.datasets import open_image
from hardmine.errors import InputError
from hardmine.records import ImageSet

_FOLDER = Path(__file__).parent
# Aspect ratios. A photo beyond them is shown with bars at its sides.
_WIDEST, _TALLEST = 2.4, 0.62


@dataclass(frozen=True)
class Mark:
    """A region to draw on an image.

    Attributes:
        box: xyxy as shares of the image's width and height; clipped to it.
        tone: Its style: "match" or "doubt".
    """

    box: Sequence[float]
    tone: str = "match"

    @property
    def style(self) -> str:
        """Its position, as CSS."""
        left, top, right, bottom = (min(max(float(edge), 0.0), 1.0) for edge in self.box)
        return (
            f"left:{100 * left:.2f}%;top:{100 * top:.2f}%;"
            f"width:{100 * max(right - left, 0.0):.2f}%;"
            f"height:{100 * max(bottom - top, 0.0):.2f}%"
        )


@dataclass(frozen=True)
class Thumbnail:
    """A small copy of an image inside the page.

    Attributes:
        uri: ``data:`` URI; empty where the image cannot be shown.
        width: Of the small copy, in pixels.
        height: Of the small copy, in pixels.
        problem: Why the image cannot be shown; else empty.
    """

    uri: str
    width: int = 4
    height: int = 3
    problem: str = ""

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width / self.height

    @property
    def shown_aspect(self) -> float:
        """Width over height of its frame on the page."""
        return min(max(self.aspect, _TALLEST), _WIDEST)


def thumbnail(image: Path | Image.Image, *, side: int = 480, quality: int = 80) -> Thumbnail:
    """Shrink an image for a page; a missing or broken one becomes a note, not an error.

    Args:
        image: A file, or a decoded RGB image.
        side: Longest side in pixels; smaller images are not enlarged.
        quality: Of the JPEG, 1 to 95.
    """
    try:
        jpeg, size = small_jpeg(image, side=side, quality=quality)
    except InputError as error:
        return Thumbnail("", problem=str(error))
    data = base64.b64encode(jpeg).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{data}", *size)


def small_jpeg(
    image: Path | Image.Image, *, side: int, quality: int
) -> tuple[bytes, tuple[int, int]]:
    """Shrink an image: a JPEG file, and its width and height.

    Args:
        image: A file, or a decoded RGB image.
        side: Longest side in pixels; smaller images are not enlarged.
        quality: Of the JPEG, 1 to 95.

    Raises:
        InputError: If the file is missing or broken.
    """
    small = open_image(image) if isinstance(image, Path) else image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
    return buffer.getvalue(), small.size


def thumbnail_of(
    images: Path | ImageSet, path: str, *, side: int = 480, quality: int = 80
) -> Thumbnail:
    """Shrink an image of a folder or of an image set, which opens it wherever it is kept.

    Args:
        images: The folder, or the set.
        path: The image's path in it.
        side: As of ``thumbnail``.
        quality: As of ``thumbnail``.
    """
    if isinstance(images, Path):
        return thumbnail(images / path, side=side, quality=quality)
    try:
        image = images.open(images.paths.index(path))
    except InputError as error:
        return Thumbnail("", problem=str(error))
    except ValueError:
        return Thumbnail("", problem=f"{path}: no such image in the set")
    return thumbnail(image, side=side, quality=quality)


def render_page(template: str, **values: Any) -> str:
    """Render a template of this folder.

    Args:
        template: File name, such as ``"search_page.html"``.
        values: The template's variables; a missing one is an error.
    """
    return page_environment().get_template(template).render(**values)


@cache
def page_environment(*folders: Path) -> jinja2.Environment:
    """Where templates are found and how they are rendered.

    Args:
        folders: Of templates beside those of this folder, which may extend and import these.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_FOLDER, *folders]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = _asset
    environment.globals["version"] = __version__
    return environment


def _asset(name: str) -> str:
    """The text of a style sheet or script of this folder, to be put inside its element."""
    return (_FOLDER / name).read_text(encoding="utf-8")
