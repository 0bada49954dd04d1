"""Paints the background of a scene, a place, and unnamed clutter on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from hardmine.scenes.pen import Color, shade

_SKIES = ((150, 200, 240), (120, 180, 236), (196, 220, 240), (246, 206, 170))
_GRID = 14


class _Canvas:
    """A background at twice its final size; coordinates are shares of its side."""

    def __init__(self, field: npt.NDArray[np.float64], size: int, rng: np.random.Generator) -> None:
        # A coarse noise field, enlarged smoothly, so that no two skies or walls are alike.
        uneven = field + rng.normal(0, rng.uniform(2, 9), (_GRID, _GRID, 1))
        uneven += rng.normal(0, 3, (_GRID, _GRID, 3))
        small = Image.fromarray(uneven.clip(0, 255).astype(np.uint8))
        self.side = 2 * size
        # Bilinear to the final size, then nearest to twice that: three times as fast.
        smooth = small.resize((size, size), Image.Resampling.BILINEAR)
        self.image = smooth.resize((self.side, self.side), Image.Resampling.NEAREST)
        self.draw = ImageDraw.Draw(self.image)
        self.rng = rng

    def polygon(self, points: list[tuple[float, float]], color: Color) -> None:
        self.draw.polygon([(x * self.side, y * self.side) for x, y in points], fill=color)

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        if right > left and bottom > top:
            side = self.side
            self.draw.rectangle((left * side, top * side, right * side, bottom * side), color)

    def disc(self, x: float, y: float, radius: float, color: Color) -> None:
        side = self.side
        box = (x - radius) * side, (y - radius) * side, (x + radius) * side, (y + radius) * side
        self.draw.ellipse(box, color)

    def line(self, points: list[tuple[float, float]], width: float, color: Color) -> None:
        placed = [(x * self.side, y * self.side) for x, y in points]
        self.draw.line(placed, fill=color, width=max(1, round(width * self.side)))


def _field(
    top: Color, bottom: Color, horizon: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """(G, G, 3) colours: ``top`` above the horizon, ``bottom`` below, each with its own slope."""
    rows = (np.arange(_GRID) + 0.5) / _GRID
    upper = np.array(top) * (1 + rng.uniform(-0.15, 0.15) * (rows[:, None] - 0.3))
    lower = np.array(bottom) * (1 + rng.uniform(-0.3, 0.3) * (rows[:, None] - 0.7))
    column = np.where(rows[:, None] < horizon, upper, lower)
    return np.repeat(column[:, None], _GRID, 1)


def _street(size: int, horizon: float, rng: np.random.Generator) -> _Canvas:
    gray = int(rng.integers(84, 130))
    sky = _SKIES[rng.integers(4)]
    canvas = _Canvas(_field(sky, (gray, gray, gray + 6), horizon, rng), size, rng)
    left = -0.05
    while left < 1:
        width, tall = rng.uniform(0.1, 0.26), rng.uniform(0.08, 0.9) * horizon
        tint = int(rng.integers(90, 200))
        wall = (tint, max(tint - int(rng.integers(0, 40)), 0), max(tint - 30, 0))
        canvas.box(left, horizon - tall, left + width, horizon + 0.02, wall)
        pane = shade(wall, 0.7) if rng.random() < 0.7 else shade(wall, 1.4)
        for x in np.arange(left + 0.02, left + width - 0.03, 0.05).tolist():
            for y in np.arange(horizon - tall + 0.03, horizon - 0.03, 0.07).tolist():
                canvas.box(x, y, x + 0.02, y + 0.03, pane)
        left += width
    canvas.box(0, horizon, 1, horizon + 0.05, shade((gray, gray, gray), 1.3))
    lane = rng.uniform(horizon + 0.12, 0.95)
    for start in np.arange(rng.uniform(-0.2, 0), 1, 0.22).tolist():
        canvas.box(start, lane, start + 0.12, lane + 0.018, (222, 218, 196))
    return canvas


def _meadow(size: int, horizon: float, rng: np.random.Generator) -> _Canvas:
    grass = (int(rng.integers(70, 130)), int(rng.integers(140, 180)), int(rng.integers(60, 90)))
    canvas = _Canvas(_field(_SKIES[rng.integers(4)], grass, horizon, rng), size, rng)
    for hill in range(int(rng.integers(0, 4))):
        x, wide = rng.uniform(0, 1), rng.uniform(0.2, 0.5)
        tall = rng.uniform(0.03, 0.22)
        ridge = [
            (x - wide, horizon + 0.02),
            (x - wide * 0.4, horizon - tall * 0.8),
            (x + wide * 0.1, horizon - tall),
            (x + wide * 0.5, horizon - tall * 0.6),
            (x + wide, horizon + 0.02),
        ]
        canvas.polygon(ridge, shade(grass, 0.75 + 0.1 * hill))
    for x, y in rng.random((int(rng.integers(10, 50)), 2)).tolist():
        low = horizon + y * (1 - horizon)
        canvas.line([(x, low), (x + 0.008, low - 0.025)], 0.004, shade(grass, 0.7 + 0.5 * x))
    _clouds(canvas, horizon)
    return canvas


def _beach(size: int, horizon: float, rng: np.random.Generator) -> _Canvas:
    sea = (int(rng.integers(30, 80)), int(rng.integers(120, 170)), int(rng.integers(170, 215)))
    canvas = _Canvas(_field(_SKIES[rng.integers(4)], sea, horizon, rng), size, rng)
    for x, y in rng.random((int(rng.integers(6, 24)), 2)).tolist():
        low = horizon + y * (1 - horizon)
        reach = 0.03 + 0.06 * y
        canvas.line(
            [(x, low), (x + reach / 2, low - 0.008), (x + reach, low)], 0.005, shade(sea, 1.5)
        )
    if rng.random() < 0.8:
        shore = rng.uniform(0.5 * (1 + horizon), 0.95)
        tilt = rng.uniform(-0.08, 0.08)
        sand = (
            int(rng.integers(214, 240)),
            int(rng.integers(188, 210)),
            int(rng.integers(130, 160)),
        )
        canvas.polygon([(0, shore - tilt - 0.02), (1, shore + tilt - 0.02), (1, 1), (0, 1)], WHITE)
        canvas.polygon([(0, shore - tilt), (1, shore + tilt), (1, 1), (0, 1)], sand)
    _clouds(canvas, horizon)
    return canvas


def _desert(size: int, horizon: float, rng: np.random.Generator) -> _Canvas:
    sand = (int(rng.integers(206, 236)), int(rng.integers(160, 186)), int(rng.integers(96, 130)))
    canvas = _Canvas(_field(_SKIES[rng.integers(4)], sand, horizon, rng), size, rng)
    for dune in range(int(rng.integers(2, 5))):
        x, wide = rng.uniform(0, 1), rng.uniform(0.3, 0.7)
        y = horizon + rng.uniform(0, 0.3)
        crest = (x + rng.uniform(-0.1, 0.1), y - rng.uniform(0.04, 0.2))
        canvas.polygon([(x - wide, y), crest, (x + wide, y)], shade(sand, 0.84 + 0.07 * dune))
    return canvas


def _kitchen(size: int, horizon: float, rng: np.random.Generator) -> _Canvas:
    wood = (int(rng.integers(140, 205)), int(rng.integers(96, 140)), int(rng.integers(56, 92)))
    tile = (int(rng.integers(196, 238)), int(rng.integers(200, 236)), int(rng.integers(196, 230)))
    canvas = _Canvas(_field(tile, wood, horizon, rng), size, rng)
    step = rng.uniform(0.08, 0.16)
    for at in np.arange(0, 1, step).tolist():
        canvas.line([(at, 0), (at, horizon)], 0.005, shade(tile, 0.88))
        if at < horizon:
            canvas.line([(0, at), (1, at)], 0.005, shade(tile, 0.88))
    for y in rng.uniform(horizon, 1, int(rng.integers(3, 12))).tolist():
        canvas.line([(0, y), (0.5, y + 0.01), (1, y)], 0.005, shade(wood, 0.86))
    canvas.box(0, horizon - 0.01, 1, horizon + 0.015, shade(wood, 0.7))
    return canvas


def _room(size: int, horizon: float, rng: np.random.Generator) -> _Canvas:
    wall = tuple(rng.integers(130, 235, 3).tolist())
    floor = (int(rng.integers(110, 190)), int(rng.integers(84, 140)), int(rng.integers(60, 110)))
    low = max(horizon, 0.55)
    canvas = _Canvas(_field(wall, floor, low, rng), size, rng)
    if rng.random() < 0.5:
        step = rng.uniform(0.05, 0.14)
        for x in np.arange(0, 1, step).tolist():
            canvas.box(x, 0, x + step * 0.4, low, shade(wall, 0.92))
    if rng.random() < 0.5:
        x, y, wide = rng.uniform(0, 0.7), rng.uniform(0.03, 0.2), rng.uniform(0.15, 0.3)
        canvas.box(x, y, x + wide, y + wide, (240, 238, 230))
        canvas.box(x + 0.015, y + 0.015, x + wide - 0.015, y + wide - 0.015, (170, 206, 236))
        canvas.box(x + wide / 2 - 0.006, y, x + wide / 2 + 0.006, y + wide, (240, 238, 230))
    canvas.box(0, low - 0.01, 1, low + 0.015, shade(floor, 1.3))
    if rng.random() < 0.4:
        rug = tuple(rng.integers(60, 220, 3).tolist())
        canvas.polygon([(0.2, low + 0.12), (0.8, low + 0.12), (0.95, 0.96), (0.05, 0.96)], rug)
    return canvas


WHITE: Color = (246, 246, 242)
PLACES: dict[str, Callable[[int, float, np.random.Generator], _Canvas]] = {
    "street": _street,
    "meadow": _meadow,
    "beach": _beach,
    "kitchen": _kitchen,
    "room": _room,
    "desert": _desert,
}


def _clouds(canvas: _Canvas, horizon: float) -> None:
    rng = canvas.rng
    for _ in range(int(rng.integers(0, 4))):
        x, y, radius = rng.uniform(0, 1), rng.uniform(0, horizon * 0.7), rng.uniform(0.02, 0.06)
        for lump in (-1.2, 0.0, 1.2):
            canvas.disc(x + lump * radius, y - 0.3 * radius * (lump == 0), radius, WHITE)


def _add_clutter(canvas: _Canvas) -> None:
    """Draw triangles, sticks, slabs and discs of any colour, as distractors without a class."""
    rng = canvas.rng
    for form, x, y, turn in rng.random((int(rng.integers(0, 12)), 4)).tolist():
        reach = float(np.exp(rng.uniform(np.log(0.012), np.log(0.12))))
        color = tuple(rng.integers(20, 245, 3).tolist())
        angle = turn * np.pi * 2
        cos, sin = float(np.cos(angle)) * reach, float(np.sin(angle)) * reach
        if form < 0.3:
            canvas.polygon([(x + cos, y + sin), (x - sin, y + cos), (x + sin, y - cos)], color)
        elif form < 0.55:
            canvas.line([(x - cos, y - sin), (x + cos, y + sin)], reach * 0.15, color)
        elif form < 0.8:
            wide = 0.3 + turn
            canvas.polygon(
                [
                    *((x + cos, y + sin), (x - wide * sin, y + wide * cos)),
                    *((x - cos, y - sin), (x + wide * sin, y - wide * cos)),
                ],
                color,
            )
        else:
            canvas.disc(x, y, reach * 0.6, color)


def paint_place(place: str, size: int, horizon: float, rng: np.random.Generator) -> Image.Image:
    """Paint the background of a scene.

    Args:
        place: A key of ``PLACES``.
        size: Side of the square image in pixels.
        horizon: Height at which ground and sky, or wall and floor, meet: 0 top, 1 bottom.
        rng: Draws colours, shapes and clutter.
    """
    canvas = PLACES[place](size, horizon, rng)
    _add_clutter(canvas)
    return canvas.image.reduce(2)
