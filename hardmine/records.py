"""Values that pass between the parts: frozen, validated once when made."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError, Unreachable

if TYPE_CHECKING:
    import PIL.Image
    import scipy.sparse
    import torch

# COCO's size classes, and the areas that separate them, in square pixels.
SIZES = ("small", "medium", "large")
SIZE_EDGES = (32.0**2, 96.0**2)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


@dataclass(frozen=True)
class Instances:
    """Labelled boxes of an image set, sorted by image row.

    Attributes:
        image_rows: (M,) int32, ascending.
        class_rows: (M,) int32, position in ``ImageSet.class_names``.
        boxes: (M, 4) float32, xyxy in pixels of the image file.
        areas: (M,) float32 in square pixels: the mask's where the format has one, else the box's.
        crowd: (M,) bool: a group box, never counted as one object.
        ids: (M,) int64, the annotation's own id, or its position where the format has none.
    """

    image_rows: npt.NDArray[np.int32]
    class_rows: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.float32]
    areas: npt.NDArray[np.float32]
    crowd: npt.NDArray[np.bool_]
    ids: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        count = len(self.image_rows)
        for name, shape in (
            ("class_rows", (count,)),
            ("boxes", (count, 4)),
            ("areas", (count,)),
            ("crowd", (count,)),
            ("ids", (count,)),
        ):
            got = getattr(self, name).shape
            _require(got == shape, f"Instances.{name} must have shape {shape}, got {got}")
        _require(
            count < 2 or bool((np.diff(self.image_rows) >= 0).all()),
            "Instances must be sorted by image_rows",
        )

    def __len__(self) -> int:
        return len(self.image_rows)

    def take(self, chosen: npt.NDArray[Any]) -> Instances:
        """Keep some instances, by mask or by ascending positions."""
        return Instances(
            self.image_rows[chosen],
            self.class_rows[chosen],
            self.boxes[chosen],
            self.areas[chosen],
            self.crowd[chosen],
            self.ids[chosen],
        )

    @classmethod
    def empty(cls) -> Instances:
        """No instances at all."""
        rows = np.zeros(0, np.int32)
        return cls(
            rows,
            rows,
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, bool),
            np.zeros(0, np.int64),
        )


@dataclass(frozen=True)
class ImageSet:
    """N images of a data set, with what its labels say.

    Attributes:
        root: Folder that ``paths`` are relative to; an ``Address`` where it is on another host.
        ids: (N,) int64, or str where the format's ids are text. Unique.
        paths: N paths below ``root``, with forward slashes.
        sizes: (N, 2) int32 height and width; 0 where the format does not say.
        class_names: C names; empty where there are no labels.
        class_ids: (C,) int64, the data set's own category ids.
        instances: Labelled boxes; None where the set has no labels (a plain folder).
        class_synonyms: For each class its other names, own name included; empty if unknown.
        class_frequency: LVIS's "r", "c" or "f" for each class; empty if unknown.
        negatives: (N, C) bool, classes verified absent (LVIS); None where every class is
            labelled exhaustively.
        not_exhaustive: (N, C) bool, classes of which an image may hold unlabelled instances.
        notes: What the reader left out or corrected, one line each, for people.
        reader: Returns the bytes of an image file by its path in ``paths``, for images that are
            not files; None for files. Called from several threads at once.
    """

    root: Path
    ids: npt.NDArray[Any]
    paths: tuple[str, ...]
    sizes: npt.NDArray[np.int32]
    class_names: tuple[str, ...] = ()
    class_ids: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    instances: Instances | None = None
    class_synonyms: tuple[tuple[str, ...], ...] = ()
    class_frequency: tuple[str, ...] = ()
    negatives: scipy.sparse.csr_matrix | None = None
    not_exhaustive: scipy.sparse.csr_matrix | None = None
    notes: tuple[str, ...] = ()
    reader: Callable[[str], bytes] | None = None

    def __post_init__(self) -> None:
        count, classes = len(self.ids), len(self.class_names)
        _require(
            len(self.paths) == count, f"paths: expected {count}, one an id, got {len(self.paths)}"
        )
        _require(
            self.sizes.shape == (count, 2), f"sizes: expected {(count, 2)}, got {self.sizes.shape}"
        )
        _require(
            len(self.class_ids) == classes,
            f"class_ids: expected {classes}, one a class name, got {len(self.class_ids)}",
        )
        _require(len(np.unique(self.ids)) == count, "image ids must be unique")
        if len(set(self.class_names)) < classes:  # the labels of one would count for both
            name, _ = Counter(self.class_names).most_common(1)[0]
            raise InputError(f"class names must be unique, {name!r} is there twice")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labelled(self) -> bool:
        """Whether the set has labels at all."""
        return self.instances is not None

    @property
    def federated(self) -> bool:
        """Whether an unlabelled class may be present unless verified absent (LVIS)."""
        return self.negatives is not None

    def path(self, row: int) -> Path:
        """Where the image at a row lies; its name in messages if it is no file."""
        return self.root / self.paths[row]

    def read(self, row: int) -> bytes:
        """The bytes of the image file at a row.

        Raises:
            InputError: If it is missing or cannot be read.
            Unreachable: If its host cannot be reached, which says nothing about the image.
        """
        if self.reader is None:
            from hardmine.image_files.decode import read_image

            return read_image(self.path(row))
        try:
            return self.reader(self.paths[row])
        except Unreachable:
            raise
        except (ConnectionError, TimeoutError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise Unreachable(f"{self.path(row)}: cannot be reached: {problem}") from error
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            raise InputError(f"{self.path(row)}: cannot be read: {problem}") from error

    def open(self, row: int) -> PIL.Image.Image:
        """The image at a row in 8-bit RGB, EXIF orientation applied, wherever it is kept.

        Raises:
            InputError: If it is missing or cannot be decoded.
        """
        from hardmine.image_files.decode import decode_image

        return decode_image(self.read(row), self.path(row))

    def modified(self, row: int) -> int:
        """When the image file at a row was changed, in ns; -1 if missing, 0 if it is no file."""
        from hardmine.image_files.decode import modified

        return 0 if self.reader is not None else modified(self.path(row))

    @cached_property
    def class_counts(self) -> scipy.sparse.csr_matrix:
        """(N, C) int32 sparse: instances of each class in each image, crowds left out."""
        import scipy.sparse

        shape = (len(self), len(self.class_names))
        if self.instances is None:
            return scipy.sparse.csr_matrix(shape, dtype=np.int32)
        single = ~self.instances.crowd
        rows, columns = self.instances.image_rows[single], self.instances.class_rows[single]
        ones = np.ones(len(rows), np.int32)
        return scipy.sparse.csr_matrix((ones, (rows, columns)), shape=shape)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the list of images (ids and paths); labels do not matter."""
        digest = hashlib.sha256()
        for image_id, path in zip(self.ids.tolist(), self.paths, strict=True):
            # Names of files that are not UTF-8 hold surrogates, which UTF-8 lacks.
            digest.update(f"{image_id}\0{path}\n".encode(errors="backslashreplace"))
        return digest.hexdigest()

    def rows_of(self, ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Rows of images by id; -1 where the set lacks one."""
        return rows_of(self.ids, ids)

    def subset(self, rows: npt.ArrayLike) -> ImageSet:
        """Keep some images, in the order given; rows are renumbered, classes stay."""
        kept = np.asarray(rows, dtype=np.int64)
        instances = self.instances
        if instances is not None:
            starts = np.searchsorted(instances.image_rows, np.arange(len(self) + 1))
            lengths = np.diff(starts)[kept]
            # Positions of each kept image's instances, one run after the other.
            chosen = np.repeat(starts[kept] - (np.cumsum(lengths) - lengths), lengths) + np.arange(
                lengths.sum()
            )
            instances = Instances(
                np.repeat(np.arange(len(kept), dtype=np.int32), lengths),
                instances.class_rows[chosen],
                instances.boxes[chosen],
                instances.areas[chosen],
                instances.crowd[chosen],
                instances.ids[chosen],
            )
        return replace(
            self,
            ids=self.ids[kept],
            paths=tuple(self.paths[row] for row in kept.tolist()),
            sizes=self.sizes[kept],
            instances=instances,
            negatives=None if self.negatives is None else self.negatives[kept],
            not_exhaustive=None if self.not_exhaustive is None else self.not_exhaustive[kept],
        )


def rows_of(ids: npt.NDArray[Any], values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Positions of ``values`` in ``ids`` (unique, in any order); -1 where missing.

    Where only one of them is text, the other is read as text: files of results and of labels often
    disagree on whether an id is 7 or "7". "007" is another id.

    >>> rows_of(np.array([30, 10]), [10, 20, 30])
    array([ 1, -1,  0])
    """
    queried = np.asarray(values)
    if len(ids) == 0 or queried.size == 0:
        return np.full(queried.shape, -1, np.int64)
    if (queried.dtype.kind in "US") != (ids.dtype.kind in "US"):
        ids, queried = ids.astype(str), queried.astype(str)
    order = np.argsort(ids, kind="stable")
    place = np.minimum(np.searchsorted(ids, queried, sorter=order), len(ids) - 1)
    rows = order[place]
    return np.where(ids[rows] == queried, rows, -1).astype(np.int64)


@dataclass(frozen=True)
class Regions:
    """R regions of a batch of images, grouped by image in ascending order.

    Attributes:
        vectors: (R, D) float32 unit vectors.
        image_rows: (R,) int64, ascending: position of the image in its batch.
        boxes: (R, 4) float32 xyxy, as shares of the image's width and height.
        mass: (R,) float32, share of the image's patches; sums to 1 over an image's regions where
            they partition it. The whole-image region has mass 1 and the full box.
        labels: (B, H, W) int64, which of its image's regions (0, 1, ...) holds each patch; -1 for
            none. None unless asked for, or where regions overlap.
    """

    vectors: torch.Tensor
    image_rows: torch.Tensor
    boxes: torch.Tensor
    mass: torch.Tensor
    labels: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True)
class Hits:
    """The best K images for each of C queries, best first.

    Attributes:
        image_rows: (C, K) int64 rows of the index, -1 where fewer images were found.
        scores: (C, K) float32 cosine similarity, higher = more alike; -inf where none.
        boxes: (C, K, 4) float32 matching region, normalised xyxy; zeros where none.
    """

    image_rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        shape = self.image_rows.shape
        _require(len(shape) == 2, f"Hits.image_rows must be (C, K), got shape {shape}")
        _require(
            self.scores.shape == shape and self.boxes.shape == (*shape, 4),
            f"Hits.scores and boxes must be {shape} and {(*shape, 4)}, "
            f"got {self.scores.shape} and {self.boxes.shape}",
        )

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """(C, K) where there is an image."""
        return self.image_rows >= 0


@dataclass(frozen=True)
class ClassScores:
    """Per-class validation scores.

    Attributes:
        class_names: C names.
        ap: (C,) float64 average precision in [0, 1]; NaN is unknown, never zero.
        ap_by_size: (C, 3) for small, medium, large objects, NaN unknown; None if not given.
        num_instances: (C,) int64 validation instances behind each AP; None if not given.
        source: Where the numbers come from, for people.
    """

    class_names: tuple[str, ...]
    ap: npt.NDArray[np.float64]
    ap_by_size: npt.NDArray[np.float64] | None = None
    num_instances: npt.NDArray[np.int64] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        count = len(self.class_names)
        _require(self.ap.shape == (count,), f"ap: expected shape ({count},), got {self.ap.shape}")
        known = self.ap[~np.isnan(self.ap)]
        _require(
            bool(((known >= 0) & (known <= 1)).all()),
            "ap must lie in [0, 1] or be NaN; were percentages given? divide by 100",
        )

    def __len__(self) -> int:
        return len(self.class_names)


def names_to_rows(queried: Sequence[str], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Positions of class names in a list of names; -1 where missing."""
    place = {name: row for row, name in enumerate(names)}
    return np.array([place.get(name, -1) for name in queried], dtype=np.int64)


def plain_values(value: Any) -> Any:
    """Nested values as JSON holds them: arrays as lists, records as mappings, NaN as None.

    >>> plain_values({"ap": np.array([0.5, np.nan])})
    {'ap': [0.5, None]}
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        value = {entry.name: getattr(value, entry.name) for entry in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def numbers(values: Sequence[float | None]) -> npt.NDArray[np.float64]:
    """An array of what ``plain_values`` made of it: None becomes NaN."""
    return np.array([np.nan if value is None else value for value in values], np.float64)
