"""Parts of pages: thumbnails, marks, escaping."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import jinja2
import pytest
from PIL import Image

from hardmine.datasets import images_from
from hardmine.report.page import Mark, Thumbnail, render_page, thumbnail, thumbnail_of


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param((40, 30), (40, 30), id="small ones keep their size"),
        pytest.param((1000, 500), (480, 240), id="wide"),
        pytest.param((300, 2400), (60, 480), id="tall"),
    ],
)
def test_thumbnail(size: tuple[int, int], expected: tuple[int, int]) -> None:
    small = thumbnail(Image.new("RGB", size, (200, 30, 60)))
    kind, _, data = small.uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as decoded:
        assert decoded.size == expected == (small.width, small.height)
        red, green, blue = decoded.convert("RGB").getpixel((5, 5))
    assert abs(red - 200) + abs(green - 30) + abs(blue - 60) < 12
    assert 0.6 < small.shown_aspect < 2.5


def test_an_unreadable_picture_becomes_a_note(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    for name in ("broken.jpg", "missing.jpg"):
        small = thumbnail(tmp_path / name)
        assert small.uri == ""
        assert name in small.problem


def test_pictures_of_a_set_that_are_no_files() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "PNG")
    contents = {"a": buffer.getvalue(), "b": b"no picture"}
    images = images_from(["a", "b"], reader=contents.__getitem__)
    assert (thumbnail_of(images, "a").width, thumbnail_of(images, "a").height) == (40, 30)
    assert "b: cannot be decoded" in thumbnail_of(images, "b").problem
    assert thumbnail_of(images, "c").problem == "c: no such image in the set"


def test_marks_stay_inside_the_picture() -> None:
    style = Mark([-0.5, 0.25, 0.5, 2.0]).style
    assert style == "left:0.00%;top:25.00%;width:50.00%;height:75.00%"


def test_a_missing_template_variable_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render_page("search_page.html", title="no results given")


def test_everything_is_escaped() -> None:
    page = render_page("search_page.html", title="<script>alert(1)</script>", about=[], results=[])
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_thumbnail_without_picture_has_an_aspect() -> None:
    assert Thumbnail("").aspect == pytest.approx(4 / 3)
