"""Draws people and animals."""

from __future__ import annotations

import math

import numpy as np

from hardmine.scenes.paint import Paint
from hardmine.scenes.pen import Pen, arc_points, ellipse_points, shade

INK = (28, 26, 30)
WHITE = (246, 246, 242)
SKINS = ((244, 208, 176), (224, 172, 128), (168, 112, 72), (104, 68, 46))
HAIRS = ((40, 28, 22), (92, 58, 30), (200, 160, 84), (120, 120, 124))
PINK = (240, 158, 166)
BEAK = (244, 160, 40)


def person(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Standing or walking, seen from the front; the shirt has the main colour."""
    skin, hair = SKINS[rng.integers(4)], HAIRS[rng.integers(4)]
    trousers = ((46, 54, 92), (70, 70, 76), (108, 84, 60))[rng.integers(3)]
    stride, swing = rng.uniform(0.1, 0.28), rng.uniform(0.0, 0.45)
    for side in (-1, 1):
        pen.line([(side * 0.08, 0.2), (side * stride, 0.92)], 0.17, trousers)
        pen.line([(side * stride, 0.94), (side * (stride + 0.08), 0.94)], 0.1, INK)
    for side, bend in ((-1, swing), (1, 0.3 - swing)):
        hand = (side * (0.34 + 0.2 * bend), 0.2 - 0.6 * max(bend, 0))
        pen.line([(side * 0.2, -0.4), (side * 0.34, -0.1), hand], 0.11, paint.dark)
        pen.ellipse(*hand, 0.07, 0.07, skin)
    shirt = [(-0.27, -0.44), (0.27, -0.44), (0.21, 0.26), (-0.21, 0.26)]
    pen.polygon(shirt, paint.body)
    pen.pattern(shirt, paint.pattern, paint.mark)
    pen.line([(0, -0.5), (0, -0.42)], 0.12, skin)
    pen.ellipse(0, -0.7, 0.19, 0.22, skin)
    pen.polygon(arc_points(0, -0.73, 0.21, 0.24, 180, 360), hair)
    for x in (-0.07, 0.07):
        pen.ellipse(x, -0.68, 0.025, 0.03, INK)
    pen.line(arc_points(0, -0.64, 0.07, 0.05, 30, 150, 5), 0.02, (150, 60, 60))


def cat(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Sitting, seen from the front, tail to one side."""
    curl = rng.uniform(0.2, 0.5)
    pen.line([(0.3, 0.82), (0.68, 0.78), (0.8, 0.5), (0.6, 0.5 - curl)], 0.13, paint.dark)
    body = ellipse_points(0, 0.5, 0.42, 0.48)
    pen.polygon(body, paint.body)
    pen.pattern(body, paint.pattern, paint.mark)
    pen.ellipse(0, 0.58, 0.2, 0.3, paint.light)
    for x in (-0.17, 0.17):
        pen.ellipse(x, 0.9, 0.14, 0.09, paint.light)
    for side in (-1, 1):
        pen.polygon([(side * 0.5, -0.3), (side * 0.46, -0.98), (side * 0.06, -0.62)], paint.body)
        pen.polygon([(side * 0.42, -0.48), (side * 0.41, -0.82), (side * 0.2, -0.62)], PINK)
    pen.ellipse(0, -0.3, 0.53, 0.43, paint.body)
    for side in (-1, 1):
        pen.ellipse(side * 0.22, -0.36, 0.12, 0.11, (206, 224, 92))
        pen.ellipse(side * 0.22, -0.36, 0.045, 0.1, INK)
        for lift in (-0.06, 0.04):
            pen.line([(side * 0.18, -0.12), (side * 0.72, -0.14 + lift)], 0.018, WHITE)
    pen.polygon([(-0.07, -0.2), (0.07, -0.2), (0, -0.12)], PINK)
    pen.line([(-0.1, -0.02), (0, -0.08), (0.1, -0.02)], 0.025, INK)


def dog(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Side view, standing, with a hanging ear, a long snout and a raised tail."""
    wag, step = rng.uniform(-0.2, 0.2), rng.uniform(0.0, 0.14)
    pen.line([(-0.66, -0.05), (-0.88, -0.35), (-0.8 + wag, -0.66)], 0.1, paint.body)
    for x, way in ((-0.52, -1), (0.3, 1)):
        pen.line([(x + 0.08, 0.2), (x + 0.08 + way * step, 0.86)], 0.14, paint.dark)
    body = [(-0.72, -0.16), (0.36, -0.22), (0.48, 0.2), (0.1, 0.34), (-0.42, 0.26), (-0.7, 0.3)]
    pen.polygon(body, paint.body)
    pen.pattern(body, paint.pattern, paint.mark)
    for x, way in ((-0.6, 1), (0.34, -1)):
        pen.line(
            [(x, 0.16), (x + way * step, 0.88), (x + way * step + 0.06, 0.9)], 0.15, paint.body
        )
    pen.polygon([(0.16, -0.2), (0.3, -0.62), (0.62, -0.4), (0.46, 0.16)], paint.body)
    pen.ellipse(0.5, -0.54, 0.26, 0.22, paint.body)
    pen.polygon([(0.56, -0.66), (0.96, -0.5), (0.96, -0.36), (0.56, -0.34)], paint.light)
    pen.ellipse(0.95, -0.48, 0.07, 0.06, INK)
    pen.ellipse(0.6, -0.6, 0.04, 0.045, INK)
    pen.ellipse(0.36, -0.44, 0.11, 0.26, paint.dark, 0.15)
    pen.line([(0.3, -0.2), (0.48, -0.12)], 0.07, (200, 40, 50))
    pen.line([(0.7, -0.38), (0.9, -0.38)], 0.02, INK)


def bird(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Side view, perched, with a short beak and a folded or lifted wing."""
    lift = rng.uniform(-0.5, 0.35)
    pen.polygon([(-0.4, 0.02), (-1.0, 0.12), (-0.96, 0.34), (-0.34, 0.34)], paint.dark)
    for x in (-0.02, 0.16):
        pen.line([(x, 0.5), (x + 0.02, 0.86), (x + 0.12, 0.88)], 0.045, BEAK)
    body = ellipse_points(0.02, 0.14, 0.58, 0.42, -0.35)
    pen.polygon(body, paint.body)
    pen.pattern(body, paint.pattern, paint.mark)
    pen.ellipse(0.22, 0.32, 0.3, 0.22, paint.light, -0.5)
    pen.ellipse(0.46, -0.4, 0.3, 0.28, paint.body)
    pen.polygon([(0.7, -0.5), (1.0, -0.36), (0.7, -0.26)], BEAK)
    pen.ellipse(0.54, -0.46, 0.075, 0.075, WHITE)
    pen.ellipse(0.56, -0.46, 0.04, 0.04, INK)
    wing = [(0.22, 0.0), (-0.05, 0.34), (-0.44, 0.2 + lift * 0.3), (-0.66, 0.16 + lift)]
    pen.polygon([*wing, (-0.2, -0.12 + lift * 0.4)], paint.dark)


def fish(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Side view with a forked tail and fins."""
    tall = rng.uniform(0.34, 0.5)
    pen.polygon([(-0.5, 0), (-1.0, -0.46), (-0.86, 0.0), (-1.0, 0.46)], paint.dark)
    pen.polygon([(-0.3, -tall * 0.8), (0.1, -tall - 0.26), (0.36, -tall * 0.7)], paint.dark)
    pen.polygon([(-0.1, tall * 0.8), (-0.06, tall + 0.2), (0.2, tall * 0.8)], paint.dark)
    body = [
        *arc_points(0.14, 0, 0.8, tall, -150, 150, 16),
        (-0.66, 0.07),
        (-0.66, -0.07),
    ]
    pen.polygon(body, paint.body)
    pen.pattern(body, paint.pattern, paint.mark)
    pen.ellipse(0.24, tall * 0.42, 0.48, tall * 0.36, paint.light)
    pen.line(arc_points(0.3, 0, 0.2, tall * 0.8, -70, 70, 7), 0.035, paint.dark)
    pen.polygon([(0.2, 0.08), (-0.14, 0.3), (-0.1, 0.02)], paint.dark)
    pen.ellipse(0.62, -0.1, 0.11, 0.11, WHITE)
    pen.ellipse(0.65, -0.1, 0.06, 0.06, INK)
    pen.line([(0.93, 0.06), (0.76, 0.12)], 0.03, INK)


def butterfly(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Seen from above, four open wings."""
    spread = rng.uniform(0.7, 1.0)
    for side in (-1, 1):
        s = side * spread
        upper = [(s * 0.05, -0.1), (s * 0.4, -0.82), (s * 0.92, -0.88), (s * 0.98, -0.4)]
        upper += [(s * 0.6, 0.02)]
        lower = [(s * 0.05, 0.0), (s * 0.64, 0.06), (s * 0.84, 0.42), (s * 0.6, 0.86)]
        lower += [(s * 0.26, 0.66)]
        for wing, color in ((upper, paint.body), (lower, paint.dark)):
            pen.polygon(wing, INK)
            middle = (sum(x for x, _ in wing) / 5, sum(y for _, y in wing) / 5)
            inner = [
                (middle[0] + 0.84 * (x - middle[0]), middle[1] + 0.84 * (y - middle[1]))
                for x, y in wing
            ]
            pen.polygon(inner, color)
            pen.pattern(inner, paint.pattern, paint.mark)
        pen.ellipse(s * 0.64, -0.52, 0.12, 0.14, paint.light)
        pen.ellipse(s * 0.5, 0.42, 0.1, 0.12, paint.light)
        pen.line([(0, -0.5), (side * 0.16, -0.92)], 0.03, INK)
    pen.ellipse(0, 0.02, 0.08, 0.58, INK)
    pen.ellipse(0, -0.52, 0.1, 0.1, INK)


def rabbit(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Sitting, seen from the front, with two long ears."""
    droop = rng.uniform(0.0, 0.25)
    pen.ellipse(0, 0.6, 0.42, 0.4, paint.body)
    pen.ellipse(0, 0.66, 0.24, 0.28, paint.light)
    for side in (-1, 1):
        pen.ellipse(side * 0.3, 0.92, 0.2, 0.09, paint.light)
        tilt = side * (0.12 + droop)
        middle = (side * (0.2 + droop * 0.4), -0.56)
        pen.ellipse(*middle, 0.14, 0.46, paint.body, tilt)
        pen.ellipse(*middle, 0.07, 0.36, PINK, tilt)
    pen.ellipse(0, 0.02, 0.38, 0.34, paint.body)
    for side in (-1, 1):
        pen.ellipse(side * 0.16, -0.06, 0.06, 0.075, INK)
        pen.ellipse(side * 0.14, -0.09, 0.02, 0.025, WHITE)
        pen.ellipse(side * 0.1, 0.17, 0.11, 0.09, paint.light)
    pen.ellipse(0, 0.1, 0.055, 0.04, PINK)
    pen.box(-0.05, 0.2, 0.05, 0.3, WHITE)


def snail(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Side view; the shell with its spiral has the main colour."""
    flesh = (206, 176, 122)
    stretch = rng.uniform(0.0, 0.15)
    pen.polygon([(-1.0, 0.66), (-0.4, 0.4), (0.5, 0.42), (0.9, 0.66)], flesh)
    pen.line([(0.5, 0.56), (0.74, 0.3), (0.74, 0.0)], 0.24, flesh)
    for x, reach in ((0.66, 0.02), (0.84, 0.16)):
        pen.line([(0.74, -0.02), (x + reach, -0.42 - stretch)], 0.05, flesh)
        pen.ellipse(x + reach, -0.45 - stretch, 0.06, 0.06, INK)
    pen.ellipse(-0.12, 0.0, 0.6, 0.56, paint.body)
    spiral = [
        (
            -0.12 + 0.5 * (1 - turn / 30) * math.cos(turn * 0.42),
            0.5 * (1 - turn / 30) * math.sin(turn * 0.42),
        )
        for turn in range(30)
    ]
    pen.line(spiral, 0.07, paint.dark)
    pen.line([(-0.9, 0.66), (0.88, 0.66)], 0.07, shade(flesh, 0.8))
