"""Whether a data set has its images in the order of the labels, where it tells."""

from __future__ import annotations

from typing import Any

import numpy as np

from hardmine.errors import InputError
from hardmine.records import ImageSet


def require_order(dataset: Any, images: ImageSet) -> None:
    """Refuse a data set that tells its image ids and has the images in another order.

    Such are torchvision's ``CocoDetection`` and its kind, which sort a COCO file's images by id,
    and Hugging Face data sets with a column ``image_id``. Ids of other images tell nothing.

    Args:
        dataset: The training data set.
        images: Taken to be in its order.

    Raises:
        InputError: If an image stands elsewhere.
    """
    ids = np.asarray(_ids_of(dataset))
    if ids.dtype.kind not in "iuU" or ids.shape != images.ids.shape:
        return
    rows = images.rows_of(ids)
    if len(np.unique(rows)) < len(rows) or (rows < 0).any():
        return
    elsewhere = np.flatnonzero(rows != np.arange(len(rows)))
    if len(elsewhere):
        place = elsewhere[0]
        raise InputError(
            f"the data set's image at {place} has the id {ids[place].item()!r}, which images has "
            f"at {rows[place]}; give dataset_ids, the image ids in the data set's order, such as "
            "dataset.ids"
        )


def _ids_of(dataset: Any) -> Any:
    """The image ids in a data set's order; none if it does not tell them."""
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        ids = _ids_of(dataset.dataset)
        return [ids[row] for row in dataset.indices] if len(ids) else ids
    if hasattr(dataset, "datasets") and hasattr(dataset, "cumulative_sizes"):
        parts = [_ids_of(part) for part in dataset.datasets]
        return [each for part in parts for each in part] if all(map(len, parts)) else ()
    if "image_id" in (getattr(dataset, "column_names", None) or ()):
        return list(dataset.with_format(None)["image_id"])
    ids = getattr(dataset, "ids", ())
    told = isinstance(ids, list | tuple) and all(isinstance(each, int | str) for each in ids)
    return ids if told else ()
