"""Named colours, and the paint of one object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hardmine.scenes.pen import Color, shade

COLORS: dict[str, Color] = {
    "red": (214, 40, 40),
    "orange": (240, 130, 25),
    "yellow": (242, 206, 40),
    "green": (52, 160, 66),
    "blue": (42, 98, 210),
    "purple": (128, 62, 172),
    "pink": (242, 130, 176),
    "brown": (128, 82, 44),
    "black": (42, 42, 48),
    "gray": (138, 142, 148),
    "white": (240, 240, 236),
}


@dataclass(frozen=True)
class Paint:
    """The colours of one object.

    Attributes:
        name: Name of the main colour, a key of ``COLORS``.
        pattern: "plain", "striped" or "spotted".
        body, dark, light: The main colour and two shades of it.
        mark: Colour of the pattern, in contrast with the body.
    """

    name: str
    pattern: str
    body: Color
    dark: Color
    light: Color
    mark: Color


def mix_paint(name: str, pattern: str, rng: np.random.Generator) -> Paint:
    """Make a paint of a named colour with a small random variation."""
    shift = rng.integers(-16, 17, 3)
    body = tuple(
        int(np.clip(part + move, 0, 255)) for part, move in zip(COLORS[name], shift, strict=True)
    )
    bright = sum(body) > 600
    return Paint(
        name,
        pattern,
        body,  # type: ignore[arg-type]
        shade(body, 0.68),  # type: ignore[arg-type]
        shade(body, 1.35),  # type: ignore[arg-type]
        (60, 70, 150) if bright else shade(body, 1.75),  # type: ignore[arg-type]
    )
