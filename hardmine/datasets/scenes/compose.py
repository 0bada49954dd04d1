"""Composes a scene: which objects, where, how large, under what light; and what its labels say."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from hardmine.datasets.scenes.captions import Mention, describe
from hardmine.datasets.scenes.conditions import CONDITIONS, apply_condition
from hardmine.datasets.scenes.kinds import KINDS, NAMES, Kind
from hardmine.datasets.scenes.paint import mix_paint
from hardmine.datasets.scenes.pen import Pen
from hardmine.datasets.scenes.places import PLACES, paint_place
from hardmine.errors import InputError

MAX_OBJECTS = 10
MARK = "hardmine scene"  # the comment in a scene's file, by which it can be told from a photo
_CAPTIONS = 3
_CONDITION_SHARES = {"day": 0.55, "night": 0.15, "rain": 0.15, "fog": 0.15}
_HOME_GAIN = 6.0
_LEAST_VISIBLE = 0.15  # what shows less of itself is not counted as part of the scene
_CUT = [0] * 96 + [255] * 160


# A drawn object before it is known what shows of it: kind, colour, pattern, pixels, frame.
_Drawn = tuple[Kind, str, str, int, tuple[int, int, int, int]]


@dataclass(frozen=True)
class SceneObject:
    """One object as drawn.

    Attributes:
        kind: A name of ``NAMES``.
        color: A name of ``COLORS``.
        pattern: "plain", "striped" or "spotted".
        box: xyxy in pixels around what can be seen of it.
        area: Visible pixels.
        visible: Share of it that can be seen, in (0, 1].
        extent: Longer side of the box as a share of the picture's side.
    """

    kind: str
    color: str
    pattern: str
    box: tuple[float, float, float, float]
    area: int
    visible: float
    extent: float

    @property
    def size(self) -> str:
        """What a person would say: "tiny", "small", "medium" or "large"."""
        return size_name(self.extent)


def size_name(extent: float) -> str:
    """What a person would call an object of this share of the picture's side.

    >>> [size_name(extent) for extent in (0.03, 0.1, 0.25, 0.5)]
    ['tiny', 'small', 'medium', 'large']
    """
    limits = (0.07, 0.16, 0.34)
    return ("tiny", "small", "medium", "large")[sum(extent > limit for limit in limits)]


@dataclass(frozen=True)
class Scene:
    """A generated picture with the truth about it, and the labels, which may be faulty.

    Attributes:
        image: (S, S, 3) uint8.
        objects: The M objects that can be seen, from the farthest to the nearest.
        place: A key of ``PLACES``.
        condition: A key of ``CONDITIONS``.
        captions: A few true sentences about it.
        label_rows: (M,) int32 what an annotator wrote for each object: a position in ``NAMES``,
            wrong for some if asked for, or -1 where the label is missing.
    """

    image: npt.NDArray[np.uint8]
    objects: tuple[SceneObject, ...]
    place: str
    condition: str
    captions: tuple[str, ...]
    label_rows: npt.NDArray[np.int32] = field(repr=False)

    @property
    def picture(self) -> Image.Image:
        """The image for Pillow, marked as a scene."""
        picture = Image.fromarray(self.image)
        picture.info["comment"] = MARK
        return picture

    @cached_property
    def boxes(self) -> npt.NDArray[np.float32]:
        """(M, 4) xyxy in pixels, around what can be seen of each object."""
        return np.array([thing.box for thing in self.objects], np.float32).reshape(-1, 4)

    @cached_property
    def class_rows(self) -> npt.NDArray[np.int32]:
        """(M,) true position of each object in ``NAMES``."""
        return np.array([NAMES.index(thing.kind) for thing in self.objects], np.int32)

    @cached_property
    def areas(self) -> npt.NDArray[np.float32]:
        """(M,) visible pixels of each object."""
        return np.array([thing.area for thing in self.objects], np.float32)

    @cached_property
    def visible(self) -> npt.NDArray[np.float32]:
        """(M,) share of each object that can be seen."""
        return np.array([thing.visible for thing in self.objects], np.float32)


@lru_cache(maxsize=64)
def _kind_odds(place: str, tail: float) -> npt.NDArray[np.float64]:
    """Cumulative odds of each kind: a geometric long tail, raised where a kind is at home."""
    ranks = np.arange(len(KINDS)) / (len(KINDS) - 1)
    home = np.array([_HOME_GAIN if place in kind.places else 1.0 for kind in KINDS])
    # Divided by its mean over places, so that being at home in many does not lift a kind.
    mean = np.array([1 + (_HOME_GAIN - 1) * len(kind.places) / len(PLACES) for kind in KINDS])
    odds = tail**-ranks * home / mean
    return np.cumsum(odds / odds.sum())


def _choose_kinds(place: str, tail: float, rng: np.random.Generator) -> list[Kind]:
    """Pick what a scene holds; some bring a companion, some come in groups."""
    odds = _kind_odds(place, tail)
    wanted = min(1 + int(rng.poisson(3.2)), MAX_OBJECTS)
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
    return kinds[:MAX_OBJECTS]


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


def generate_scene(
    seed: int,
    index: int,
    *,
    size: int = 224,
    tail: float = 100.0,
    condition: str | None = None,
    missing: float = 0.0,
    wrong: float = 0.0,
) -> Scene:
    """Make scene number ``index`` of a seed: the same picture whenever it is asked for.

    The truth (``objects``, ``class_rows``, ``boxes``) never changes with ``missing`` and
    ``wrong``; those alter ``label_rows`` alone.

    Args:
        seed: Names an endless series of scenes; from 0.
        index: Position in the series; from 0.
        size: Side of the square picture in pixels; at least 32.
        tail: How many times more often the first kind is drawn than the last; 1 is balanced.
        condition: A key of ``CONDITIONS`` to force; drawn at random by default.
        missing: Share of objects whose label is left out.
        wrong: Share of objects that are labelled as another kind.

    Raises:
        InputError: If a value is out of range.
    """
    _check(seed, index, size, tail, condition, missing, wrong)
    rng = np.random.default_rng((seed, index))
    place = list(PLACES)[int(rng.integers(len(PLACES)))]
    drawn = rng.random()
    if condition is None:
        edges = np.cumsum(list(_CONDITION_SHARES.values()))
        condition = list(_CONDITION_SHARES)[int(np.searchsorted(edges, drawn, side="right"))]
    horizon = rng.uniform(0.25, 0.6)
    canvas = paint_place(place, size, horizon, rng)
    objects = place_objects(canvas, _choose_kinds(place, tail, rng), horizon, rng)
    canvas = apply_condition(canvas, condition, rng)
    truth = np.array([NAMES.index(thing.kind) for thing in objects], np.int32)
    labels = _label(truth, missing, wrong, np.random.default_rng((seed, index, 1)))
    mentions = [Mention(thing.kind, thing.color, thing.pattern, thing.size) for thing in objects]
    words = np.random.default_rng((seed, index, 2))
    captions = tuple(describe(mentions, place, condition, words).text for _ in range(_CAPTIONS))
    return Scene(np.asarray(canvas), objects, place, condition, captions, labels)


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
        drawn.append((kind, color, pattern, solid.histogram()[255], frame))
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
    for owner, (kind, color, pattern, full, (left, top, right, bottom)) in enumerate(drawn, 1):
        left, top = max(left, 0), max(top, 0)
        shown = owners[top : min(bottom, side), left : min(right, side)] == owner
        area = int(np.count_nonzero(shown))
        if area < 4 or area < _LEAST_VISIBLE * full:
            continue
        columns, rows = np.flatnonzero(shown.any(0)), np.flatnonzero(shown.any(1))
        box = (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)
        objects.append(
            SceneObject(
                kind=kind.name,
                color=color,
                pattern=pattern,
                box=tuple(float(edge) for edge in box),  # type: ignore[arg-type]
                area=area,
                visible=area / full,
                extent=float(max(box[2] - box[0], box[3] - box[1]) / side),
            )
        )
    return tuple(objects)


def _label(
    truth: npt.NDArray[np.int32], missing: float, wrong: float, rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    """Labels of true classes, some of them left out (-1) or swapped for another class."""
    luck = rng.random(len(truth))
    other = rng.integers(1, len(NAMES), len(truth))
    labels = np.where(luck > 1 - wrong, (truth + other) % len(NAMES), truth)
    return np.where(luck < missing, -1, labels).astype(np.int32)


def _check(
    seed: int,
    index: int,
    size: int,
    tail: float,
    condition: str | None,
    missing: float,
    wrong: float,
) -> None:
    if seed < 0 or index < 0:
        raise InputError(f"seed and index must not be negative, got {seed} and {index}")
    if size < 32:
        raise InputError(f"size must be at least 32 pixels to show anything, got {size}")
    if not tail >= 1:
        raise InputError(f"tail must be at least 1 (1 is balanced), got {tail}")
    if condition is not None and condition not in CONDITIONS:
        raise InputError(f"condition must be one of {', '.join(CONDITIONS)}, got {condition!r}")
    if not (missing >= 0 and wrong >= 0 and missing + wrong <= 1):
        raise InputError(
            f"missing and wrong are shares that sum to at most 1, got {missing} and {wrong}"
        )
