"""What people found when they checked images against the labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.mining.labels import ABSENT, PRESENT, UNKNOWN
from hardmine.records import names_to_rows, rows_of

Decision = Literal["missing", "other", "skip", "open"]


class CheckRecord(msgspec.Struct, frozen=True):
    """One line of a file of checks; of an image and class the last line counts.

    Attributes:
        time: UTC, ISO 8601.
        image_id: As in the labels.
        class_name: The class that the image resembles.
        kind: "suspect" or "confuser".
        score: Cosine similarity to the class's query.
        box: Matching region, xyxy as shares of the image's width and height.
        decision: "missing" (the label is), "other" (something else is shown), "skip", or "open"
            where an answer was taken back.
    """

    time: str
    image_id: int | str
    class_name: str
    kind: str
    score: float
    box: tuple[float, float, float, float]
    decision: Decision

    @property
    def key(self) -> tuple[int | str, str]:
        """What it is about."""
        return self.image_id, self.class_name


class CheckedRows(NamedTuple):
    """Images of one class that people checked, as ascending rows.

    Attributes:
        present: They show the class, although it is not labelled.
        absent: They show something else.
    """

    present: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()


NOT_CHECKED = CheckedRows()


@dataclass(frozen=True)
class CheckedLabels:
    """What people found, as pairs of an image row and a class row.

    Attributes:
        present: The image shows the class, although it is not labelled.
        absent: The image shows something else.
    """

    present: tuple[tuple[int, int], ...] = ()
    absent: tuple[tuple[int, int], ...] = ()

    def of_class(self, class_row: int) -> CheckedRows:
        """The images checked for a class."""
        return self._by_class.get(class_row, NOT_CHECKED)

    @cached_property
    def _by_class(self) -> dict[int, CheckedRows]:
        rows: dict[int, tuple[list[int], list[int]]] = {}
        for place, pairs in enumerate((self.present, self.absent)):
            for image, class_row in pairs:
                rows.setdefault(class_row, ([], []))[place].append(image)
        return {
            class_row: CheckedRows(*(tuple(sorted(images)) for images in both))
            for class_row, both in rows.items()
        }


def read_checks(file: Path) -> tuple[CheckRecord, ...]:
    """Read a file of checks: the last answer for each image and class; none without the file.

    Raises:
        InputError: If a line, other than an incomplete last one, is not an answer.
    """
    return tuple({one.key: one for one in _lines(file)}.values())


def match_checks(
    checks: Sequence[CheckRecord], ids: npt.NDArray[Any], class_names: Sequence[str]
) -> CheckedLabels:
    """Arrange decided checks by the images and classes of a training loop.

    Args:
        checks: Those of other images or classes, skipped and open ones are left out.
        ids: (N,) image ids in the order of the sampler's rows.
        class_names: C names.
    """
    if not checks:
        return CheckedLabels()
    # An image may be several of the sampler's rows, so rows are looked up among the checks.
    image_ids = np.unique(np.asarray([one.image_id for one in checks]))
    place = rows_of(image_ids, ids)
    rows = np.flatnonzero(place >= 0)
    rows = rows[np.argsort(place[rows], kind="stable")]
    starts = np.searchsorted(place[rows], np.arange(len(image_ids) + 1))
    places = rows_of(image_ids, [one.image_id for one in checks]).tolist()
    classes = names_to_rows([one.class_name for one in checks], class_names).tolist()
    pairs: dict[str, list[tuple[int, int]]] = {"missing": [], "other": []}
    for one, image, class_row in zip(checks, places, classes, strict=True):
        if one.decision in pairs and class_row >= 0:
            found = rows[starts[image] : starts[image + 1]].tolist()
            pairs[one.decision] += [(row, class_row) for row in found]
    return CheckedLabels(tuple(sorted(pairs["missing"])), tuple(sorted(pairs["other"])))


def with_checks(
    status: npt.NDArray[np.int8], checked: CheckedRows
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
    """(N,) status of a class by labels and checks, and rows confirmed to show it without a label.

    Confirmed rows have status ``UNKNOWN``: their labels must not count against them.
    """
    present, absent = (np.array(rows, np.int64) for rows in checked)
    status[absent[status[absent] != PRESENT]] = ABSENT
    confirmed = present[status[present] != PRESENT]
    status[confirmed] = UNKNOWN
    return status, confirmed


def _lines(file: Path) -> Iterator[CheckRecord]:
    try:
        lines = file.read_bytes().split(b"\n") if file.exists() else []
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    for place, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            yield msgspec.json.decode(line, type=CheckRecord)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            if place == len(lines) - 1:
                return  # a kill cut it short; the next answer replaces it
            raise InputError(
                f"{file}, line {place + 1} is not an answer to a check: {error}; mend the line or "
                "move the file away"
            ) from error
