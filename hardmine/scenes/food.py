"""Draws fruit and other food."""

from __future__ import annotations

import numpy as np

from hardmine.scenes.paint import Paint
from hardmine.scenes.pen import Pen, arc_points, ellipse_points, shade

LEAF = (58, 148, 58)
STEM = (104, 70, 36)
CREAM = (248, 238, 214)


def apple(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Round with a dent on top, a stem and a leaf."""
    lean = rng.uniform(-0.12, 0.18)
    for x in (-0.3, 0.3):
        pen.ellipse(x, 0.16, 0.6, 0.74, paint.body, -0.25 * x)
    pen.ellipse(0.38, 0.3, 0.42, 0.52, paint.dark)
    pen.ellipse(0.2, 0.24, 0.56, 0.62, paint.body)
    pen.ellipse(-0.46, -0.08, 0.14, 0.24, paint.light, 0.4)
    pen.ellipse(0.0, -0.46, 0.2, 0.08, paint.dark)
    pen.line([(0, -0.44), (lean, -0.92)], 0.09, STEM)
    pen.ellipse(lean + 0.3, -0.78, 0.28, 0.12, LEAF, -0.35)


def banana(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """A crescent with dark ends."""
    fat = rng.uniform(0.42, 0.58)
    outer = arc_points(0, -0.42, 0.95, 1.12, 14, 166, 14)
    inner = arc_points(0, -0.5, 0.88, 1.18 - fat, 166, 14, 14)
    pen.polygon([*outer, *inner], paint.body)
    pen.line(arc_points(0, -0.46, 0.92, 1.14 - fat * 0.5, 24, 156, 10), 0.04, paint.dark)
    pen.line([outer[0], (0.98, -0.36)], 0.13, STEM)
    pen.ellipse(-0.92, -0.16, 0.08, 0.08, (70, 56, 30))


def strawberry(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """A rounded cone with seeds and a green cap."""
    tip = rng.uniform(0.86, 1.0)
    pen.polygon(
        [
            *((-0.74, -0.3), (-0.6, -0.56), (0.6, -0.56), (0.74, -0.3), (0.62, 0.2)),
            *((0.3, 0.72), (0.0, tip), (-0.3, 0.72), (-0.62, 0.2)),
        ],
        paint.body,
    )
    pen.polygon([(0.74, -0.3), (0.62, 0.2), (0.3, 0.72), (0.4, 0.1)], paint.dark)
    for y, xs in ((-0.26, (-0.45, 0.0, 0.45)), (0.06, (-0.28, 0.2)), (0.36, (-0.3, 0.02, 0.32))):
        for x in xs:
            pen.ellipse(x, y, 0.045, 0.07, (252, 226, 120))
    pen.ellipse(0, 0.64, 0.04, 0.06, (252, 226, 120))
    cap = [(-0.7, -0.5), (-0.3, -0.62), (-0.4, -0.3), (0, -0.5), (0.4, -0.3), (0.3, -0.62)]
    pen.polygon([*cap, (0.7, -0.5), (0.2, -0.76), (-0.2, -0.76)], LEAF)
    pen.line([(0, -0.7), (0.06, -0.96)], 0.08, LEAF)


def carrot(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """A long cone, point down, with feathery leaves."""
    wide = rng.uniform(0.26, 0.36)
    for x in (-0.34, -0.12, 0.12, 0.34):
        pen.line([(0, -0.4), (x, -0.96)], 0.1, shade(LEAF, 1.0 - abs(x)))
    pen.polygon(
        [(-wide, -0.38), (-wide * 0.6, -0.5), (wide * 0.6, -0.5), (wide, -0.38), (0.03, 1.0)],
        paint.body,
    )
    for y, left, right in ((-0.24, -0.9, -0.2), (0.0, 0.0, 0.7), (0.24, -0.6, 0.0)):
        reach = wide * (0.72 - y * 0.72)
        pen.line([(left * reach, y), (right * reach, y + 0.02)], 0.035, paint.dark)


def pineapple(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """An oval with a lattice skin and a crown of leaves."""
    wide = rng.uniform(0.42, 0.52)
    for x, y in ((-0.42, -0.7), (0.42, -0.7), (-0.24, -0.92), (0.24, -0.92), (0, -1.0)):
        pen.polygon([(-0.14, -0.24), (x, y), (0.14, -0.24)], shade(LEAF, 1.0 - abs(x) * 0.7))
    pen.ellipse(0, 0.34, wide, 0.64, paint.body)
    for shift in (-0.5, -0.17, 0.16, 0.49):
        for way in (-1, 1):
            line = [(way * (shift + t * 0.5 - 0.25) * 0.9, 0.34 + (t - 0.5) * 1.0) for t in (0, 1)]
            clipped = [(max(-wide * 0.85, min(wide * 0.85, x)), y) for x, y in line]
            pen.line(clipped, 0.035, paint.dark)


def mushroom(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """A domed cap with white dots on a pale stem."""
    tall = rng.uniform(0.78, 0.96)
    pen.polygon([(-0.2, 0.0), (0.2, 0.0), (0.3, 0.86), (-0.3, 0.86)], CREAM)
    pen.ellipse(0, 0.86, 0.3, 0.1, CREAM)
    pen.ellipse(0, 0.1, 0.86, 0.16, shade(CREAM, 0.8))
    cap = arc_points(0, 0.1, 0.96, tall, 180, 360, 16)
    pen.polygon(cap, paint.body)
    dots = ((-0.5, -0.2, 0.15), (0.0, -0.46, 0.17), (0.5, -0.18, 0.15), (-0.06, -0.02, 0.1))
    for x, y, radius in dots:
        pen.ellipse(x, y * tall / 0.9, radius, radius * 0.8, CREAM)


def ice_cream(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Scoops of the main colour on a waffle cone."""
    cone = (216, 164, 96)
    pen.polygon([(-0.4, -0.06), (0.4, -0.06), (0.0, 1.0)], cone)
    for x in (-0.24, 0.0, 0.24):
        pen.line([(x, -0.04), (x * 0.3 + 0.06, 0.6)], 0.03, shade(cone, 0.75))
        pen.line([(-x, -0.04), (-x * 0.3 - 0.06, 0.6)], 0.03, shade(cone, 0.75))
    if rng.random() < 0.5:
        pen.ellipse(-0.24, -0.26, 0.36, 0.34, paint.dark)
        pen.ellipse(0.24, -0.26, 0.36, 0.34, paint.body)
        pen.ellipse(0.0, -0.62, 0.36, 0.34, paint.light)
    else:
        scoop = ellipse_points(0, -0.36, 0.5, 0.5)
        pen.polygon(scoop, paint.body)
        pen.pattern(scoop, paint.pattern, paint.mark)
        pen.ellipse(-0.18, -0.56, 0.14, 0.1, paint.light, -0.5)
    for x in (-0.34, -0.1, 0.16, 0.36):
        pen.ellipse(x, -0.04, 0.14, 0.1, paint.body)
