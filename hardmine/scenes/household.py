"""Draws tools and household objects."""

from __future__ import annotations

import numpy as np

from hardmine.scenes.paint import Paint
from hardmine.scenes.pen import Pen, arc_points, ellipse_points, shade

STEEL = (168, 174, 184)
WOOD = (176, 122, 66)
INK = (34, 32, 36)
WHITE = (248, 247, 242)


def hammer(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """A steel head with a claw across a handle of the main colour."""
    grip = rng.uniform(0.0, 0.3)
    pen.line([(0, -0.6), (0, 0.92)], 0.17, WOOD)
    pen.line([(0, grip), (0, 0.9)], 0.22, paint.body)
    pen.polygon([(-0.2, -0.86), (0.46, -0.86), (0.46, -0.5), (-0.2, -0.5)], STEEL)
    pen.polygon([(0.44, -0.92), (0.62, -0.92), (0.62, -0.44), (0.44, -0.44)], shade(STEEL, 0.7))
    pen.polygon([(-0.2, -0.86), (-0.5, -0.82), (-0.72, -0.5), (-0.44, -0.6), (-0.2, -0.54)], STEEL)


def scissors(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Two open blades and two ring handles of the main colour."""
    wide = rng.uniform(0.16, 0.42)
    for side in (-1, 1):
        tip = (side * wide, -0.98)
        pen.polygon([(-side * 0.02, 0.1), (side * 0.16, 0.0), tip, (-side * 0.08, 0.0)], STEEL)
        pen.line([(0, 0.06), (-side * (0.1 + wide * 0.5), 0.4)], 0.1, paint.dark)
        pen.ring(-side * (0.2 + wide * 0.5), 0.66, 0.23, 0.11, paint.body)
    pen.ellipse(0, 0.04, 0.07, 0.07, shade(STEEL, 0.5))


def key(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """A ring bow, a shaft and a toothed bit, all of the main colour."""
    teeth = int(rng.integers(2, 4))
    pen.line([(-0.3, 0), (0.95, 0)], 0.14, paint.body)
    pen.ellipse(-0.6, 0, 0.4, 0.4, paint.body)
    pen.ellipse(-0.62, 0, 0.19, 0.19, paint.dark)
    for tooth in range(teeth):
        x = 0.9 - tooth * 0.2
        pen.box(x - 0.06, 0.0, x + 0.06, 0.36 - 0.08 * (tooth % 2), paint.body)
    pen.line([(-0.2, -0.04), (0.9, -0.04)], 0.03, paint.light)


def umbrella(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Open, with a scalloped canopy of the main colour and a hooked handle."""
    dome = rng.uniform(0.72, 0.9)
    pen.line([(0, -0.1), (0, 0.76)], 0.06, INK)
    pen.line(arc_points(-0.15, 0.76, 0.15, 0.18, 0, 180, 8), 0.08, WOOD)
    top = arc_points(0, 0.02, 0.98, dome, 180, 360, 18)
    scallops = [
        point
        for middle in (0.735, 0.245, -0.245, -0.735)
        for point in arc_points(middle, 0.04, 0.245, 0.16, 0, -180, 6)
    ]
    canopy = [*top, *scallops]
    pen.polygon(canopy, paint.body)
    pen.pattern(canopy, paint.pattern, paint.mark)
    for x in (-0.49, 0.0, 0.49):
        pen.line([(0, 0.02 - dome), (x * 0.75, 0.02 - dome * 0.62), (x, -0.02)], 0.03, paint.dark)
    pen.line([(0, -dome), (0, -dome - 0.1)], 0.06, INK)


def cup(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """A mug with a handle and a dark drink."""
    taper = rng.uniform(0.0, 0.18)
    pen.ring(0.56, 0.06, 0.3, 0.13, paint.dark)
    body = [(-0.66, -0.52), (0.54, -0.52), (0.54 - taper, 0.78), (-0.66 + taper, 0.78)]
    pen.polygon(body, paint.body)
    pen.pattern(body, paint.pattern, paint.mark)
    pen.ellipse(-0.06, 0.78, 0.6 - taper, 0.1, paint.body)
    pen.polygon(
        [(-0.66, -0.52), (-0.48, -0.52), (-0.5 + taper, 0.8), (-0.66 + taper, 0.78)], paint.light
    )
    pen.ellipse(-0.06, -0.52, 0.6, 0.16, paint.light)
    pen.ellipse(-0.06, -0.5, 0.5, 0.11, (82, 50, 30))
    if rng.random() < 0.4:
        for x in (-0.24, 0.06):
            pen.line([(x, -0.66), (x + 0.08, -0.78), (x, -0.88), (x + 0.06, -0.98)], 0.04, WHITE)


def clock(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """A round dial in a rim of the main colour, at any time of day."""
    pen.ellipse(0, 0, 0.96, 0.96, paint.body)
    pen.ellipse(0, 0, 0.78, 0.78, WHITE)
    for hour in range(0, 360, 30):
        inner, outer = (0.56 if hour % 90 == 0 else 0.64), 0.72
        (start,) = arc_points(0, 0, inner, inner, hour, hour + 1, 2)[:1]
        (end,) = arc_points(0, 0, outer, outer, hour, hour + 1, 2)[:1]
        pen.line([start, end], 0.05, INK)
    hour, minute = rng.uniform(0, 360, 2).tolist()
    pen.line([(0, 0), arc_points(0, 0, 0.38, 0.38, hour, hour + 1, 2)[0]], 0.1, INK)
    pen.line([(0, 0), arc_points(0, 0, 0.6, 0.6, minute, minute + 1, 2)[0]], 0.065, INK)
    pen.ellipse(0, 0, 0.08, 0.08, (200, 40, 40))


def chair(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Three-quarter view: back with slats, seat, four legs."""
    tall = rng.uniform(0.8, 0.98)
    for x, y in ((-0.3, 0.62), (0.52, 0.62)):
        pen.line([(x, 0.1), (x, y)], 0.1, paint.dark)
    for x in (-0.56, 0.3):
        pen.line([(x, 0.2), (x - 0.03, 0.96)], 0.12, paint.body)
    for x in (-0.34, 0.52):
        pen.line([(x, 0.1), (x + 0.02, -tall)], 0.12, paint.body)
    for y in (-0.86, -0.56, -0.26):
        pen.line([(-0.33, y * tall), (0.53, y * tall)], 0.13, paint.dark)
    seat = [(-0.66, 0.22), (-0.4, 0.0), (0.6, 0.0), (0.42, 0.22)]
    pen.polygon(seat, paint.light)
    pen.polygon([(-0.66, 0.22), (0.42, 0.22), (0.42, 0.32), (-0.66, 0.32)], paint.body)


def guitar(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Upright: a waisted body of the main colour, a sound hole, a long neck."""
    waist = rng.uniform(0.3, 0.36)
    pen.box(-0.07, -0.86, 0.07, 0.1, (84, 56, 36))
    pen.polygon([(-0.13, -1.0), (0.13, -1.0), (0.1, -0.76), (-0.1, -0.76)], INK)
    for y in (-0.94, -0.84):
        for side in (-1, 1):
            pen.ellipse(side * 0.17, y, 0.045, 0.035, STEEL)
    pen.ellipse(0, 0.62, 0.48, 0.37, paint.body)
    pen.ellipse(0, 0.16, waist + 0.05, 0.28, paint.body)
    pen.box(-waist, 0.2, waist, 0.5, paint.body)
    pen.ellipse(0, 0.34, 0.15, 0.15, INK)
    pen.box(-0.06, -0.2, 0.06, 0.24, (84, 56, 36))
    pen.box(-0.2, 0.68, 0.2, 0.75, (84, 56, 36))
    for x in (-0.03, 0.03):
        pen.line([(x, -0.8), (x, 0.7)], 0.012, WHITE)


def balloon(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """A taut oval with a knot and a loose string."""
    sway = rng.uniform(-0.25, 0.25)
    pen.line([(0, 0.4), (sway, 0.6), (-sway, 0.8), (sway * 0.5, 0.98)], 0.03, INK)
    outline = ellipse_points(0, -0.34, 0.52, 0.62)
    pen.polygon(outline, paint.body)
    pen.pattern(outline, paint.pattern, paint.mark)
    pen.ellipse(-0.2, -0.58, 0.1, 0.18, paint.light, 0.4)
    pen.polygon([(0, 0.24), (-0.1, 0.4), (0.1, 0.4)], paint.dark)
