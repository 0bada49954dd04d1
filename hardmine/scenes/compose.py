"""Generates a scene: image, objects, captions and labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.scenes.arrange import choose_kinds, place_objects
from hardmine.scenes.captions import Mention, describe
from hardmine.scenes.contexts import CONTEXTS, apply_context
from hardmine.scenes.kinds import NAMES
from hardmine.scenes.places import PLACES, paint_place
from hardmine.scenes.scene import Scene

_NUM_CAPTIONS = 3
CONTEXT_SHARES = {"day": 0.55, "night": 0.15, "rain": 0.15, "fog": 0.15}


def generate_scene(
    seed: int,
    index: int,
    *,
    size: int = 224,
    tail: float = 100.0,
    crowd: float = 1.0,
    context: str | None = None,
    contexts: Mapping[str, float] = CONTEXT_SHARES,
    missing: float = 0.0,
    wrong: float = 0.0,
) -> Scene:
    """Generate scene number ``index`` of a series; equal arguments give equal scenes.

    ``missing`` and ``wrong`` change only ``label_rows``, never the truth (``objects``,
    ``class_rows``, ``boxes``).

    Args:
        seed: Seed of an endless series of scenes; at least 0.
        index: Position in the series; at least 0.
        size: Side of the square image in pixels; at least 32.
        tail: Frequency of the most frequent class relative to the rarest; 1 is balanced.
        crowd: Number of objects relative to an ordinary scene, which has four or five.
        context: The scene's context, a key of ``CONTEXTS``; None draws one at random.
        contexts: Probability of each key of ``CONTEXTS``; they sum to 1.
        missing: Share of objects without a label.
        wrong: Share of objects that are labelled as another class.

    Raises:
        InputError: If a value is out of range.
    """
    _check(seed, index, size, tail, crowd, missing, wrong)
    _check_contexts(context, contexts)
    rng = np.random.default_rng((seed, index))
    place = list(PLACES)[int(rng.integers(len(PLACES)))]
    drawn = rng.random()
    if context is None:
        edges = np.cumsum(list(contexts.values()))
        # Rounding may leave the sum a little below 1.
        row = min(int(np.searchsorted(edges, drawn, side="right")), len(edges) - 1)
        context = list(contexts)[row]
    horizon = rng.uniform(0.25, 0.6)
    canvas = paint_place(place, size, horizon, rng)
    objects = place_objects(canvas, choose_kinds(place, tail, crowd, rng), horizon, rng)
    canvas = apply_context(canvas, context, rng)
    truth = np.array([NAMES.index(thing.kind) for thing in objects], np.int32)
    labels = _label(truth, missing, wrong, np.random.default_rng((seed, index, 1)))
    mentions = [Mention(thing.kind, thing.color, thing.pattern, thing.size) for thing in objects]
    words = np.random.default_rng((seed, index, 2))
    captions = tuple(describe(mentions, place, context, words).text for _ in range(_NUM_CAPTIONS))
    return Scene(np.asarray(canvas), objects, place, context, captions, labels)


def _label(
    truth: npt.NDArray[np.int32], missing: float, wrong: float, rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    """True classes with some replaced by -1 (missing) or by another class (wrong)."""
    draw = rng.random(len(truth))
    other = rng.integers(1, len(NAMES), len(truth))
    labels = np.where(draw > 1 - wrong, (truth + other) % len(NAMES), truth)
    return np.where(draw < missing, -1, labels).astype(np.int32)


def _check(
    seed: int,
    index: int,
    size: int,
    tail: float,
    crowd: float,
    missing: float,
    wrong: float,
) -> None:
    if seed < 0 or index < 0:
        raise InputError(f"seed and index must not be negative, got {seed} and {index}")
    if size < 32:
        raise InputError(f"size must be at least 32 pixels, got {size}")
    if not tail >= 1:
        raise InputError(f"tail must be at least 1 (1 is balanced), got {tail}")
    if not 0.1 <= crowd <= 8:
        raise InputError(f"crowd must lie between 0.1 and 8 (1 is ordinary), got {crowd}")
    if not (missing >= 0 and wrong >= 0 and missing + wrong <= 1):
        raise InputError(
            f"missing and wrong must be shares that sum to at most 1, got {missing} and {wrong}"
        )


def _check_contexts(context: str | None, contexts: Mapping[str, float]) -> None:
    for name in (*([] if context is None else [context]), *contexts):
        if name not in CONTEXTS:
            raise InputError(f"context must be one of {', '.join(CONTEXTS)}, got {name!r}")
    shares = list(contexts.values())
    if not (min(shares, default=-1.0) >= 0 and abs(sum(shares) - 1) < 1e-6):
        raise InputError(f"contexts must be shares that sum to 1, got {dict(contexts)}")
