"""The clustering spec: a short text used in configs, on the command line and in manifests.

``METHOD[:VALUE][,KEY=VALUE,...][+whole]``; a colon precedes the first option.

==============================  ================================================================
``whole``                       only the whole-image vector
``none``                        every patch
``kmeans:10``                   spherical k-means; ``kmeans:3/6`` keeps both partitions
``agglomerative:k=50``          merge until 50 clusters are left
``agglomerative:t=0.35``        merge while the distance is below 0.35
``pyramid:6``                   the cells of the 1×1 to 6×6 grids
``tree:3/6``                    one dendrogram, cut into 3 and into 6 clusters
``boxes``                       boxes given by the caller
==============================  ================================================================

Agglomerative and tree have the option ``linkage=average|complete|ward`` (default: average and
complete). ``context=A`` adds A times the whole-image vector to each region's unit vector, so that a
fork on a table scores above a fork-like streak on a wall. ``+whole`` adds the whole image as one
more region.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace

from hardmine.errors import InputError

Value = int | float | str | tuple[int, ...]


@dataclass(frozen=True)
class Option:
    """One option of a method.

    Attributes:
        read: Parses the text; raises ValueError if it is invalid.
        expected: Description of a valid value, for error messages.
        default: Default value; None if there is none.
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


_COUNT = "a whole number of at least 1"
_COUNTS = "a whole number of at least 1, or several as in 3/6"
_LINKAGE = Option(_linkage, "average, complete or ward", "average")

_CONTEXT = {"context": Option(_positive, "a number above 0, such as 0.4", 0.0)}

METHODS: dict[str, dict[str, Option]] = {
    "whole": {},
    "none": _CONTEXT,
    "kmeans": {"k": Option(_counts, _COUNTS, (10,)), **_CONTEXT},
    "agglomerative": {
        "k": Option(_count, _COUNT),
        "t": Option(_positive, "a distance above 0"),
        "linkage": _LINKAGE,
        **_CONTEXT,
    },
    "pyramid": {"levels": Option(_count, _COUNT, 6), **_CONTEXT},
    "boxes": _CONTEXT,
    "tree": {
        "k": Option(_counts, _COUNTS, (3, 6)),
        "linkage": replace(_LINKAGE, default="complete"),
        **_CONTEXT,
    },
}

# The option that a value without a name sets: "kmeans:10" is "kmeans:k=10".
UNNAMED = {"kmeans": "k", "agglomerative": "k", "pyramid": "levels", "tree": "k"}


@dataclass(frozen=True)
class ClusterSpec:
    """A parsed clustering spec; ``str`` gives its canonical text.

    Attributes:
        method: One of ``METHODS``.
        options: Name and value of each option that differs from its default, in a fixed order.
        whole: Whether the whole-image vector is an additional region.
    """

    method: str
    options: tuple[tuple[str, Value], ...] = ()
    whole: bool = False

    def option(self, name: str) -> Value | None:
        """Value of an option, or its default; None if the method has no such option."""
        option = METHODS[self.method].get(name)
        return None if option is None else dict(self.options).get(name, option.default)

    def counts(self, name: str) -> tuple[int, ...]:
        """Value of an option of one or more whole numbers."""
        value = self.option(name)
        return value if isinstance(value, tuple) else (self.count(name),)

    def count(self, name: str) -> int:
        """Value of an option that is a whole number."""
        value = self.option(name)
        assert isinstance(value, int)
        return value

    @property
    def context(self) -> float:
        """Share of the whole-image vector that is added to each region; 0 for none."""
        value = self.option("context")
        return value if isinstance(value, float) else 0.0

    def __str__(self) -> str:
        unnamed = UNNAMED.get(self.method)
        words = [_option_text(name, value) for name, value in self.options if name != unnamed]
        if unnamed is not None:
            value = self.option(unnamed)
            # Agglomerative keeps the name, because it has two stopping options, k and t.
            if self.method != "agglomerative":
                words.insert(0, _value_text(value))
            elif value is not None:
                words.insert(0, _option_text(unnamed, value))
        return self.method + (":" + ",".join(words) if words else "") + "+whole" * self.whole


def _option_text(name: str, value: Value) -> str:
    return f"{name}={_value_text(value)}"


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
        InputError: If the method, an option or a value is invalid; the message suggests the
            nearest known name.
    """
    if isinstance(spec, ClusterSpec):
        return spec
    text = spec.strip()
    body, *extras = text.split("+")
    if any(extra != "whole" for extra in extras) or len(extras) > 1:
        raise InputError(
            f'clusters "{text}": only +whole can be added, and only once; got +{"+".join(extras)}'
        )
    method, colon, rest = body.partition(":")
    if method not in METHODS:
        raise InputError(f'clusters "{text}": {_unknown("method", method, METHODS)}')
    if method == "whole" and extras:
        raise InputError(
            f'clusters "{text}": write "whole", which already is the whole-image vector'
        )
    if colon and not rest:
        raise InputError(f'clusters "{text}": the colon must be followed by a value or an option')
    known = METHODS[method]
    given: dict[str, Value] = {}
    for position, word in enumerate(rest.split(",") if rest else []):
        name, equals, value = word.partition("=")
        if not equals and name not in known and position == 0 and method in UNNAMED:
            name, value = UNNAMED[method], word
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
