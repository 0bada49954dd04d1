"""Output of an evaluation: JSON values, Markdown tables and CSV rows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hardmine.evaluation.classes import METRICS, ClassEvaluation
from hardmine.evaluation.ranking import Floats
from hardmine.evaluation.retrieval import RankingScores

SCHEMA = "hardmine-eval/1"


def to_json(evaluation: ClassEvaluation) -> dict[str, Any]:
    """All metrics, NaN as null; ``schema`` is the version of the layout."""
    sizes = {"all": evaluation.all_sizes, "small_medium": evaluation.small_medium}
    return {
        "schema": SCHEMA,
        "k": evaluation.k,
        "num_images": evaluation.num_images,
        "num_left_out": evaluation.num_left_out,
        "vectors_per_image": evaluation.vectors_per_image,
        "mean": {size: _means(scores) for size, scores in sizes.items()},
        "groups": {
            group: {
                size: {
                    name: _number(scores.mean(field, evaluation.members(group)))
                    for name, field in METRICS.items()
                }
                for size, scores in sizes.items()
            }
            for group in evaluation.group_names()
        },
        "classes": class_rows(evaluation),
    }


def class_rows(evaluation: ClassEvaluation) -> list[dict[str, Any]]:
    """One flat row for each class."""
    rows = []
    for place, name in enumerate(evaluation.class_names):
        row: dict[str, Any] = {"class": name}
        if evaluation.groups:
            row["group"] = evaluation.groups[place]
        for size, scores in (("", evaluation.all_sizes), ("_sm", evaluation.small_medium)):
            row[f"num_images{size}"] = int(scores.num_relevant[place])
            row[f"ap_at_k{size}"] = _number(scores.ap_at_k[place])
            row[f"ap{size}"] = _number(scores.ap[place])
        rows.append(row)
    return rows


def class_cells(evaluation: ClassEvaluation) -> list[list[str]]:
    """One printable row for each class, in percent, highest AP@k first."""
    all_sizes, small = evaluation.all_sizes, evaluation.small_medium
    order = np.argsort(-np.nan_to_num(all_sizes.ap_at_k, nan=-1), kind="stable")
    return [
        [
            evaluation.class_names[place],
            str(all_sizes.num_relevant[place]),
            percent(all_sizes.ap_at_k[place]),
            percent(all_sizes.ap[place]),
            str(small.num_relevant[place]),
            percent(small.ap_at_k[place]),
        ]
        for place in order
    ]


def query_rows(texts: Sequence[str], scores: RankingScores) -> list[dict[str, Any]]:
    """One flat row for each free-text query."""
    return [
        {
            "text": text,
            "num_images": int(scores.num_relevant[place]),
            "ap_at_k": _number(scores.ap_at_k[place]),
            "ap": _number(scores.ap[place]),
            **{f"recall_at_{k}": _number(found[place]) for k, found in scores.recall_at.items()},
        }
        for place, text in enumerate(texts)
    ]


def query_json(texts: Sequence[str], scores: RankingScores, k: int) -> dict[str, Any]:
    """JSON values of free-text queries: means, and one entry for each query."""
    recalls = {f"recall_at_{k}": _number(_mean(found)) for k, found in scores.recall_at.items()}
    return {
        "schema": SCHEMA,
        "k": k,
        "mean": _means(scores) | recalls,
        "queries": query_rows(texts, scores),
    }


def query_summary(scores: RankingScores, k: int) -> list[list[str]]:
    """Printable means over free-text queries, in percent: name and figure."""
    names = {"ap_at_k": f"mAP@{k}", "ap": "mAP"}
    rows = [
        [name, percent(scores.mean(field), scores.interval(field))] for field, name in names.items()
    ]
    return rows + [[f"recall@{k}", percent(_mean(v))] for k, v in scores.recall_at.items()]


def summary_rows(evaluation: ClassEvaluation) -> list[tuple[str, list[str]]]:
    """Printable rows, in percent: label, then one cell for each name in ``METRICS``."""
    rows = [
        ("all", _cells(evaluation.all_sizes)),
        ("small-medium", _cells(evaluation.small_medium)),
    ]
    for group in evaluation.group_names():
        members = evaluation.members(group)
        rows.append((group, [percent(evaluation.all_sizes.mean(f, members)) for f in _FIELDS]))
    return rows


def summary_header(k: int) -> list[str]:
    """Column titles of ``summary_rows``."""
    return ["", f"mAP@{k}", "mAP", f"mAP@{k} ÷ found", f"mAP@{k} ÷ relevant"]


def to_markdown(evaluation: ClassEvaluation) -> str:
    """The summary as a Markdown table."""
    rows = [[label, *cells] for label, cells in summary_rows(evaluation)]
    return markdown_table(summary_header(evaluation.k), rows)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; pipes in cells are escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join(["---", *["---:"] * (len(header) - 1)]) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Flat rows as CSV, None as an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def percent(value: float, interval: tuple[float, float] | None = None) -> str:
    """A share in percent, with its interval if there is one; a dash for NaN.

    >>> percent(0.3231), percent(float("nan")), percent(0.5, (0.41, 0.6))
    ('32.3', '–', '50.0 (41.0–60.0)')
    """
    if math.isnan(value):
        return "–"
    if interval is None:
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f} ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})"


_FIELDS = tuple(METRICS.values())


def _cells(scores: RankingScores) -> list[str]:
    return [percent(scores.mean(field), scores.interval(field)) for field in _FIELDS]


def _means(scores: RankingScores) -> dict[str, Any]:
    means: dict[str, Any] = {}
    for name, field in METRICS.items():
        means[name] = _number(scores.mean(field))
        interval = scores.interval(field)
        if interval is not None:
            means[f"{name}_interval"] = list(interval)
    return means


def _mean(values: Floats) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
