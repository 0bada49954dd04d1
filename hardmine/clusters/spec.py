"""The clustering spec: one short text that config, command line and index manifest share.

``METHOD[:VALUE | :KEY=VALUE,...,FLAG][+whole]``, for example ``kmeans:10+whole``,
``agglomerative:k=50`` or ``agglomerative:t=0.35,linkage=complete,connect``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

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
_LINKAGE = Option(_linkage, "average, complete or ward", "average")
_CONNECT = Option(_flag, "the bare word, without a value", False)

# The first option of a method is the one a bare value sets: "kmeans:10" is "kmeans:k=10".
METHODS: dict[str, dict[str, Option]] = {
    "whole": {},
    "none": {},
    "kmeans": {"k": Option(_count, _COUNT, 10)},
    "agglomerative": {
        "k": Option(_count, _COUNT),
        "t": Option(_positive, "a distance above 0"),
        "linkage": _LINKAGE,
        "connect": _CONNECT,
    },
    "pyramid": {"levels": Option(_count, _COUNT, 6)},
    "boxes": {},
    "tree": {
        "k": Option(_counts, "whole numbers from 1 up, such as 2/4/8/16", (2, 4, 8, 16)),
        "linkage": _LINKAGE,
        "connect": _CONNECT,
    },
}


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
        """An option's value, or its default."""
        return dict(self.options).get(name, METHODS[self.method][name].default)

    def __str__(self) -> str:
        words = [_option_text(name, value) for name, value in self.options]
        first = next(iter(METHODS[self.method]), None)
        default = None if first is None else METHODS[self.method][first].default
        if default is not None and not any(name == first for name, _ in self.options):
            words.insert(0, _option_text(str(first), default))
        # A lone first option is written bare, unless another could have been meant.
        if len(words) == 1 and default is not None:
            words[0] = words[0].partition("=")[2]
        return self.method + (":" + ",".join(words) if words else "") + "+whole" * self.whole


def _option_text(name: str, value: Value) -> str:
    if value is True:
        return name
    if isinstance(value, tuple):
        return f"{name}={'/'.join(map(str, value))}"
    return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"


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
        if not equals and name not in known and place == 0 and known:
            name, value = next(iter(known)), word
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
    choices = ", ".join(known) or "none"
    return f'unknown {kind} "{word}" (known: {choices}){hint}'
