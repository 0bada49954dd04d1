"""Make a report from detections or metrics, labels and indexes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hardmine.detections import Detections, Slice, load_detections
from hardmine.encoders.base import Encoder
from hardmine.errors import InputError
from hardmine.index.base import Index
from hardmine.index.coverage import require_same_files
from hardmine.metrics import read_scores
from hardmine.records import ImageSet
from hardmine.report.diagnose import diagnose_gaps
from hardmine.report.gap_output import GapReport
from hardmine.report.gaps import Measurement, class_gaps, measure_detections
from hardmine.report.mining_preview import MiningPreview, preview_mining
from hardmine.report.outlook import outlook
from hardmine.report.text_slices import (
    UNNAMED,
    TextSlice,
    suggest_slices,
    text_slices,
    with_shares,
    worst_contexts,
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
    epochs: float | None = None,
) -> GapReport:
    """Make a report from detections or metrics, and from whatever else is given.

    Args:
        title: Names the detector or the run.
        detections: In COCO's results format, on ``val``.
        metrics: In any form that ``read_scores`` reads, instead of detections.
        percent: Whether a plain table of metrics is in percent.
        val: Validation images with labels; required with detections.
        train: Training images with labels.
        index: Of the training images; used with ``train`` and ``encoder``.
        val_index: Of the validation images, for slices and for the look of what is missed.
        encoder: The one that made the indexes.
        slices: Texts; the AP on the validation images that answer each is compared with the rest.
        suggest: Whether to find conditions in which the detector fails, as slices.
        epochs: How often the next training will show each image.

    Raises:
        InputError: If files do not belong together; the message says which.
        IndexMismatch: If an index is of another data set with the same ids.
    """
    if index is not None:
        require_same_files(index, train)
    # The index of the training images stands in for one of both.
    if val_index is not None and (val_index is not index or slices or suggest):
        require_same_files(val_index, val)
    given = None
    if detections is not None:
        if val is None:
            raise InputError("detections need the validation images with their labels: give val")
        given = load_detections(detections, val)
        measurement = measure_detections(val, given)
        source = "detections"
    else:
        measurement = Measurement.from_scores(read_scores(metrics, percent=percent))
        source = measurement.scores.source or "metrics"
    gaps, unmatched = class_gaps(measurement, val=val, train=train)
    mining = None
    if index is not None and train is not None and encoder is not None:
        mining = preview_mining(
            index,
            encoder,
            train,
            measurement.scores,
            val=val,
            # An index of both tells the look of images too, but not whose an id is.
            val_index=None if val_index is index else val_index,
            detections=given,
            epochs=epochs,
        )
        gaps = [replace(gap, retrieval=mining.retrieval.get(gap.name)) for gap in gaps]
    measured_slices: list[TextSlice] = []
    worst: dict[str, Slice] = {}
    if val is not None and val_index is not None and encoder is not None and measurement.matches:
        on_validation = (val, measurement.matches, val_index, encoder)
        if slices:
            measured_slices += text_slices(slices, *on_validation)
        if suggest:
            measured_slices += suggest_slices(*on_validation)
        if index is not None and train is not None:
            measured_slices = with_shares(
                measured_slices, encoder, val=(val, val_index), train=(train, index)
            )
        harder = [
            one
            for one in measured_slices
            if one.significant and one.gap > 0 and one.text != UNNAMED
        ]
        worst = worst_contexts(harder, *on_validation)
    gaps = diagnose_gaps(gaps, worst_contexts=worst)
    return GapReport(
        title=title,
        source=source,
        gaps=tuple(gaps),
        about=_about(measurement, given, val, train),
        notes=_notes(unmatched, mining, suggest, measured_slices),
        mining=mining,
        slices=tuple(measured_slices),
        outlook=outlook(gaps, measured_slices, epochs=epochs) if mining is not None else (),
    )


def _about(
    measurement: Measurement,
    detections: Detections | None,
    val: ImageSet | None,
    train: ImageSet | None,
) -> tuple[tuple[str, str], ...]:
    about = []
    for split, images in (("validation", val), ("training", train)):
        if images is not None:
            about.append((f"{split} images", f"{len(images):,}"))
            if images.instances is not None:
                about.append((f"{split} objects", f"{len(images.instances):,}"))
    if detections is not None:
        about.append(("detections", f"{len(detections):,}"))
    about.append(("classes", str(len(measurement.scores))))
    return tuple(about)


def _notes(
    unmatched: list[str], mining: MiningPreview | None, suggest: bool, slices: list[TextSlice]
) -> tuple[str, ...]:
    notes = list(unmatched)
    if mining is not None:
        muted = sum(one.trust < 0.1 for one in mining.retrieval.values())
        if muted:
            notes.append(
                f"A search for the names of {muted} classes finds almost no image that has the "
                "label (trust below 0.1); mining ignores its hits."
            )
    if suggest and not any(one.suggested for one in slices):
        notes.append(
            "No suggested slice: in none of the conditions tried are more objects missed, or more "
            "detections false, than chance explains."
        )
    return tuple(notes)
