"""From files as people have them to a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hardmine.detections.detections import load_detections
from hardmine.detections.slices import Slice
from hardmine.encoders.base import Encoder
from hardmine.errors import InputError
from hardmine.index.base import Index
from hardmine.metrics import read_scores
from hardmine.records import ImageSet
from hardmine.report.diagnose import judge_gaps
from hardmine.report.gap_output import GapReport
from hardmine.report.gaps import Measured, class_gaps, measure_detections, scores_alone
from hardmine.report.mining_preview import Mined, mine_once
from hardmine.report.text_slices import (
    TextSlice,
    hard_conditions,
    suggest_slices,
    text_slices,
)


def make_report(
    *,
    title: str,
    detections: Any = None,
    metrics: Any = None,
    percent: bool = False,
    val: ImageSet | None = None,
    train: ImageSet | None = None,
    index: Index | None = None,
    val_index: Index | None = None,
    encoder: Encoder | None = None,
    slices: Sequence[str] = (),
    suggest: bool = False,
) -> GapReport:
    """Put a report together from detections or metrics, and whatever else is there.

    Args:
        title: What was validated.
        detections: In COCO's results format, on ``val``.
        metrics: Any form that ``read_scores`` reads, instead of detections.
        percent: Whether a plain table of metrics is in percent.
        val: Validation images with labels; needed with detections.
        train: Training images with labels.
        index: Of the training images; needs ``train`` and ``encoder``.
        val_index: Of the validation images, for slices.
        encoder: The one that made the indexes.
        slices: Texts that split the validation images.
        suggest: Whether to try conditions of its own.

    Raises:
        InputError: If files do not belong together; the message says which.
    """
    given = None
    if detections is not None:
        if val is None:
            raise InputError("detections need the validation images with their labels")
        given = load_detections(detections, val)
        measured = measure_detections(val, given)
        source = "detections"
    else:
        measured = scores_alone(read_scores(metrics, percent=percent))
        source = measured.scores.source or "metrics"
    gaps, unmatched = class_gaps(measured, val=val, train=train)
    mined = None
    if index is not None and train is not None and encoder is not None:
        mined = mine_once(
            index,
            encoder,
            train,
            measured.scores,
            val=val,
            detections=given,
        )
        gaps = [replace(gap, retrieval=mined.retrieval.get(gap.name)) for gap in gaps]
    sliced: list[TextSlice] = []
    harder: dict[str, Slice] = {}
    if val is not None and val_index is not None and encoder is not None and measured.matches:
        if slices:
            sliced += text_slices(slices, val, measured.matches, val_index, encoder)
        if suggest:
            sliced += suggest_slices(val, measured.matches, val_index, encoder)
        conditions = [one.text for one in sliced if one.matters and one.gap > 0]
        harder = hard_conditions(conditions, val, measured.matches, val_index, encoder)
    return GapReport(
        title=title,
        source=source,
        gaps=tuple(judge_gaps(gaps, slices=harder)),
        about=_about(measured, given, val, train),
        notes=_notes(unmatched, mined, suggest, sliced),
        mined=mined,
        slices=tuple(sliced),
    )


def _about(
    measured: Measured, given: Any, val: ImageSet | None, train: ImageSet | None
) -> tuple[tuple[str, str], ...]:
    about = []
    for name, images in (("validation images", val), ("training images", train)):
        if images is not None:
            about.append((name, f"{len(images):,}"))
            if images.instances is not None:
                about.append((f"{name.split()[0]} objects", f"{len(images.instances):,}"))
    if given is not None:
        about.append(("detections", f"{len(given):,}"))
    about.append(("classes", str(len(measured.scores))))
    return tuple(about)


def _notes(
    unmatched: list[str], mined: Mined | None, suggest: bool, slices: list[TextSlice]
) -> tuple[str, ...]:
    notes = list(unmatched)
    if mined is not None:
        muted = sum(one.trust < 0.1 for one in mined.retrieval.values())
        if muted:
            notes.append(
                f"The index answers {muted} class names too badly to be listened to (trust < 0.1)."
            )
    if suggest and not any(one.suggested for one in slices):
        notes.append("None of the conditions tried makes a difference that chance would not.")
    return tuple(notes)
