"""A report as a record, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from hardmine.records import plain_values
from hardmine.report.gaps import ClassGap, LabelCount, Retrieval, mean_ap
from hardmine.report.mining_preview import MiningPreview
from hardmine.report.outlook import Measured
from hardmine.report.text_slices import TextSlice

SCHEMA = "hardmine-report/1"


@dataclass(frozen=True)
class GapReport:
    """The content of a report.

    Attributes:
        title: Names the detector or the run.
        source: Where the APs come from.
        gaps: The classes, the weakest first.
        about: Label and value of each fact about the data.
        notes: Warnings, one line each.
        mining: What mining would do; None without an index.
        slices: AP by text, those asked for and those suggested.
        outlook: What mining gained where the same was weak; empty without ``mining``.
    """

    title: str
    source: str
    gaps: tuple[ClassGap, ...]
    about: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    mining: MiningPreview | None = None
    slices: tuple[TextSlice, ...] = ()
    outlook: tuple[Measured, ...] = ()

    @property
    def mean_ap(self) -> float:
        """Mean over the classes with a known AP."""
        return mean_ap(list(self.gaps))

    @property
    def weak(self) -> list[ClassGap]:
        """Classes in need, the weakest first."""
        return [gap for gap in self.gaps if gap.need > 0]


def to_json(report: GapReport) -> dict[str, Any]:
    """JSON values, unknown numbers null; ``schema`` is the version of the layout."""
    values = plain_values(
        {
            "schema": SCHEMA,
            "title": report.title,
            "source": report.source,
            "mean_ap": report.mean_ap,
            "about": dict(report.about),
            "notes": report.notes,
            "classes": [asdict(gap) for gap in report.gaps],
            "mining": None if report.mining is None else report.mining.to_json(),
            "slices": [asdict(one) for one in report.slices],
            "outlook": [asdict(one) for one in report.outlook],
        }
    )
    assert isinstance(values, dict)
    return values


def to_csv(report: GapReport) -> str:
    """One row for each class; unknown values are empty."""
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
        labels = getattr(gap, split)
        for field in fields(LabelCount):
            row[f"{split}_{field.name}"] = getattr(labels, field.name, None)
    for name in ("found", "misplaced", "confused", "missed", "background", "threshold"):
        row[name] = getattr(gap.errors, name, None)
    confused_with = gap.errors.confused_with if gap.errors else ()
    row["confused_with"] = "; ".join(f"{name} {count}" for name, count in confused_with)
    for field in fields(Retrieval):
        row[field.name] = getattr(gap.retrieval, field.name, None)
    row.update(kinds=" ".join(gap.kinds), sentence=gap.sentence, advice=gap.advice)
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else round(value, 6)
    return "" if value is None else value
