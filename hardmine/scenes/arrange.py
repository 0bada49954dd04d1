"""Chooses the objects of a scene, places and draws them, and measures what is visible of each."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from hardmine.scenes.kinds import KINDS, NAMES, Kind
from hardmine.scenes.paint import mix_paint
from hardmine.scenes.pen import Pen
from hardmine.scenes.places import PLACES
from hardmine.scenes.scene import SceneObject

MAX_OBJECTS = 10  # of an ordinary scene
_HOME_GAIN = 6.0  # how much more frequent a kind is in its own places
_MIN_VISIBLE = 0.15  # objects with a smaller visible share are not part of the truth
_ALPHA_MASK = [0] * 96 + [255] * 160  # a pixel belongs to an object if its alpha is at least 96


class _DrawnObject(NamedTuple):
    """An object drawn on the canvas, before its visible part is measured."""

    kind: str
    color: str
    pattern: str
    pixels: int
    frame: tuple[int, int, int, int]


@lru_cache(maxsize=64)
def _kind_probabilities(place: str, tail: float) -> npt.NDArray[np.float64]:
    """Cumulative probabilities of kinds: a geometric long tail, raised in a kind's own places."""
    ranks = np.arange(len(KINDS)) / (len(KINDS) - 1)
    home = np.array([_HOME_GAIN if place in kind.places else 1.0 for kind in KINDS])
    # Divided by the mean over places, so that a kind with many places is not more frequent.
    mean = np.array([1 + (_HOME_GAIN - 1) * len(kind.places) / len(PLACES) for kind in KINDS])
    odds = tail**-ranks * home / mean
    return np.cumsum(odds / odds.sum())


def choose_kinds(place: str, tail: float, crowd: float, rng: np.random.Generator) -> list[Kind]:
    """Draw the kinds of a scene's objects, some with a companion, some in groups."""
    odds = _kind_probabilities(place, tail)
    max_objects = round(MAX_OBJECTS * crowd)
    count = min(1 + int(rng.poisson(3.2 * crowd)), max_objects)
    kinds: list[Kind] = []
    while len(kinds) < count:
        kind = KINDS[int(np.searchsorted(odds, rng.random(), side="right"))]
        kinds.append(kind)
        # A companion that is rarer than its host follows only as often as the long tail allows;
        # otherwise it would become too frequent.
        if kind.companions and rng.random() < 0.4:
            companion = KINDS[NAMES.index(kind.companions[int(rng.integers(len(kind.companions)))])]
            gap = (NAMES.index(companion.name) - NAMES.index(kind.name)) / (len(KINDS) - 1)
            if gap <= 0 or rng.random() < tail**-gap:
                kinds.append(companion)
        elif rng.random() < 0.12:
            kinds.extend([kind] * int(rng.integers(1, 3)))
    return kinds[:max_objects]


def _sprite(kind: Kind, reach: float, rng: np.random.Generator) -> tuple[Image.Image, str, str]:
    """Draw one object; returns its cut-out image, its colour and its pattern."""
    color = kind.colors[int(rng.integers(len(kind.colors)))]
    pattern = "plain"
    if kind.patterned and rng.random() < 0.25:
        pattern = "striped" if rng.random() < 0.5 else "spotted"
    angle = np.radians(kind.tilt) * rng.uniform(-1, 1)
    pen = Pen(
        reach,
        angle=float(angle),
        flip=bool(rng.random() < 0.5) and kind.mirrored,
        stretch=float(rng.uniform(0.85, 1.15)),
    )
    kind.draw(pen, mix_paint(color, pattern, rng), rng)
    return pen.finish(), color, pattern


def place_objects(
    canvas: Image.Image, kinds: list[Kind], horizon: float, rng: np.random.Generator
) -> tuple[SceneObject, ...]:
    """Draw objects onto the canvas, the farthest first, and measure the visible part of each."""
    side = canvas.width
    count = len(kinds)
    extents = np.exp(rng.uniform(np.log(0.05), np.log(0.6), count))
    # One in eight is far away, down to 2 % of the side; with many objects none is very large.
    far = rng.random(count) < 0.125
    extents[far] = np.exp(rng.uniform(np.log(0.02), np.log(0.08), int(far.sum())))
    extents = np.minimum(extents, 1.6 / np.sqrt(count) if count > 7 else 0.6)
    centers = rng.random((count, 6, 2))
    owners = Image.new("L", canvas.size)
    drawn: list[_DrawnObject] = []
    placed = np.zeros((count, 3))
    # Larger objects are nearer and occlude others, except that one in four is drawn on top.
    for turn, row in enumerate(np.argsort(extents + (rng.random(count) < 0.25)).tolist()):
        kind = kinds[row]
        cutout, color, pattern = _sprite(kind, extents[row] * side / 2, rng)
        x, y = _find_center(centers[row], extents[row], kind.flies, horizon, placed[:turn])
        placed[turn] = x, y, extents[row]
        left, top = round(x * side - cutout.width / 2), round(y * side - cutout.height / 2)
        alpha = cutout.getchannel("A")
        solid = alpha.point(_ALPHA_MASK)
        canvas.paste(cutout, (left, top), alpha)
        owners.paste(turn + 1, (left, top), solid)
        frame = (left, top, left + cutout.width, top + cutout.height)
        drawn.append(_DrawnObject(kind.name, color, pattern, solid.histogram()[255], frame))
    return _measure(np.asarray(owners), drawn)


def _find_center(
    candidates: npt.NDArray[np.float64],
    extent: float,
    flies: bool,
    horizon: float,
    placed: npt.NDArray[np.float64],
) -> tuple[float, float]:
    """The first candidate centre with enough distance to placed objects, else the last one."""
    top, bottom = (0.02, 0.7) if flies else (horizon * 0.75, 0.98)
    # Up to a fifth of an object may be outside the image.
    edge = min(extent * 0.3, 0.5)
    x = y = 0.5
    for x, y in candidates.tolist():
        x = edge + x * (1 - 2 * edge)
        y = np.clip(top + y * (bottom - top), edge, 1 - edge)
        gaps = np.hypot(placed[:, 0] - x, placed[:, 1] - y)
        if (gaps > 0.38 * (placed[:, 2] + extent)).all():
            break
    return float(x), float(y)


def _measure(owners: npt.NDArray[np.uint8], drawn: list[_DrawnObject]) -> tuple[SceneObject, ...]:
    """Measure the visible part of each drawn object; leave out those almost hidden."""
    side = len(owners)
    objects = []
    for owner, sprite in enumerate(drawn, 1):
        left, top = max(sprite.frame[0], 0), max(sprite.frame[1], 0)
        right, bottom = min(sprite.frame[2], side), min(sprite.frame[3], side)
        visible = owners[top:bottom, left:right] == owner
        area = int(np.count_nonzero(visible))
        if area < 4 or area < _MIN_VISIBLE * sprite.pixels:
            continue
        columns, rows = np.flatnonzero(visible.any(0)), np.flatnonzero(visible.any(1))
        box = (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)
        objects.append(
            SceneObject(
                kind=sprite.kind,
                color=sprite.color,
                pattern=sprite.pattern,
                box=tuple(float(edge) for edge in box),  # type: ignore[arg-type]
                area=area,
                visible=area / sprite.pixels,
                extent=float(max(box[2] - box[0], box[3] - box[1]) / side),
            )
        )
    return tuple(objects)
