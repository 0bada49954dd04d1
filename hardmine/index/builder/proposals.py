"""Boxes of images from any source, for the clustering ``"boxes"``."""

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

from hardmine.datasets.image import image_size
from hardmine.errors import InputError
from hardmine.records import ImageSet

Proposals = Mapping[Any, npt.ArrayLike]


class _Box(msgspec.Struct):
    image_id: int | str
    bbox: tuple[float, float, float, float]


def read_proposals(
    path: str | PathLike[str], images: ImageSet
) -> dict[Any, npt.NDArray[np.float32]]:
    """Read boxes in the form of COCO's results: a list of image_id and bbox (x, y, w, h, pixels).

    A detector's own output, an external proposal method's, or labels; scores and classes are not
    looked at. Boxes of images that the set lacks are left out.

    Args:
        path: A JSON file.
        images: What the ids refer to; sizes it does not know are read from the files.

    Returns:
        By image id (n, 4) xyxy as shares of the image's width and height, in the file's order.

    Raises:
        InputError: If the file cannot be read or has another form.
    """
    try:
        rows = msgspec.json.decode(Path(path).read_bytes(), type=list[_Box])
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(
            f"{path}: expected a list of image_id and bbox (x, y, width, height), but {error}"
        ) from None
    place = {image_id: row for row, image_id in enumerate(images.ids.tolist())}
    found: dict[Any, list[tuple[float, ...]]] = defaultdict(list)
    for box in rows:
        if box.image_id in place:
            found[box.image_id].append(box.bbox)
    if rows and not found:
        raise InputError(
            f"{path}: none of its boxes belongs to an image of the set, the first is of image "
            f"{rows[0].image_id!r}; was it made for other images?"
        )
    shares: dict[Any, npt.NDArray[np.float32]] = {}
    for image_id, boxes in found.items():
        row = place[image_id]
        known = images.sizes[row]
        height, width = known if known.all() else image_size(images.path(row))
        corners = np.array(boxes, np.float32)
        corners[:, 2:] += corners[:, :2]
        scale = np.array([width, height, width, height], np.float32)
        shares[image_id] = (corners / scale).astype(np.float32)
    return shares


def proposals_of(
    proposals: Proposals, ids: Sequence[Any], device: torch.device
) -> list[torch.Tensor]:
    """(n, 4) boxes for each of some images; none where there are none."""
    return [
        torch.from_numpy(np.array(proposals.get(image_id, ()), np.float32).reshape(-1, 4)).to(
            device
        )
        for image_id in ids
    ]


def proposals_fingerprint(proposals: Proposals | None, images: ImageSet) -> str:
    """Changes when a box of any of the images does; empty for no proposals."""
    if proposals is None:
        return ""
    digest = hashlib.sha256()
    for image_id in images.ids.tolist():
        boxes = np.array(proposals.get(image_id, ()), np.float32)
        digest.update(len(boxes).to_bytes(8, "little") + boxes.tobytes())
    return digest.hexdigest()
