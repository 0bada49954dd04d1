"""The table of the paper: measured figures beside the published ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from hardmine.evaluation.output import SCHEMA, percent
from hardmine.evaluation.protocol import PUBLISHED_SOURCE, Figures, Protocol, RowResult

HEADER = ["system", "backbone", "size", "vectors", "mAP@50", "mAP", "mAP@50 small-medium"]


def measured_figures(protocol: Protocol, result: RowResult) -> Figures | None:
    """The row's measured figures in percent, over the classes of the protocol's group."""
    evaluation = result.evaluation
    if evaluation is None:
        return None
    members = None if protocol.group is None else evaluation.members(protocol.group)
    values = [
        evaluation.all_sizes.mean("ap_at_k", members),
        evaluation.all_sizes.mean("ap", members),
        evaluation.small_medium.mean("ap_at_k", members),
    ]
    return Figures(*[None if math.isnan(value) else 100 * value for value in values])


def table_rows(protocol: Protocol, results: Sequence[RowResult]) -> list[list[str]]:
    """Printable cells: measured figures, with the published ones in brackets."""
    rows = []
    for result in results:
        row, evaluation = result.row, result.evaluation
        measured = measured_figures(protocol, result) or Figures(None, None, None)
        published = result.published or Figures(None, None, None)
        rows.append(
            [
                row.system,
                row.backbone,
                str(row.resolution or ""),
                "" if evaluation is None else f"{evaluation.vectors_per_image:.0f}",
                _cell(measured.map_at_50, published.map_at_50),
                _cell(measured.map, published.map),
                _cell(measured.map_at_50_small_medium, published.map_at_50_small_medium),
            ]
        )
    return rows


def reasons(results: Sequence[RowResult]) -> dict[str, list[str]]:
    """Each reason why rows did not run, with the labels of those rows."""
    stopped: dict[str, list[str]] = {}
    for result in results:
        if result.reason:
            stopped.setdefault(result.reason, []).append(result.row.label)
    return stopped


def to_json(protocol: Protocol, results: Sequence[RowResult]) -> dict[str, Any]:
    """The table as JSON values, figures in percent."""
    return {
        "schema": SCHEMA,
        "protocol": msgspec.to_builtins(protocol),
        "published_source": PUBLISHED_SOURCE if protocol.published else None,
        "rows": [
            {
                **msgspec.to_builtins(result.row),
                "published": result.published and asdict(result.published),
                "measured": (figures := measured_figures(protocol, result)) and asdict(figures),
                "vectors_per_image": result.evaluation and result.evaluation.vectors_per_image,
                "did_not_run": result.reason or None,
            }
            for result in results
        ],
    }


def _cell(measured: float | None, published: float | None) -> str:
    cell = "–" if measured is None else percent(measured / 100)
    return cell if published is None else f"{cell} ({published:.1f})"
