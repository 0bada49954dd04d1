"""Draws one object in its own rotated and scaled coordinates, with antialiasing and alpha."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]

_CIRCLE = [(math.cos(math.tau * i / 24), math.sin(math.tau * i / 24)) for i in range(24)]
_SUPERSAMPLING = 2


def shade(color: Color, factor: float) -> Color:
    """Darken (factor below 1) or lighten towards white (above 1) a colour.

    >>> shade((100, 200, 50), 0.5), shade((100, 200, 50), 2.0)
    ((50, 100, 25), (255, 255, 255))
    """
    if factor <= 1:
        return tuple(int(part * factor) for part in color)  # type: ignore[return-value]
    gain = min(factor - 1, 1.0)
    return tuple(int(part + (255 - part) * gain) for part in color)  # type: ignore[return-value]


def ellipse_points(
    cx: float, cy: float, rx: float, ry: float, tilt: float = 0.0
) -> list[tuple[float, float]]:
    """Outline of an ellipse, its first axis rotated by ``tilt`` radians."""
    cos, sin = math.cos(tilt), math.sin(tilt)
    return [
        (cx + rx * x * cos - ry * y * sin, cy + rx * x * sin + ry * y * cos) for x, y in _CIRCLE
    ]


def arc_points(
    cx: float, cy: float, rx: float, ry: float, start: float, end: float, count: int = 12
) -> list[tuple[float, float]]:
    """Points along an arc from ``start`` to ``end`` degrees; 0 points right, 90 down."""
    first, step = math.radians(start), math.radians(end - start) / (count - 1)
    return [
        (cx + rx * math.cos(first + step * i), cy + ry * math.sin(first + step * i))
        for i in range(count)
    ]


class Pen:
    """A drawing surface on which an object spans about -1 to 1 in x (right) and y (down).

    Args:
        radius: Half of the object's longer side, in pixels of the finished image.
        angle: Rotation in radians, clockwise.
        flip: Mirror left and right.
        stretch: Factor of the width.
    """

    def __init__(
        self, radius: float, *, angle: float = 0.0, flip: bool = False, stretch: float = 1.0
    ) -> None:
        self.radius = radius * _SUPERSAMPLING
        cos, sin = math.cos(angle) * self.radius, math.sin(angle) * self.radius
        self._half = 2 * math.ceil((abs(cos) + abs(sin)) * max(stretch, 1.0) * 0.53 + 1)
        wide = -stretch if flip else stretch
        self._turn = (cos * wide, -sin, sin * wide, cos)
        self._image = Image.new("RGBA", (2 * self._half, 2 * self._half))
        self._draw = ImageDraw.Draw(self._image)

    def _place(self, points: Sequence[Point]) -> list[Point]:
        a, b, c, d = self._turn
        half = self._half
        return [(a * x + b * y + half, c * x + d * y + half) for x, y in points]

    def polygon(self, points: Sequence[Point], color: Color) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._place(points), fill=(*color, 255))

    def ellipse(
        self, cx: float, cy: float, rx: float, ry: float, color: Color, tilt: float = 0.0
    ) -> None:
        """Fill an ellipse, rotated by ``tilt`` radians."""
        self.polygon(ellipse_points(cx, cy, rx, ry, tilt), color)

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """Fill an upright rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], color)

    def line(self, points: Sequence[Point], width: float, color: Color) -> None:
        """Draw a line with round ends through points."""
        placed, thick = self._place(points), max(1, round(width * self.radius))
        self._draw.line(placed, fill=(*color, 255), width=thick, joint="curve")
        if thick > 3:
            reach = thick / 2 - 0.5
            for x, y in (placed[0], placed[-1]):
                self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), (*color, 255))

    def ring(self, cx: float, cy: float, radius: float, width: float, color: Color) -> None:
        """Draw a circle of radius ``radius`` with a line of this width."""
        circle = ellipse_points(cx, cy, radius, radius)
        placed = self._place([*circle, circle[0], circle[1]])
        thick = max(1, round(width * self.radius))
        self._draw.line(placed, fill=(*color, 255), width=thick, joint="curve")

    def pattern(self, outline: Sequence[Point], name: str, color: Color) -> None:
        """Fill an outline with stripes or spots; "plain" draws nothing."""
        if name == "plain":
            return
        inside = Image.new("L", self._image.size)
        ImageDraw.Draw(inside).polygon(self._place(outline), fill=255)
        marks = Image.new("L", self._image.size)
        brush = ImageDraw.Draw(marks)
        if name == "striped":
            thick = max(1, round(0.11 * self.radius))
            for step in range(-4, 5):
                at = step * 0.25
                brush.line(self._place([(at, -1.1), (at, 1.1)]), fill=255, width=thick)
        else:
            for row in range(-5, 6):
                for column in range(-5, 6):
                    center = (0.24 * (column + 0.5 * (row % 2)), 0.21 * row)
                    ((x, y),) = self._place([center])
                    reach = 0.065 * self.radius
                    brush.ellipse((x - reach, y - reach, x + reach, y + reach), fill=255)
        self._image.paste((*color, 255), mask=ImageChops.darker(inside, marks))

    def finish(self) -> Image.Image:
        """The object at its final size; transparent outside it."""
        return self._image.reduce(_SUPERSAMPLING)
