"""Matches class names of two sources, and reports those that do not match."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_MAX_HINTS = 10
_FEW = 5  # names that get a line each


@dataclass(frozen=True)
class NameMatch:
    """The source's name for each of C class names.

    Attributes:
        rows: (C,) int64, position of each class name in the source; -1 if missing.
        renamed: Pairs (class name, source's name) that differ only in case and separators.
        missing: Class names that the source lacks, each with the most similar unused name, or "".
            Where many are missing, only the first get one.
        extra: The source's names that match no class.
    """

    rows: npt.NDArray[np.int64]
    renamed: tuple[tuple[str, str], ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    extra: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Messages about names that differ; empty if all are equal.

        One for each, or one for all that say the same where there are many.
        """
        alone = [name for name, similar in self.missing if not similar]
        return [
            *(f"{name!r} is read from {source!r}" for name, source in self.renamed),
            *(
                f"{name!r} has no score; did you mean {similar!r}?"
                for name, similar in self.missing
                if similar
            ),
            *_together(alone, "{} has no score", "{} classes have no score"),
            *_together(
                self.extra, "the score of {} belongs to no class", "{} scores belong to no class"
            ),
        ]


def _together(names: Sequence[str], one: str, many: str) -> list[str]:
    """A line for each of a few names, or one for many.

    >>> _together(list("abcdef"), "{} is new", "{} are new")
    ["6 are new: 'a', 'b', 'c' and 3 more"]
    """
    if len(names) <= _FEW:
        return [one.format(repr(name)) for name in names]
    shown = ", ".join(map(repr, names[:3]))
    return [f"{many.format(f'{len(names):,}')}: {shown} and {len(names) - 3:,} more"]


def normalise(name: str) -> str:
    """Normalise a name for comparison: lower case, one space for each run of separators.

    >>> normalise("Traffic_Light")
    'traffic light'
    """
    return " ".join(re.findall(r"[^\W_]+", name.casefold()))


def match_names(class_names: Sequence[str], source: Sequence[str]) -> NameMatch:
    """Find class names among a source's: exactly, else by the normalised form if it is unique.

    >>> match_names(["cat", "traffic light", "tv"], ["Traffic_Light", "cat"]).rows
    array([ 1,  0, -1])
    """
    exact = {name: row for row, name in enumerate(source)}
    rows = np.array([exact.get(name, -1) for name in class_names], np.int64)
    used = set(rows.tolist())
    unused = {row: normalise(name) for row, name in enumerate(source) if row not in used}
    unmatched = Counter(
        normalise(name) for name, row in zip(class_names, rows, strict=True) if row < 0
    )
    counts = Counter(unused.values())
    row_of = {text: row for row, text in unused.items() if counts[text] == 1}
    renamed = []
    for position, name in enumerate(class_names):
        text = normalise(name)
        if rows[position] < 0 and text in row_of and unmatched[text] == 1:
            rows[position] = row_of[text]
            renamed.append((name, source[row_of[text]]))
            del unused[row_of[text]]
    missing: list[tuple[str, str]] = []
    candidates = {text: source[row] for row, text in unused.items()}
    texts = list(candidates)
    for name, row in zip(class_names, rows.tolist(), strict=True):
        if row < 0:
            # Comparing 1,203 names with as many takes seconds, and helps nobody.
            tried = len(missing) < _MAX_HINTS
            similar = difflib.get_close_matches(normalise(name), texts, n=1) if tried else []
            missing.append((name, candidates[similar[0]] if similar else ""))
    extra = tuple(source[row] for row in sorted(unused))
    return NameMatch(rows, tuple(renamed), tuple(missing), extra)
