"""What a server shows: an index and its encoder, labels, detections and rounds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from hardmine.datasets import load_images
from hardmine.encoders import load_encoder
from hardmine.errors import InputError
from hardmine.index import open_index, stored_encoder
from hardmine.index.coverage import other_file, require_same_files
from hardmine.records import ImageSet, names_to_rows

if TYPE_CHECKING:
    import scipy.sparse

    from hardmine.encoders.base import Encoder
    from hardmine.index.base import Index


_MAX_FOLDERS = 100  # in a list to choose from

# Which of a workspace's indexes an image is of.
Source = Literal["index", "val", "pool"]


@dataclass(frozen=True)
class Workspace:
    """What a server shows. Everything but index and encoder may be missing.

    Attributes:
        name: Of the index, for the pages.
        index: The images that are searched.
        encoder: The one that made it.
        images: Their labels.
        val_images: Labelled images that the detections are on.
        val_index: An index of those; AP by question is measured on it.
        detections: COCO results file.
        rounds: File that the miner of a training appends to.
        pool: An index of unlabelled images to collect from.
        folder: Where answers to checks, contexts and slices are kept.
    """

    name: str
    index: Index
    encoder: Encoder
    images: ImageSet | None = None
    val_images: ImageSet | None = None
    val_index: Index | None = None
    detections: Path | None = None
    rounds: Path | None = None
    pool: Index | None = None
    folder: Path = Path()

    def index_of(self, source: Source) -> Index:
        """One of the indexes.

        Raises:
            InputError: If there is none.
        """
        found = {"index": self.index, "val": self.val_index, "pool": self.pool}[source]
        if found is None:
            raise InputError(f"there is no index of {source}")
        return found

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the labels; empty without."""
        return () if self.images is None else self.images.class_names

    @cached_property
    def label_rows(self) -> npt.NDArray[np.int64]:
        """(N,) row of each indexed image among the labelled ones; -1 for none."""
        if self.images is None:
            return np.full(len(self.index), -1, np.int64)
        return self.images.rows_of(self.index.ids)

    @cached_property
    def unlabelled_pool(self) -> npt.NDArray[np.bool_]:
        """(P,) which images of the pool are no file that has labels, of training or validation."""
        pool = self.index_of("pool")
        labelled: set[str] = set()
        for index, images in ((self.index, self.images), (self.val_index, self.val_images)):
            if index is not None and images is not None:
                files = _files(index)
                rows = index.rows_of(images.ids)
                labelled.update(files[row] for row in rows[rows >= 0].tolist())
        return np.fromiter((file not in labelled for file in _files(pool)), bool, len(pool))

    @cached_property
    def class_counts(self) -> scipy.sparse.csr_matrix:
        """(N, C) objects of each class in each indexed image."""
        import scipy.sparse

        if self.images is None:
            return scipy.sparse.csr_matrix((len(self.index), 0), dtype=np.int32)
        counts = self.images.class_counts
        none = scipy.sparse.csr_matrix((1, counts.shape[1]), dtype=counts.dtype)
        # Row -1, for images without labels, is the last.
        return scipy.sparse.vstack([counts, none], format="csr")[self.label_rows]

    @cached_property
    def _by_class(self) -> scipy.sparse.csc_matrix:
        return self.class_counts.tocsc()

    def has_class(self, name: str) -> npt.NDArray[np.bool_]:
        """(N,) whether an indexed image is labelled with a class.

        Raises:
            InputError: If the labels have no such class.
        """
        if name not in self.class_names:
            raise InputError(f"the labels have no class {name!r}")
        column = self._by_class[:, [self.class_names.index(name)]]
        has = np.zeros(len(self.index), bool)
        has[column.indices] = True
        return has

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """Folders to choose images by, such as those of splits, sorted.

        Those that images lie in and those above, except where all images lie; of as many levels as
        make at most 100, as a folder for each of a thousand clips is none to choose from a list.
        """
        above = {
            "/".join(parts[:depth])
            for parts in (folder.split("/") for folder in self._own_folders)
            for depth in range(1, len(parts) + 1)
        }
        partial = [name for name in above if name and not self.in_folder(name).all()]
        depths = np.array([name.count("/") for name in partial], np.int64)
        levels = np.cumsum(np.bincount(depths))
        deepest = np.count_nonzero(levels <= _MAX_FOLDERS) - 1
        return tuple(sorted(name for name in partial if name.count("/") <= deepest))

    @cached_property
    def _own_folders(self) -> tuple[str, ...]:
        return tuple(sorted({_folder(path) for path in self.index.paths}))

    @cached_property
    def _folder_rows(self) -> npt.NDArray[np.int64]:
        return names_to_rows([_folder(path) for path in self.index.paths], self._own_folders)

    def in_folder(self, folder: str) -> npt.NDArray[np.bool_]:
        """(N,) whether an indexed image lies in a folder or below it."""
        inside = [name == folder or name.startswith(f"{folder}/") for name in self._own_folders]
        return np.array(inside, bool)[self._folder_rows]

    def classes_of(self, row: int) -> list[tuple[str, int]]:
        """Classes labelled in an indexed image, with the number of objects."""
        line = self.class_counts[[row]]
        return [
            (self.class_names[column], int(count))
            for column, count in zip(line.indices.tolist(), line.data.tolist(), strict=True)
        ]

    def path(self, row: int, source: Source = "index") -> Path:
        """File of an image.

        Raises:
            InputError: If there is no such row.
        """
        index = self.index_of(source)
        if not 0 <= row < len(index):
            raise InputError(f"there is no image {row}; rows go from 0 to {len(index) - 1}")
        # The index refused paths that leave its root when it was opened.
        return index.root / index.paths[row]

    def image(self, row: int, source: Source = "index") -> dict[str, Any]:
        """An image as JSON values; the labels are those of an image of the index."""
        index = self.index_of(source)
        height, width = index.sizes[row].tolist()
        own = source == "index"
        return {
            "row": row,
            "of": source,
            "id": index.ids[row].item(),
            "path": index.paths[row],
            "aspect": round(width / height if height and width else 4 / 3, 4),
            "labelled": bool(own and self.label_rows[row] >= 0),
            "classes": [
                {"name": name, "count": count}
                for name, count in (self.classes_of(row) if own else ())
            ],
        }


def open_workspace(
    index: Path,
    *,
    ann: Path | None = None,
    images: Path | None = None,
    detections: Path | None = None,
    val_ann: Path | None = None,
    val_index: Path | None = None,
    rounds: Path | None = None,
    pool: Path | None = None,
    encoder: str | None = None,
    device: str | None = None,
    folder: Path | None = None,
) -> Workspace:
    """Open an index and whatever belongs to it.

    Args:
        index: Folder of the index.
        ann: Labels of its images.
        images: Folder of its images, if they were moved.
        detections: COCO results file.
        val_ann: Labels of the images that the detections are on; ``ann`` if None.
        val_index: Index of those images; ``index`` if None.
        rounds: Rounds file of a training; it need not exist yet.
        pool: Index of unlabelled images to collect from.
        encoder: Name of the encoder; the one that built the index if None.
        device: Where the encoder and the search compute.
        folder: Where answers are kept; a folder beside the index if None.

    Raises:
        HardmineError: If a file is missing, or files do not belong together.
    """
    if detections is not None and val_ann is None and ann is None:
        raise InputError(
            "detections need the labels of the images they are on: give --val-ann, or --ann if "
            "these are the images of the index"
        )
    if detections is not None and not detections.is_file():
        raise InputError(f"no detections file at {detections}; give a COCO results file (.json)")
    loaded = (
        load_encoder(encoder, device=device) if encoder else stored_encoder(index, device=device)
    )
    opened = open_index(index, encoder=loaded, device=device, root=images)
    labels = None if ann is None else load_images(ann, check_files=False)
    _require_overlap(opened, labels, "--ann")
    val_images = labels if val_ann is None else load_images(val_ann, check_files=False)
    val_opened: Index | None = opened
    if val_index is not None:
        val_opened = open_index(val_index, encoder=loaded)
        _require_overlap(val_opened, val_images, "--val-ann")
    elif val_images is not None and (
        other_file(opened, val_images) or not (opened.rows_of(val_images.ids) >= 0).any()
    ):
        val_opened = None
    return Workspace(
        name=index.name,
        index=opened,
        encoder=loaded,
        images=labels,
        val_images=val_images,
        val_index=val_opened,
        detections=detections,
        rounds=rounds,
        pool=None if pool is None else open_index(pool, encoder=loaded, device=device),
        folder=folder or index.resolve().with_suffix(".serve"),
    )


def _files(index: Index) -> list[str]:
    """Where each image of an index lies."""
    root = index.root.resolve()
    return [os.path.normpath(f"{root}/{path}") for path in index.paths]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _require_overlap(index: Index, images: ImageSet | None, option: str) -> None:
    if images is None or not len(index) or not len(images):
        return
    if not (index.rows_of(images.ids) >= 0).any():
        raise InputError(
            f"the index holds none of the {len(images)} images of {option} (ids such as "
            f"{index.ids[0]} against {images.ids[0]}); was it built from another split?"
        )
    require_same_files(index, images)
