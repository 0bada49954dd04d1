"""Draws vehicles."""

from __future__ import annotations

import numpy as np

from hardmine.scenes.paint import Paint
from hardmine.scenes.pen import Pen, arc_points, shade

GLASS = (186, 220, 238)
TIRE = (34, 34, 38)
METAL = (176, 180, 186)
LAMP = (255, 236, 150)


def _wheel(pen: Pen, x: float, y: float, radius: float) -> None:
    pen.ellipse(x, y, radius, radius, TIRE)
    pen.ellipse(x, y, radius * 0.52, radius * 0.52, METAL)
    pen.ellipse(x, y, radius * 0.2, radius * 0.2, TIRE)


def car(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Side view, a saloon or a hatchback."""
    roof, rear = rng.uniform(-0.56, -0.42), rng.uniform(-0.92, -0.5)
    body = [
        *((-1, 0.26), (-0.97, -0.02), (rear, -0.1), (rear + 0.2, roof), (0.2, roof)),
        *((0.56, -0.08), (0.92, 0.0), (1, 0.14), (0.98, 0.3), (-0.97, 0.3)),
    ]
    pen.polygon(body, paint.body)
    pen.pattern(body, paint.pattern, paint.mark)
    pen.box(-0.97, 0.18, 0.99, 0.3, paint.dark)
    sill = -0.1
    pen.polygon(
        [(rear + 0.1, sill), (rear + 0.25, roof + 0.07), (-0.18, roof + 0.07), (-0.18, sill)], GLASS
    )
    pen.polygon([(-0.1, sill), (-0.1, roof + 0.07), (0.17, roof + 0.07), (0.46, sill)], GLASS)
    pen.line([(-0.14, sill), (-0.14, 0.18)], 0.02, paint.dark)
    pen.box(-0.06, -0.03, 0.06, 0.0, paint.dark)
    pen.ellipse(0.93, 0.08, 0.06, 0.05, LAMP)
    pen.ellipse(-0.95, 0.06, 0.04, 0.05, (200, 30, 30))
    size = rng.uniform(0.19, 0.23)
    for x in (-0.58, 0.58):
        _wheel(pen, x, 0.3, size)


def bus(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Side view with a row of windows and a door."""
    top = rng.uniform(-0.6, -0.48)
    body = [(-1, 0.36), (-1, top + 0.08), (-0.93, top), (0.92, top), (1, top + 0.1), (1, 0.36)]
    pen.polygon(body, paint.body)
    pen.pattern([(-1, 0.05), (1, 0.05), (1, 0.36), (-1, 0.36)], paint.pattern, paint.mark)
    pen.box(-1, 0.26, 1, 0.36, paint.dark)
    panes = int(rng.integers(4, 7))
    width = 1.4 / panes
    for pane in range(panes):
        left = -0.9 + pane * width
        pen.box(left, top + 0.12, left + width - 0.06, -0.04, GLASS)
    pen.box(0.56, top + 0.12, 0.76, 0.3, GLASS)
    pen.line([(0.66, top + 0.12), (0.66, 0.3)], 0.02, paint.dark)
    pen.box(0.82, top + 0.12, 1, 0.0, GLASS)
    pen.ellipse(0.96, 0.18, 0.04, 0.05, LAMP)
    for x in (-0.6, 0.42):
        _wheel(pen, x, 0.38, 0.17)


def truck(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Side view: a tall load box behind a cab of the main colour."""
    load = shade(METAL, rng.uniform(0.85, 1.3))
    top = rng.uniform(-0.72, -0.58)
    pen.box(-1, top, 0.34, 0.24, load)
    for x in (-0.72, -0.42, -0.12, 0.16):
        pen.line([(x, top + 0.04), (x, 0.2)], 0.015, shade(load, 0.8))
    cab = [(0.4, 0.3), (0.4, -0.4), (0.72, -0.4), (0.86, -0.04), (1, 0.02), (1, 0.3)]
    pen.polygon(cab, paint.body)
    pen.pattern(cab, paint.pattern, paint.mark)
    pen.polygon([(0.48, -0.06), (0.48, -0.32), (0.69, -0.32), (0.78, -0.06)], GLASS)
    pen.box(-1, 0.22, 1, 0.34, shade(TIRE, 1.15))
    pen.ellipse(0.96, 0.14, 0.05, 0.05, LAMP)
    for x in (-0.72, -0.3, 0.68):
        _wheel(pen, x, 0.36, 0.19)


def bicycle(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Side view: two spoked wheels and a diamond frame of the main colour."""
    radius = rng.uniform(0.38, 0.43)
    back, front, axle = (-0.56, 0.26), (0.56, 0.26), (-0.06, 0.28)
    for x, y in (back, front):
        pen.ring(x, y, radius, 0.06, TIRE)
        for turn in range(0, 180, 45):
            ((x0, y0), (x1, y1)) = arc_points(x, y, radius, radius, turn, turn + 180, 2)
            pen.line([(x0, y0), (x1, y1)], 0.012, METAL)
    seat, head = (-0.26, -0.26), (0.38, -0.28)
    pen.line([back, seat, axle, back], 0.07, paint.body)
    pen.line([seat, head, axle], 0.07, paint.body)
    pen.line([head, front], 0.07, paint.dark)
    pen.line([seat, (-0.3, -0.42)], 0.05, METAL)
    pen.line([(-0.44, -0.43), (-0.16, -0.43)], 0.09, TIRE)
    pen.line([head, (0.34, -0.5), (0.52, -0.54), (0.58, -0.44)], 0.055, TIRE)
    pen.ellipse(*axle, 0.09, 0.09, METAL)


def sailboat(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Side view: hull and two sails, the large one in the main colour."""
    lean = rng.uniform(-0.08, 0.08)
    mast = (0.04 + lean, -0.98)
    pen.line([(0.02, 0.5), mast], 0.05, (96, 66, 40))
    sail = [(0.08, 0.36), (mast[0] + 0.03, -0.92), (0.55, -0.1), (0.74, 0.36)]
    pen.polygon(sail, paint.body)
    pen.pattern(sail, paint.pattern, paint.mark)
    pen.polygon([(-0.06, 0.36), (mast[0] - 0.04, -0.84), (-0.62, 0.36)], (245, 245, 238))
    hull = (110, 66, 36) if paint.name in ("white", "gray") else (244, 242, 236)
    pen.polygon([(-0.9, 0.46), (0.95, 0.46), (0.62, 0.86), (-0.6, 0.86)], hull)
    pen.polygon([(-0.86, 0.52), (0.91, 0.52), (0.85, 0.6), (-0.82, 0.6)], paint.dark)


def airplane(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Seen from above: fuselage, swept wings, tail; wings and tail in the main colour."""
    sweep = rng.uniform(0.2, 0.38)
    shell = (236, 238, 242) if paint.name != "white" else (196, 202, 212)
    for side in (-1.0, 1.0):
        wing = [
            *((0.24, side * 0.1), (0.02 - sweep, side * 0.95)),
            *((-0.14 - sweep, side * 0.95), (-0.2, side * 0.1)),
        ]
        pen.polygon(wing, paint.body)
        pen.polygon(
            [
                *((-0.66, side * 0.06), (-0.88, side * 0.4)),
                *((-0.98, side * 0.4), (-0.88, side * 0.06)),
            ],
            paint.body,
        )
        pen.ellipse(0.02 - sweep * 0.35, side * 0.42, 0.13, 0.06, shade(METAL, 0.7))
    pen.ellipse(0.0, 0.0, 0.99, 0.14, shell)
    pen.polygon([(-0.6, -0.025), (-1.0, -0.03), (-1.0, 0.03), (-0.6, 0.025)], paint.dark)
    pen.polygon([(0.84, -0.07), (0.92, 0.0), (0.84, 0.07), (0.76, 0.05), (0.76, -0.05)], GLASS)
    for x in (-0.4, -0.2, 0.0, 0.2, 0.4):
        pen.ellipse(x, 0.0, 0.035, 0.03, (90, 120, 160))
