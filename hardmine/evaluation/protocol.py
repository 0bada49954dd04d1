"""The table of the paper: its systems, its figures, and a run of those systems."""

from __future__ import annotations

import csv
import importlib.resources
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from hardmine.clusters import parse_spec
from hardmine.encoders import load_encoder
from hardmine.encoders.templates import embed_prompts
from hardmine.errors import HardmineError, InputError
from hardmine.evaluation.classes import ClassEvaluation, evaluate_classes
from hardmine.index import build_index
from hardmine.index.builder.pipeline import Progress
from hardmine.records import ImageSet

PUBLISHED_SOURCE = (
    "Levi, Heller, Levi, Fetaya: Object-Centric Open-Vocabulary Image Retrieval with Aggregated "
    "Features, BMVC 2023, arXiv 2309.14999"
)

T = TypeVar("T")


class SystemRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One system of a table.

    Attributes:
        system: As published, e.g. "Cluster-CLIP K.M.".
        backbone: As published, e.g. "RN50x64".
        resolution: As published.
        encoder: Name for ``load_encoder``.
        clusters: Spec for ``parse_spec``.
        image_size: Side in pixels that images are resized to; None for the encoder's default.
        dense: Dense mode of a ViT.
    """

    system: str
    backbone: str
    encoder: str
    clusters: str
    resolution: int | None = None
    image_size: int | None = None
    dense: str = "value"

    @property
    def label(self) -> str:
        """Name to print."""
        return " ".join(filter(None, [self.system, self.backbone, str(self.resolution or "")]))

    @property
    def folder(self) -> str:
        """Name of the row's index folder."""
        parts = [self.encoder, str(self.image_size or ""), self.dense, self.clusters]
        return re.sub(r"[^A-Za-z0-9.+=_-]+", "-", "_".join(parts)) + ".hmx"


class Protocol(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a data set's table is made.

    Attributes:
        name: Name to print, e.g. "COCO val2017".
        systems: File with the list of systems, in the same folder as the protocol.
        published: Prefix of this data set's columns in published.csv; None if it has none.
        templates: Prompt templates for class names.
        group: Report this frequency group (such as "rare") instead of all classes.
        reference_side: Longer side at which object areas are measured.
        all_images: Rank all images of federated labels.
    """

    name: str
    systems: str
    published: str | None = None
    templates: str = "clip80"
    group: str | None = None
    reference_side: float | None = None
    all_images: bool = False


@dataclass(frozen=True)
class Figures:
    """The three figures of a row, in percent; None where unknown."""

    map_at_50: float | None
    map: float | None
    map_at_50_small_medium: float | None


@dataclass(frozen=True)
class RowResult:
    """The evaluation of one row, or the reason why there is none."""

    row: SystemRow
    published: Figures | None
    evaluation: ClassEvaluation | None
    reason: str = ""


def load_protocol(file: Path) -> tuple[Protocol, list[SystemRow]]:
    """Read a protocol's YAML file and the list of its systems."""
    protocol = _read_yaml(file, Protocol)
    if Path(protocol.systems).name != protocol.systems:
        raise InputError(
            f"{file}: systems must name a file in the same folder, got {protocol.systems!r}"
        )
    rows = _read_yaml(file.with_name(protocol.systems), list[SystemRow])
    for row in rows:
        parse_spec(row.clusters)
    return protocol, rows


def _read_yaml(file: Path, kind: type[T]) -> T:
    try:
        return msgspec.yaml.decode(file.read_bytes(), type=kind)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise InputError(f"{file}: {error}") from None


def published_figures(row: SystemRow, column: str | None) -> Figures | None:
    """The paper's figures of a row on a data set; None if the paper has no such row."""
    if column is None:
        return None
    text = (importlib.resources.files("hardmine.evaluation") / "published.csv").read_text("utf-8")
    for line in csv.DictReader(text.splitlines()):
        if (
            line["system"] == row.system
            and line["backbone"] == row.backbone
            and line["resolution"] == str(row.resolution or "")
        ):
            cells = [line.get(f"{column}_{name}") for name in ("map50", "map", "map50_sm")]
            return Figures(*[float(cell) if cell else None for cell in cells])
    return None


def run_protocol(
    protocol: Protocol,
    rows: Sequence[SystemRow],
    images: ImageSet,
    folder: Path,
    *,
    device: str | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    bootstrap: int = 0,
    announce: Callable[[SystemRow], None] | None = None,
    build_progress: Callable[[Progress], None] | None = None,
) -> Iterator[RowResult]:
    """Build the index of each row below ``folder`` and evaluate it.

    A row that cannot run (missing weights, extra or file) yields its reason instead of figures, and
    the next row follows. Finished indexes are reused; interrupted builds are resumed.
    """
    for row in rows:
        if announce is not None:
            announce(row)
        published = published_figures(row, protocol.published)
        try:
            encoder = load_encoder(
                row.encoder, image_size=row.image_size, dense=row.dense, device=device
            )
            index = build_index(
                images,
                encoder,
                folder / row.folder,
                clusters=row.clusters,
                batch_size=batch_size,
                workers=workers,
                progress=build_progress,
            )
            texts = embed_prompts(encoder, images.class_names, templates=protocol.templates)
            evaluation = evaluate_classes(
                index,
                images,
                texts,
                reference_side=protocol.reference_side,
                all_images=protocol.all_images,
                bootstrap=bootstrap,
            )
        except HardmineError as error:
            yield RowResult(row, published, None, reason=str(error))
        else:
            yield RowResult(row, published, evaluation)
