"""The clustering spec: one short text that config, command line and index manifest share.

``METHOD[:VALUE][,KEY=VALUE,...,FLAG][+whole]``; the colon stands before the first option.

==============================  ================================================================
``whole``                       the whole-image vector alone
``none``                        every patch
``kmeans:10``                   spherical k-means; ``kmeans:3/6`` keeps the clusters of both
``agglomerative:k=50``          merge until 50 are left
``agglomerative:t=0.35``        merge while the distance is below 0.35
``pyramid:6``                   the cells of the 1×1 to 6×6 grids
``tree:3/6``                    one dendrogram cut where 3 and where 6 are left
``boxes``                       boxes that the caller gives
==============================  ================================================================

``linkage=average|complete|ward`` and ``connect`` (only patches that touch may merge) go with
agglomerative (average if not given) and tree (complete). ``context=A`` adds A times the
whole-image vector to each region's unit vector: a fork on a table then beats a fork-like streak
on a wall. ``+whole`` adds the whole image as one more region.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace

from hardmine.errors import InputError

Value = int | float | str | bool | tuple[int, ...]


@dataclass(frozen=True)
class Option:
    """One option of a method.

    Attributes:
        read: Turns its text into a value, raising ValueError on a bad one.
        expected: What a good value looks like, for messages.
        default: Value where the spec is silent; None where it has none.
    """

    read: Callable[[str], Value]
    expected: str
    default: Value | None = None


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({_count(part) for part in text.split("/")}))


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def _linkage(text: str) -> str:
    if text not in ("average", "complete", "ward"):
        raise ValueError
    return text


def _flag(text: str) -> bool:
    if text:
        raise ValueError
    return True


_COUNT = "a whole number from 1 up"
_COUNTS = "a whole number from 1 up, or several as in 3/6"
_LINKAGE = Option(_linkage, "average, complete or ward", "average")
_CONNECT = Option(_flag, "the bare word, without a value", False)

_CONTEXT = {"context": Option(_positive, "a number above 0, such as 0.4", 0.0)}

METHODS: dict[str, dict[str, Option]] = {
    "whole": {},
    "none": _CONTEXT,
    "kmeans": {"k": Option(_counts, _COUNTS, (10,)), **_CONTEXT},
    "agglomerative": {
        "k": Option(_count, _COUNT),
        "t": Option(_positive, "a distance above 0"),
        "linkage": _LINKAGE,
        "connect": _CONNECT,
        **_CONTEXT,
    },
    "pyramid": {"levels": Option(_count, _COUNT, 6), **_CONTEXT},
    "boxes": _CONTEXT,
    "tree": {
        "k": Option(_counts, _COUNTS, (3, 6)),
        "linkage": replace(_LINKAGE, default="complete"),
        "connect": _CONNECT,
        **_CONTEXT,
    },
}

# What a value without a name sets: "kmeans:10" is "kmeans:k=10".
BARE = {"kmeans": "k", "agglomerative": "k", "pyramid": "levels", "tree": "k"}


@dataclass(frozen=True)
class ClusterSpec:
    """How an image's patches become regions; ``str`` gives the canonical text.

    Attributes:
        method: One of ``METHODS``.
        options: Name and value of each option that is not at its default, in the table's order.
        whole: Whether the whole-image vector is one more region.
    """

    method: str
    options: tuple[tuple[str, Value], ...] = ()
    whole: bool = False

    def option(self, name: str) -> Value | None:
        """An option's value or its default; None where the method lacks it."""
        option = METHODS[self.method].get(name)
        return None if option is None else dict(self.options).get(name, option.default)

    def counts(self, name: str) -> tuple[int, ...]:
        """An option that is one whole number or several."""
        value = self.option(name)
        return value if isinstance(value, tuple) else (self.count(name),)

    def count(self, name: str) -> int:
        """An option that is one whole number."""
        value = self.option(name)
        assert isinstance(value, int)
        return value

    @property
    def context(self) -> float:
        """Share of the whole-image vector in each region's; 0 for none."""
        value = self.option("context")
        return value if isinstance(value, float) else 0.0

    def __str__(self) -> str:
        bare = BARE.get(self.method)
        words = [_option_text(name, value) for name, value in self.options if name != bare]
        if bare is not None:
            value = self.option(bare)
            # Only agglomerative has two ways to say how far to go, and keeps the name.
            if self.method != "agglomerative":
                words.insert(0, _value_text(value))
            elif value is not None:
                words.insert(0, _option_text(bare, value))
        return self.method + (":" + ",".join(words) if words else "") + "+whole" * self.whole


def _option_text(name: str, value: Value) -> str:
    return name if value is True else f"{name}={_value_text(value)}"


def _value_text(value: Value | None) -> str:
    if isinstance(value, tuple):
        return "/".join(map(str, value))
    return str(value).removesuffix(".0")


def parse_spec(spec: str | ClusterSpec) -> ClusterSpec:
    """Read a clustering spec.

    >>> str(parse_spec("kmeans+whole"))
    'kmeans:10+whole'
    >>> parse_spec("agglomerative:t=0.35,linkage=complete").option("linkage")
    'complete'

    Raises:
        InputError: If the method, an option or a value is not known; the message names the
            nearest known one.
    """
    if isinstance(spec, ClusterSpec):
        return spec
    text = spec.strip()
    body, *extras = text.split("+")
    if any(extra != "whole" for extra in extras) or len(extras) > 1:
        raise InputError(
            f'clusters "{text}": only +whole can be added, once, got +{"+".join(extras)}'
        )
    method, colon, rest = body.partition(":")
    if method not in METHODS:
        raise InputError(f'clusters "{text}": {_unknown("method", method, METHODS)}')
    if method == "whole" and extras:
        raise InputError(f'clusters "{text}": write "whole", it is the whole-image vector already')
    if colon and not rest:
        raise InputError(f'clusters "{text}": nothing stands behind the colon')
    known = METHODS[method]
    given: dict[str, Value] = {}
    for place, word in enumerate(rest.split(",") if rest else []):
        name, equals, value = word.partition("=")
        if not equals and name not in known and place == 0 and method in BARE:
            name, value = BARE[method], word
        if name not in known:
            raise InputError(f'clusters "{text}": {_unknown("option", name, known)}')
        if name in given:
            raise InputError(f'clusters "{text}": {name} is given twice')
        try:
            given[name] = known[name].read(value)
        except ValueError:
            raise InputError(
                f'clusters "{text}": {name} must be {known[name].expected}, got "{value}"'
            ) from None
    if method == "agglomerative" and ("k" in given) == ("t" in given):
        raise InputError(
            f'clusters "{text}": agglomerative needs a number of clusters (k=50) or a distance '
            f"to stop at (t=0.35){', not both' if given.get('k') else ''}"
        )
    options = tuple(
        (name, given[name])
        for name, option in known.items()
        if name in given and given[name] != option.default
    )
    return ClusterSpec(method, options, bool(extras))


def _unknown(kind: str, word: str, known: dict[str, Option] | dict[str, dict[str, Option]]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    choices = f"known: {', '.join(known)}" if known else "this method takes none"
    return f'unknown {kind} "{word}" ({choices}){hint}'
