"""Captions of a scene, each with the claims it makes, so that its truth can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hardmine.scenes.kinds import KINDS, NAMES

# One fact that a sentence states: ("kind", "car"), ("color", "car", "red"),
# ("pattern", "car", "striped"), ("size", "car", "small"), ("place", "street") or
# ("context", "night").
Claim = tuple[str, ...]


class Mention(NamedTuple):
    """The attributes of an object that a sentence may mention."""

    kind: str
    color: str
    pattern: str
    size: str


class Caption(NamedTuple):
    """A sentence and all claims it makes."""

    text: str
    claims: tuple[Claim, ...]


_PLACES = {
    "street": ("on a street", "in the street", "in a city"),
    "meadow": ("in a meadow", "on the grass", "on green grass"),
    "beach": ("on a beach", "by the sea", "at the beach"),
    "kitchen": ("in a kitchen", "in the kitchen", "on a kitchen table"),
    "room": ("in a room", "in a living room", "indoors in a room"),
    "desert": ("in a desert", "in the desert", "on desert sand"),
}
_CONTEXTS = {
    "day": ("by day", "in daylight", "on a clear day"),
    "night": ("at night", "at night", "in the dark"),
    "rain": ("in the rain", "in the rain", "on a rainy day"),
    "fog": ("in fog", "in the fog", "on a foggy day"),
}
_SIZES = {"tiny": ("tiny", "small"), "small": ("small", "little"), "large": ("large", "big")}
_TEMPLATES = (
    *("{}", "{}", "{}", "{}.", "a photo of {}", "a photo of {}.", "a picture of {}", "itap of {}."),
    *("there is {} here", "a drawing of {}.", "an image of {}", "a scene with {}", "art of {}."),
    *("a bad photo of {}.", "a good photo of {}.", "a blurry photo of {}.", "a sketch of {}."),
    *("a close-up photo of {}.", "a cropped photo of {}.", "a low resolution photo of {}."),
    *("a bright photo of {}.", "a dark photo of {}.", "a rendering of {}.", "a painting of {}."),
    *("a jpeg corrupted photo of {}.", "a black and white photo of {}.", "a cartoon of {}."),
    *("{} in a video game.", "a photo of {}, partly hidden", "a photo with {} and other things"),
    *("origami of {}.", "{}, a toy.", "{} of plastic.", "a doodle of {}.", "a photo of one {}."),
    *("my photo of {}.", "a nice photo of {}.", "a cool photo of {}.", "a nice picture of {}."),
)
_OTHER_NAMES = {kind.name: (kind.name, kind.name, *kind.synonyms) for kind in KINDS}


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _article(words: str, rng: np.random.Generator) -> str:
    drawn = rng.random()
    if drawn < 0.15:
        return words
    if drawn < 0.3:
        return f"the {words}"
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _mention(mention: Mention, rng: np.random.Generator) -> Caption:
    """A phrase for one object, often with one attribute."""
    name = _pick(_OTHER_NAMES[mention.kind], rng)
    drawn = rng.random()
    claim: Claim = ("kind", mention.kind)
    if drawn < 0.4:
        name, claim = f"{mention.color} {name}", ("color", mention.kind, mention.color)
    elif drawn < 0.5 and mention.pattern != "plain":
        name, claim = f"{mention.pattern} {name}", ("pattern", mention.kind, mention.pattern)
    elif drawn < 0.58 and mention.size in _SIZES:
        size = "small" if mention.size == "tiny" else mention.size
        name = f"{_pick(_SIZES[mention.size], rng)} {name}"
        claim = ("size", mention.kind, size)
    return Caption(_article(name, rng), (claim,))


def describe(
    mentions: Sequence[Mention], place: str, context: str, rng: np.random.Generator
) -> Caption:
    """Make a true sentence about a scene: one object or several, perhaps with place and context.

    Args:
        mentions: The visible objects; may be empty.
        place: A key of ``PLACES``, or "" to leave it out.
        context: A key of ``CONTEXTS``.
        rng: Draws the objects and the wording.
    """
    count = min(len(mentions), (1, 1, 1, 2, 2, 3)[int(rng.integers(6))])
    chosen = rng.permutation(len(mentions))[:count].tolist()
    parts = [_mention(mentions[row], rng) for row in chosen]
    claims = [claim for part in parts for claim in part.claims]
    settings = []
    if place and rng.random() < 0.15:
        settings.append(_pick(_PLACES[place], rng))
        claims.append(("place", place))
    if rng.random() < (0.3 if context != "day" else 0.1) or not (parts or settings):
        settings.append(_pick(_CONTEXTS[context], rng))
        claims.append(("context", context))
    words = [part.text for part in parts] or ["a scene"]
    text = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    text = " ".join([text, *settings])
    if rng.random() < 0.5:
        text = _pick(_TEMPLATES, rng).format(text)
    return Caption(text, tuple(claims))


def name_prompt(kind: str, rng: np.random.Generator) -> Caption:
    """A prompt for a kind, in one of many wordings."""
    name = _pick(_OTHER_NAMES[kind], rng)
    return Caption(_pick(_TEMPLATES, rng).format(_article(name, rng)), (("kind", kind),))


def vocabulary() -> tuple[str, ...]:
    """All text parts of which captions are made."""
    names = [name for kind in NAMES for name in _OTHER_NAMES[kind]]
    settings = [wordings for table in (_PLACES, _CONTEXTS, _SIZES) for wordings in table.values()]
    phrases = [text for wordings in settings for text in wordings]
    return (*names, *phrases, *_TEMPLATES, "striped spotted a an the and a scene")
