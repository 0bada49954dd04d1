"""Which objects a scene holds, where they stand, and what can be seen of each."""

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
_HOME_GAIN = 6.0
_LEAST_VISIBLE = 0.15  # what shows less of itself is not counted as part of the scene
_CUT = [0] * 96 + [255] * 160  # from how much alpha on a pixel belongs to an object


class _Drawn(NamedTuple):
    """An object on the canvas, before it is known what the others leave of it to see."""

    kind: str
    color: str
    pattern: str
    pixels: int
    frame: tuple[int, int, int, int]


@lru_cache(maxsize=64)
def _kind_odds(place: str, tail: float) -> npt.NDArray[np.float64]:
    """Cumulative odds of each kind: a geometric long tail, raised where a kind is at home."""
    ranks = np.arange(len(KINDS)) / (len(KINDS) - 1)
    home = np.array([_HOME_GAIN if place in kind.places else 1.0 for kind in KINDS])
    # Divided by its mean over places, so that being at home in many does not lift a kind.
    mean = np.array([1 + (_HOME_GAIN - 1) * len(kind.places) / len(PLACES) for kind in KINDS])
    odds = tail**-ranks * home / mean
    return np.cumsum(odds / odds.sum())


def choose_kinds(place: str, tail: float, crowd: float, rng: np.random.Generator) -> list[Kind]:
    """Pick what a scene holds; some bring a companion, some come in groups."""
    odds = _kind_odds(place, tail)
    most = round(MAX_OBJECTS * crowd)
    wanted = min(1 + int(rng.poisson(3.2 * crowd)), most)
    kinds: list[Kind] = []
    while len(kinds) < wanted:
        kind = KINDS[int(np.searchsorted(odds, rng.random(), side="right"))]
        kinds.append(kind)
        # A companion more frequent than its host would be fed by it; a rarer one would be lifted
        # out of the tail, so it follows only as often as the tail allows.
        if kind.companions and rng.random() < 0.4:
            friend = KINDS[NAMES.index(kind.companions[int(rng.integers(len(kind.companions)))])]
            gap = (NAMES.index(friend.name) - NAMES.index(kind.name)) / (len(KINDS) - 1)
            if gap <= 0 or rng.random() < tail**-gap:
                kinds.append(friend)
        elif rng.random() < 0.12:
            kinds.extend([kind] * int(rng.integers(1, 3)))
    return kinds[:most]


def _sprite(kind: Kind, reach: float, rng: np.random.Generator) -> tuple[Image.Image, str, str]:
    """Draw one object: its cut-out, the name of its colour and of its pattern."""
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
    """Draw kinds onto the canvas, the farthest first, and measure what shows of each."""
    side = canvas.width
    count = len(kinds)
    extents = np.exp(rng.uniform(np.log(0.05), np.log(0.6), count))
    # One in eight is far away, down to 2 % of the side; a crowd leaves no room for giants.
    far = rng.random(count) < 0.125
    extents[far] = np.exp(rng.uniform(np.log(0.02), np.log(0.08), int(far.sum())))
    extents = np.minimum(extents, 1.6 / np.sqrt(count) if count > 7 else 0.6)
    centers = rng.random((count, 6, 2))
    owners = Image.new("L", canvas.size)
    drawn: list[_Drawn] = []
    placed = np.zeros((count, 3))
    # Larger is nearer and hides what is behind it, but for one in four, which lies on top.
    for turn, row in enumerate(np.argsort(extents + (rng.random(count) < 0.25)).tolist()):
        kind = kinds[row]
        cutout, color, pattern = _sprite(kind, extents[row] * side / 2, rng)
        x, y = _find_room(centers[row], extents[row], kind.flies, horizon, placed[:turn])
        placed[turn] = x, y, extents[row]
        left, top = round(x * side - cutout.width / 2), round(y * side - cutout.height / 2)
        alpha = cutout.getchannel("A")
        solid = alpha.point(_CUT)
        canvas.paste(cutout, (left, top), alpha)
        owners.paste(turn + 1, (left, top), solid)
        frame = (left, top, left + cutout.width, top + cutout.height)
        drawn.append(_Drawn(kind.name, color, pattern, solid.histogram()[255], frame))
    return _measure(np.asarray(owners), drawn)


def _find_room(
    tries: npt.NDArray[np.float64],
    extent: float,
    flies: bool,
    horizon: float,
    placed: npt.NDArray[np.float64],
) -> tuple[float, float]:
    """The first tried centre that is not crowded by placed objects, else the last one."""
    top, bottom = (0.02, 0.7) if flies else (horizon * 0.75, 0.98)
    # Up to a fifth of an object may leave the frame.
    edge = min(extent * 0.3, 0.5)
    x = y = 0.5
    for x, y in tries.tolist():
        x = edge + x * (1 - 2 * edge)
        y = np.clip(top + y * (bottom - top), edge, 1 - edge)
        gaps = np.hypot(placed[:, 0] - x, placed[:, 1] - y)
        if (gaps > 0.38 * (placed[:, 2] + extent)).all():
            break
    return float(x), float(y)


def _measure(owners: npt.NDArray[np.uint8], drawn: list[_Drawn]) -> tuple[SceneObject, ...]:
    """What can be seen of each drawn object; those all but hidden are left out."""
    side = len(owners)
    objects = []
    for owner, thing in enumerate(drawn, 1):
        left, top = max(thing.frame[0], 0), max(thing.frame[1], 0)
        right, bottom = min(thing.frame[2], side), min(thing.frame[3], side)
        shown = owners[top:bottom, left:right] == owner
        area = int(np.count_nonzero(shown))
        if area < 4 or area < _LEAST_VISIBLE * thing.pixels:
            continue
        columns, rows = np.flatnonzero(shown.any(0)), np.flatnonzero(shown.any(1))
        box = (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)
        objects.append(
            SceneObject(
                kind=thing.kind,
                color=thing.color,
                pattern=thing.pattern,
                box=tuple(float(edge) for edge in box),  # type: ignore[arg-type]
                area=area,
                visible=area / thing.pixels,
                extent=float(max(box[2] - box[0], box[3] - box[1]) / side),
            )
        )
    return tuple(objects)
