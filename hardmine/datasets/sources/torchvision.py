"""Reads torchvision's detection sets, and any set of (image, target) pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from hardmine.datasets import coco, voc
from hardmine.datasets.from_objects import images_from
from hardmine.errors import InputError
from hardmine.records import ImageSet


@dataclass(frozen=True)
class PairReader:
    """Reads the images of a set of (image, target) pairs by position, as uncompressed files.

    Attributes:
        pairs: The data set. Its transforms must not be random: an image that changes from one call
            to the next does not fit its index.
    """

    pairs: Any

    def __call__(self, name: str) -> bytes:
        """The bytes of a PPM file with the pixels of an image, whose name begins with its row."""
        pixels = _pixels(self.pairs[int(name.partition("/")[0])][0])
        height, width, _ = pixels.shape
        return b"P6 %d %d 255\n" % (width, height) + pixels.tobytes()


def from_torchvision(
    dataset: Any, class_names: Sequence[str] | Mapping[int, str] | None = None
) -> ImageSet:
    """Make an image set of a detection data set, in its order.

    ``CocoDetection`` and ``VOCDetection`` are read by their files, whatever their transforms; a
    ``Subset`` of a set keeps its order. Of any other set every pair is read once, and images are
    read through it again when they are opened: pass one without random transforms. Their paths
    hold a checksum of the pixels, which tells an index of another set from one of this.

    Args:
        dataset: Of pairs (image, target). A target has ``boxes`` (n, 4), xyxy in pixels, and
            ``labels`` (n,). An image is a PIL image, a (3, height, width) tensor of bytes or of
            floats in [0, 1], or a (height, width, 3) array of bytes.
        class_names: For such sets the names of the labels, as a list or by number; a number
            without boxes, such as 0 for the background, may be left out of a mapping.

    Raises:
        InputError: If the set is not one of these, or labels have no names.
    """
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        whole = from_torchvision(dataset.dataset, class_names)
        return whole.subset(np.asarray(dataset.indices, np.int64))
    if hasattr(dataset, "coco") and hasattr(dataset, "ids"):
        return coco.from_api(dataset.coco, list(dataset.ids), Path(dataset.root))
    if hasattr(dataset, "images") and hasattr(dataset, "targets") and hasattr(dataset, "year"):
        return voc.from_files(list(map(Path, dataset.targets)), list(map(Path, dataset.images)))
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise InputError(
            f"expected a data set with a length and positions, got {type(dataset).__name__}"
        )
    return _from_pairs(dataset, class_names)


def _from_pairs(dataset: Any, class_names: Sequence[str] | Mapping[int, str] | None) -> ImageSet:
    paths, boxes, labels, sizes = [], [], [], []
    for row in range(len(dataset)):
        pair = dataset[row]
        if not isinstance(pair, Sequence) or len(pair) < 2 or not isinstance(pair[1], Mapping):
            raise InputError(
                f"position {row} of the data set is not a pair of an image and a target with "
                "'boxes' and 'labels'"
            )
        image, target = pair[0], pair[1]
        missing = [name for name in ("boxes", "labels") if name not in target]
        if missing:
            raise InputError(
                f"target {row} has no {' and no '.join(missing)}; it holds {', '.join(target)}"
            )
        boxes.append(np.asarray(target["boxes"], np.float64).reshape(-1, 4))
        labels.append(np.asarray(target["labels"]).reshape(-1))
        pixels = _pixels(image)
        sizes.append(pixels.shape[:2])
        paths.append(f"{row}/{crc32(pixels.tobytes()):08x}")
    if class_names is None:
        raise InputError("the labels of this data set are numbers; pass class_names=")
    names, labels = _named(class_names, labels)
    return images_from(paths, boxes, labels, names, sizes=sizes, reader=PairReader(dataset))


def _named(
    class_names: Sequence[str] | Mapping[int, str], labels: list[npt.NDArray[Any]]
) -> tuple[list[str], list[npt.NDArray[Any]]]:
    """Names in the order of their numbers, and the labels as those names."""
    by_number = (
        {int(number): name for number, name in class_names.items()}
        if isinstance(class_names, Mapping)
        else dict(enumerate(class_names))
    )
    unknown = sorted({int(n) for each in labels for n in each.tolist()} - set(by_number))
    if unknown:
        raise InputError(
            f"the data set has labels {unknown[:5]}, for which class_names has no name; where "
            "labels begin at 1, pass a mapping of number to name"
        )
    names = [by_number[number] for number in sorted(by_number)]
    return names, [np.array([by_number[int(n)] for n in each], str) for each in labels]


def _pixels(image: Any) -> npt.NDArray[np.uint8]:
    """(height, width, 3) bytes of an image in any form that data sets return."""
    if hasattr(image, "convert"):
        return np.asarray(image.convert("RGB"))
    pixels = np.asarray(image)
    if hasattr(image, "permute"):
        pixels = pixels.transpose(1, 2, 0)
        if pixels.dtype.kind == "f" and pixels.min() >= 0 and pixels.max() <= 1:
            pixels = np.round(pixels * 255).astype(np.uint8)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(
            "an image must be a PIL image, a (3, height, width) tensor of bytes or of floats in "
            f"[0, 1], or a (height, width, 3) array of bytes; got {type(image).__name__} of "
            f"{pixels.dtype}, shape {pixels.shape}; pass the set without its normalisation"
        )
    return np.ascontiguousarray(pixels)
