"""The whole report as one value, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict, dataclass
from typing import Any

from hardmine.report.gaps import ClassGap, mean_ap
from hardmine.report.mining_preview import Mined
from hardmine.report.text_slices import TextSlice

SCHEMA = "hardmine-report/1"


@dataclass(frozen=True)
class GapReport:
    """Everything a report says.

    Attributes:
        title: What was validated.
        source: What the APs come from.
        gaps: The classes, the weakest first.
        about: Label and value of what to say about the sets.
        notes: What people should know, one line each.
        mined: What mining would do; None without an index.
        slices: The texts that were asked.
    """

    title: str
    source: str
    gaps: tuple[ClassGap, ...]
    about: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    mined: Mined | None = None
    slices: tuple[TextSlice, ...] = ()

    @property
    def mean_ap(self) -> float:
        """Mean over the classes with a known AP."""
        return mean_ap(list(self.gaps))

    @property
    def weak(self) -> list[ClassGap]:
        """Classes in need, the weakest first."""
        return [gap for gap in self.gaps if gap.need > 0]


def to_json(report: GapReport) -> dict[str, Any]:
    """Plain values, unknown numbers null; the layout is versioned by ``schema``."""
    plain = _plain(
        {
            "schema": SCHEMA,
            "title": report.title,
            "source": report.source,
            "mean_ap": report.mean_ap,
            "about": dict(report.about),
            "notes": report.notes,
            "classes": [asdict(gap) for gap in report.gaps],
            "mining": None if report.mined is None else report.mined.to_json(),
            "slices": [asdict(one) for one in report.slices],
        }
    )
    assert isinstance(plain, dict)
    return plain


def to_csv(report: GapReport) -> str:
    """One row a class; what is unknown is empty."""
    rows = [_row(gap) for gap in report.gaps]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(gap: ClassGap) -> dict[str, Any]:
    row: dict[str, Any] = {"class": gap.name, "ap": gap.ap, "low": gap.low, "high": gap.high}
    row.update(zip(("ap_small", "ap_medium", "ap_large"), gap.by_size, strict=True))
    row["need"] = gap.need
    for split in ("val", "train"):
        amount = getattr(gap, split)
        for name in ("instances", "images", "small"):
            row[f"{split}_{name}"] = None if amount is None else getattr(amount, name)
    for name in ("found", "misplaced", "confused", "missed", "background", "threshold"):
        row[name] = None if gap.errors is None else getattr(gap.errors, name)
    taken = gap.errors.confused_with if gap.errors else ()
    row["confused_with"] = "; ".join(f"{name} {count}" for name, count in taken)
    for name in ("trust", "answering", "labelled", "suspects", "confusers", "draws"):
        row[name] = None if gap.retrieval is None else getattr(gap.retrieval, name)
    row.update(kinds=" ".join(gap.kinds), sentence=gap.sentence, advice=gap.advice)
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else round(value, 6)
    return "" if value is None else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
