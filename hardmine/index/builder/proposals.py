"""Reads box proposals for the clustering ``"boxes"``."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from hardmine.errors import InputError
from hardmine.image_files.decode import size_of
from hardmine.records import ImageSet

Proposals = Mapping[Any, npt.ArrayLike]


class _Box(msgspec.Struct):
    image_id: int | str
    bbox: tuple[float, float, float, float]


def read_proposals(
    path: str | PathLike[str], images: ImageSet
) -> dict[Any, npt.NDArray[np.float32]]:
    """Read boxes in COCO's results format: a list of image_id and bbox (x, y, w, h in pixels).

    They may come from a detector, another proposal method, or labels. Scores and classes are
    ignored, and so are boxes of images that are not in the set.

    Args:
        path: A JSON file.
        images: The images that the ids refer to. Unknown sizes are read from the files.

    Returns:
        By image id, (n, 4) xyxy as shares of the image's width and height, in the file's order.

    Raises:
        InputError: If the file cannot be read or has another format.
    """
    try:
        rows = msgspec.json.decode(Path(path).read_bytes(), type=list[_Box])
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(
            f"{path}: expected a list of image_id and bbox (x, y, width, height), but {error}"
        ) from None
    row_of = {image_id: row for row, image_id in enumerate(images.ids.tolist())}
    boxes_of: dict[Any, list[tuple[float, ...]]] = defaultdict(list)
    for box in rows:
        if box.image_id in row_of:
            boxes_of[box.image_id].append(box.bbox)
    if rows and not boxes_of:
        raise InputError(
            f"{path}: none of its boxes belongs to an image of the set; the first box is of image "
            f"{rows[0].image_id!r}; was the file made for other images?"
        )
    shares: dict[Any, npt.NDArray[np.float32]] = {}
    for image_id, boxes in boxes_of.items():
        row = row_of[image_id]
        size = images.sizes[row]
        height, width = size if size.all() else size_of(images.read(row), images.path(row))
        corners = np.array(boxes, np.float32)
        corners[:, 2:] += corners[:, :2]
        scale = np.array([width, height, width, height], np.float32)
        shares[image_id] = (corners / scale).astype(np.float32)
    return shares


def proposals_of(
    proposals: Proposals, ids: Sequence[Any], device: torch.device
) -> list[torch.Tensor]:
    """Boxes of some images: one (n, 4) tensor each, empty for an image without boxes."""
    return [
        torch.from_numpy(np.array(proposals.get(image_id, ()), np.float32).reshape(-1, 4)).to(
            device
        )
        for image_id in ids
    ]


def proposals_fingerprint(proposals: Proposals | None, images: ImageSet) -> str:
    """Hash of the images' boxes; empty without proposals."""
    if proposals is None:
        return ""
    digest = hashlib.sha256()
    for image_id in images.ids.tolist():
        boxes = np.array(proposals.get(image_id, ()), np.float32)
        digest.update(len(boxes).to_bytes(8, "little") + boxes.tobytes())
    return digest.hexdigest()
