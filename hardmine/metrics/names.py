"""Matching the class names of two sources, with a report of what did not match."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class NameMatch:
    """Which name of a source is meant by each wanted name.

    Attributes:
        rows: (C,) int64 position in the source of each wanted name; -1 where it has none.
        renamed: Pairs (wanted, source) that differ in case, underscores and the like alone.
        missing: Wanted names that the source lacks, each with the nearest unused one, or "".
        extra: Source names that nobody wants.
    """

    rows: npt.NDArray[np.int64]
    renamed: tuple[tuple[str, str], ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    extra: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Say what did not match, one line each, for people; empty if all did."""
        lines = [f"{wanted!r} is taken from {given!r}" for wanted, given in self.renamed]
        for wanted, near in self.missing:
            hint = f"; did you mean {near!r}?" if near else ""
            lines.append(f"{wanted!r} has no score{hint}")
        return [*lines, *(f"the score of {given!r} belongs to no class" for given in self.extra)]


def plain(name: str) -> str:
    """Reduce a name to what is compared: lower case, one space for each run of separators.

    >>> plain("Traffic_Light")
    'traffic light'
    """
    return " ".join(re.findall(r"[^\W_]+", name.casefold()))


def match_names(wanted: Sequence[str], given: Sequence[str]) -> NameMatch:
    """Find each wanted name among the given: exactly, else by its plain form if that is unique.

    >>> match_names(["cat", "traffic light", "tv"], ["Traffic_Light", "cat"]).rows
    array([ 1,  0, -1])
    """
    exact = {name: row for row, name in enumerate(given)}
    rows = np.array([exact.get(name, -1) for name in wanted], np.int64)
    taken = set(rows.tolist())
    free = {row: plain(name) for row, name in enumerate(given) if row not in taken}
    open_names = Counter(plain(name) for name, row in zip(wanted, rows, strict=True) if row < 0)
    by_plain = Counter(free.values())
    place = {text: row for row, text in free.items() if by_plain[text] == 1}
    renamed = []
    for position, name in enumerate(wanted):
        text = plain(name)
        if rows[position] < 0 and text in place and open_names[text] == 1:
            rows[position] = place[text]
            renamed.append((name, given[place[text]]))
            del free[place[text]]
    missing = []
    nearby = {text: given[row] for row, text in free.items()}
    for name, row in zip(wanted, rows.tolist(), strict=True):
        if row < 0:
            near = difflib.get_close_matches(plain(name), list(nearby), n=1, cutoff=0.6)
            missing.append((name, nearby[near[0]] if near else ""))
    extra = tuple(given[row] for row in sorted(free))
    return NameMatch(rows, tuple(renamed), tuple(missing), extra)
