"""Draws signs, plants and buildings."""

from __future__ import annotations

import numpy as np

from hardmine.scenes.paint import Paint
from hardmine.scenes.pen import Pen, arc_points, shade

POLE = (150, 154, 158)
TRUNK = (112, 76, 44)
WHITE = (248, 248, 244)
INK = (30, 30, 34)
STALK = (58, 142, 60)


def stop_sign(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """A red octagon with a white rim and the word on it, on a pole."""
    middle = rng.uniform(-0.42, -0.34)
    pen.box(-0.06, middle, 0.06, 1.0, POLE)
    for radius, color in ((0.6, WHITE), (0.54, paint.body)):
        octagon = arc_points(0, middle, radius, radius, 22.5, 337.5, 8)
        pen.polygon(octagon, color)
    top, low, mid = middle - 0.16, middle + 0.16, middle
    s, t, o, p = -0.33, -0.11, 0.11, 0.27
    letters = (
        [
            (s + 0.07, top),
            (s - 0.06, top),
            (s - 0.06, mid),
            (s + 0.06, mid),
            (s + 0.06, low),
            (s - 0.07, low),
        ],
        [(t - 0.08, top), (t + 0.08, top)],
        [(t, top), (t, low)],
        [(o - 0.06, top), (o + 0.06, top), (o + 0.06, low), (o - 0.06, low), (o - 0.06, top)],
        [(p, low), (p, top), (p + 0.12, top), (p + 0.12, mid), (p, mid)],
    )
    for letter in letters:
        pen.line(letter, 0.045, WHITE)


def traffic_light(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """A box of three lamps on a pole, one of them lit."""
    pen.box(-0.06, 0.3, 0.06, 1.0, POLE)
    pen.polygon([(-0.34, -0.96), (0.34, -0.96), (0.3, 0.42), (-0.3, 0.42)], paint.body)
    pen.box(-0.24, -0.9, 0.24, 0.36, paint.dark)
    lit = int(rng.integers(3))
    for lamp, color in enumerate(((238, 44, 40), (250, 196, 40), (60, 214, 84))):
        y = -0.7 + lamp * 0.43
        pen.ellipse(0, y, 0.17, 0.17, color if lamp == lit else shade(color, 0.38))
        if lamp == lit:
            pen.ellipse(-0.04, y - 0.04, 0.07, 0.07, shade(color, 1.6))


def tree(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """A trunk under a round crown, or under the tiers of a fir."""
    pen.polygon([(-0.1, 0.2), (0.1, 0.2), (0.15, 1.0), (-0.15, 1.0)], TRUNK)
    if rng.random() < 0.4:
        for y, wide in ((0.62, 0.66), (0.22, 0.54), (-0.16, 0.4)):
            pen.polygon([(-wide, y), (wide, y), (0, y - 0.76)], paint.body)
            pen.polygon([(wide * 0.2, y), (wide, y), (0, y - 0.76)], paint.dark)
        return
    shift = rng.uniform(-0.1, 0.1, 10)
    crown = ((-0.4, 0.0, 0.36), (0.4, 0.02, 0.36), (-0.26, -0.42, 0.38), (0.28, -0.4, 0.38))
    for lump, (x, y, radius) in enumerate(crown):
        pen.ellipse(x + shift[lump], y, radius, radius, paint.dark if lump % 2 else paint.body)
    pen.ellipse(shift[8], -0.3, 0.46, 0.46, paint.body)
    pen.ellipse(-0.16, -0.52 + shift[9], 0.18, 0.14, paint.light)


def house(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Front view: a gabled roof, a door and two windows; walls in the main colour."""
    ridge = rng.uniform(-0.98, -0.74)
    roof = (150, 62, 46) if paint.name not in ("red", "orange", "brown") else (86, 88, 96)
    if rng.random() < 0.6:
        pen.box(0.34, -0.86, 0.54, -0.3, shade(roof, 0.75))
    pen.box(-0.78, -0.16, 0.78, 0.94, paint.body)
    pen.polygon([(-0.98, -0.12), (0, ridge), (0.98, -0.12)], roof)
    pen.box(-0.16, 0.34, 0.18, 0.94, (98, 62, 38))
    pen.ellipse(0.11, 0.66, 0.03, 0.03, (240, 210, 90))
    for x in (-0.48, 0.48):
        pen.box(x - 0.2, 0.1, x + 0.2, 0.5, WHITE)
        pen.box(x - 0.16, 0.14, x + 0.16, 0.46, (150, 196, 226))
        pen.line([(x, 0.14), (x, 0.46)], 0.03, WHITE)
        pen.line([(x - 0.16, 0.3), (x + 0.16, 0.3)], 0.03, WHITE)


def flower(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Petals of the main colour round a yellow heart, on a stalk with leaves."""
    petals = int(rng.integers(5, 9))
    pen.line([(0, -0.3), (0.04, 0.4), (0, 1.0)], 0.08, STALK)
    pen.ellipse(0.26, 0.58, 0.26, 0.1, STALK, -0.5)
    pen.ellipse(-0.24, 0.74, 0.24, 0.09, STALK, 0.5)
    turn = rng.uniform(0, 360)
    for petal in range(petals):
        at = turn + petal * 360 / petals
        x, y = arc_points(0, -0.42, 0.34, 0.34, at, at + 1, 2)[0]
        pen.ellipse(x, y, 0.24, 0.17, paint.body if petal % 2 else paint.light, np.radians(at))
    heart = (120, 76, 30) if paint.name in ("yellow", "orange") else (246, 200, 50)
    pen.ellipse(0, -0.42, 0.19, 0.19, heart)


def cactus(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """A ribbed column with two raised arms."""
    left, right = rng.uniform(-0.1, 0.3, 2).tolist()
    pen.line([(-0.1, left + 0.16), (-0.58, left + 0.16), (-0.58, left - 0.4)], 0.22, paint.dark)
    pen.line([(0.1, right + 0.3), (0.56, right + 0.3), (0.56, right - 0.3)], 0.22, paint.dark)
    pen.line([(0, -0.78), (0, 0.94)], 0.4, paint.body)
    for x in (-0.1, 0.0, 0.1):
        pen.line([(x, -0.8), (x, 0.94)], 0.025, paint.light)
    for y in (-0.6, -0.3, 0.0, 0.3, 0.6):
        for side in (-1, 1):
            pen.line([(side * 0.19, y), (side * 0.28, y - 0.05)], 0.025, WHITE)
    if rng.random() < 0.4:
        pen.ellipse(0, -0.94, 0.14, 0.1, (236, 96, 150))
