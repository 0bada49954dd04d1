"""A picture of an image's regions and of their similarity to a text."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hardmine.records import Regions

_SIDE = 720  # of the image on the page
_MARGIN, _GAP, _ROW = 32, 28, 30
_LIST_WIDTH = 330
_BACKGROUND, _TEXT, _SOFT, _LINE = "#fbfbfa", "#1d1d1b", "#66655f", "#e3e2de"


def draw_regions(
    image: Image.Image,
    regions: Regions,
    *,
    title: str,
    subtitle: str = "",
    scores: npt.NDArray[np.float32] | None = None,
    query: str = "",
) -> Image.Image:
    """Draw an image with its regions in colour, beside a list of them.

    With scores, a second copy is bright where the image is similar to the query, and the list is
    sorted by score; else it is sorted by mass. Regions that overlap are drawn as boxes.

    Args:
        image: RGB.
        regions: Of this image alone, with ``labels`` where they partition it.
        title: First line of the page.
        subtitle: Second line.
        scores: (R,) cosine similarity of each region to the query, higher = more similar.
        query: The text that the scores belong to.
    """
    scale = _SIDE / max(image.size)
    shown = image.convert("RGB").resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))),
        Image.Resampling.LANCZOS,
    )
    mass = regions.mass.cpu().numpy()
    order = np.argsort(-(mass if scores is None else scores), kind="stable")
    # The list is as long as the picture is high; further regions are only counted.
    num_rows = max(10, (shown.height - 2 * _ROW) // _ROW)
    listed = order[: len(order) if len(order) <= num_rows else num_rows - 1]
    colours = _colours(len(regions))
    pictures = [_coloured(shown, regions, colours, listed)]
    if scores is not None:
        pictures.append(_brightened(shown, regions, scores, order))
    width = 2 * _MARGIN + len(pictures) * (shown.width + _GAP) + _LIST_WIDTH
    height = 2 * _MARGIN + 96 + max(shown.height, _ROW * (min(len(order), num_rows) + 2))
    page = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN - 6), _fit(title, width, 26), _TEXT, _font(26))
    draw.text((_MARGIN, _MARGIN + 30), _fit(subtitle, width, 16), _SOFT, _font(16))
    top = _MARGIN + 96
    captions = ["regions", f"similarity to “{query}”"]
    for place, picture in enumerate(pictures):
        left = _MARGIN + place * (shown.width + _GAP)
        draw.text((left, top - 28), _fit(captions[place], shown.width, 16), _SOFT, _font(16))
        page.paste(picture, (left, top))
    left = _MARGIN + len(pictures) * (shown.width + _GAP)
    _list(draw, left, top, listed, mass, scores, colours, len(order) - len(listed))
    return page


def _coloured(
    shown: Image.Image,
    regions: Regions,
    colours: Sequence[tuple[int, int, int]],
    listed: npt.NDArray[np.int64],
) -> Image.Image:
    """The image with its regions: filled if they partition it, else outlined."""
    if regions.labels is None:
        picture = _dimmed(shown, 0.8)
        draw = ImageDraw.Draw(picture)
        boxes = _pixels(regions, shown)
        for region in listed[::-1].tolist():  # the first of the list on top
            draw.rectangle(boxes[region], outline=colours[region], width=3)
        for region in listed[::-1].tolist():
            x, y, _, _ = boxes[region]
            _badge(draw, (x + 16, y + 14), str(region + 1), colours[region])
        return picture
    region_of = _on_pixels(regions.labels[0].cpu().numpy(), shown)
    tint = np.array(colours, dtype=np.float32)[region_of]
    pixels = np.asarray(shown, dtype=np.float32)
    grey = pixels.mean(2, keepdims=True)
    pixels = 0.48 * (0.5 * pixels + 0.5 * grey) + 0.52 * tint
    picture = Image.fromarray(_with_borders(pixels, region_of).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for region in range(int(region_of.max()) + 1):
        centre = _innermost(region_of == region)
        _badge(draw, centre, str(region + 1), colours[region])
    return picture


def _brightened(
    shown: Image.Image,
    regions: Regions,
    scores: npt.NDArray[np.float32],
    order: npt.NDArray[np.int64],
) -> Image.Image:
    """The image, dark where its regions score lowest; the best region is framed."""
    low, high = float(scores.min()), float(scores.max())
    light = (scores - low) / max(high - low, 1e-6)
    best = int(order[0])
    if regions.labels is None:
        brightness = np.zeros((shown.height, shown.width), np.float32)
        boxes = _pixels(regions, shown)
        for region in order[::-1].tolist():
            left, top, right, bottom = boxes[region]
            part = brightness[top:bottom, left:right]
            np.maximum(part, light[region], out=part)
        is_best = np.zeros(brightness.shape, np.int64)
        left, top, right, bottom = boxes[best]
        is_best[top:bottom, left:right] = 1
    else:
        region_of = _on_pixels(regions.labels[0].cpu().numpy(), shown)
        brightness = light[region_of]
        # The whole-image region has no pixels of its own: if it is the best, there is no frame.
        is_best = (region_of == best).astype(np.int64)
    pixels = np.asarray(shown, dtype=np.float32)
    pixels = pixels * (0.14 + 0.86 * brightness[..., None] ** 1.5)
    return Image.fromarray(_with_borders(pixels, is_best, (255, 216, 74), 2).astype(np.uint8))


def _list(
    draw: ImageDraw.ImageDraw,
    left: int,
    top: int,
    listed: npt.NDArray[np.int64],
    mass: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32] | None,
    colours: Sequence[tuple[int, int, int]],
    unlisted: int,
) -> None:
    """One row for each region: badge, mass, a bar and, with a query, the score."""
    medium, small = _font(15), _font(14)
    right = left + _LIST_WIDTH
    draw.text((left, top - 28), "region", _SOFT, small)
    draw.text((left + 110, top - 28), "share", _SOFT, small, anchor="ra")
    if scores is not None:
        draw.text((right, top - 28), "cosine", _SOFT, small, anchor="ra")
    values = mass if scores is None else scores
    low = 0.0 if scores is None else float(min(scores.min(), 0))
    high = float(values.max())
    for place, region in enumerate(listed.tolist()):
        middle = top + place * _ROW + _ROW // 2
        draw.line([(left, middle + _ROW // 2), (right, middle + _ROW // 2)], _LINE)
        _badge(draw, (left + 16, middle), str(region + 1), colours[region])
        draw.text((left + 110, middle), f"{100 * mass[region]:.0f} %", _TEXT, medium, anchor="rm")
        length = (float(values[region]) - low) / max(high - low, 1e-6)
        start, end = left + 128, right - (64 if scores is not None else 0)
        draw.rectangle([start, middle - 3, end, middle + 3], "#f1f1ef")
        draw.rectangle([start, middle - 3, start + length * (end - start), middle + 3], "#0b6e5e")
        if scores is not None:
            draw.text((right, middle), f"{scores[region]:.3f}", _TEXT, medium, anchor="rm")
    if unlisted:
        middle = top + len(listed) * _ROW + _ROW // 2
        draw.text((left, middle), f"and {unlisted} more", _SOFT, small, anchor="lm")


def _colours(count: int) -> list[tuple[int, int, int]]:
    """Colours that differ between regions of close numbers: golden-angle hues, three tones."""
    tones = ((0.62, 0.93), (0.78, 0.72), (0.45, 0.98))
    chosen = []
    for place in range(count):
        saturation, value = tones[place % 3]
        red, green, blue = colorsys.hsv_to_rgb((0.02 + place * 0.618034) % 1, saturation, value)
        chosen.append((round(255 * red), round(255 * green), round(255 * blue)))
    return chosen


def _badge(
    draw: ImageDraw.ImageDraw,
    centre: tuple[float, float],
    text: str,
    colour: tuple[int, int, int],
) -> None:
    x, y = centre
    half = 11 + 4 * (len(text) - 1)
    draw.rounded_rectangle([x - half, y - 11, x + half, y + 11], 11, colour, "#ffffff", 2)
    dark = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] < 115
    draw.text((x, y), text, "#ffffff" if dark else _TEXT, _font(13), anchor="mm")


def _on_pixels(labels: npt.NDArray[np.int64], shown: Image.Image) -> npt.NDArray[np.int64]:
    """(height, width) region of each pixel of the shown image."""
    height, width = labels.shape
    rows = np.arange(shown.height) * height // shown.height
    columns = np.arange(shown.width) * width // shown.width
    region_of: npt.NDArray[np.int64] = labels[rows[:, None], columns]
    return region_of


def _with_borders(
    pixels: npt.NDArray[np.float32],
    region_of: npt.NDArray[np.int64],
    colour: tuple[int, int, int] = (255, 255, 255),
    thickness: int = 1,
) -> npt.NDArray[np.float32]:
    """Draw the borders between regions."""
    edge = np.zeros(region_of.shape, bool)
    across = region_of[:, 1:] != region_of[:, :-1]
    down = region_of[1:] != region_of[:-1]
    for step in range(thickness):
        edge[:, 1 + step :] |= across[:, : across.shape[1] - step]
        edge[:, :-1] |= across
        edge[1 + step :] |= down[: down.shape[0] - step]
        edge[:-1] |= down
    return np.where(edge[..., None], np.array(colour, np.float32), pixels)


def _innermost(inside: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """The point farthest from the region's border, for its number."""
    import scipy.ndimage

    depth = scipy.ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x), float(y)


def _pixels(regions: Regions, shown: Image.Image) -> list[tuple[int, int, int, int]]:
    size = np.array([shown.width, shown.height] * 2)
    return [tuple(box) for box in np.rint(regions.boxes.cpu().numpy() * size).astype(int).tolist()]


def _dimmed(image: Image.Image, share: float) -> Image.Image:
    return image.point(lambda value: value * share)


def _fit(text: str, width: int, size: int) -> str:
    """Cut a text that is wider than the page."""
    limit = width - 2 * _MARGIN
    if _font(size).getlength(text) <= limit:
        return text
    while text and _font(size).getlength(text + "…") > limit:
        text = text[:-1]
    return text + "…"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
