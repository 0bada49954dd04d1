"""Writes found images into a FiftyOne data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hardmine.errors import InputError
from hardmine.exports.files import by_image
from hardmine.exports.mined import MinedImage


def add_to_fiftyone(
    dataset: Any, mined: Sequence[MinedImage], root: str | Path, *, field: str = "hardmine"
) -> int:
    """Add found regions to the samples of a FiftyOne data set, and a saved view of each kind.

    The field gets ``Detections`` tagged with their kind, similarity as confidence; a field
    ``<field>_weight`` gets the sampling weight as a multiple of the mean. Both are replaced where
    they exist. The saved views are called ``hardmine suspect``, ``hardmine confuser`` and so on.

    Args:
        dataset: A ``fiftyone.Dataset``. Samples are found by ``filepath``.
        mined: The images.
        root: Folder that their paths are relative to, such as ``index.root``.
        field: Name of the field.

    Returns:
        Number of samples that got detections.

    Raises:
        InputError: If the data set holds none of the images.
    """
    import fiftyone  # type: ignore[import-not-found]

    folder = Path(root).absolute()
    known = set(dataset.values("filepath"))
    images = {str(folder / found[0].path): found for found in by_image(mined)}
    there = {path: found for path, found in images.items() if path in known}
    if images and not there:
        raise InputError(
            f"the data set holds none of the {len(images)} images, such as {next(iter(images))}; "
            "pass root=, the folder of its images"
        )
    detections = {
        path: fiftyone.Detections(
            detections=[
                fiftyone.Detection(
                    label=one.class_name,
                    bounding_box=_xywh(one),
                    confidence=one.score,
                    tags=[one.kind],
                )
                for one in found
            ]
        )
        for path, found in there.items()
    }
    weights = {
        path: found[0].weight for path, found in there.items() if not math.isnan(found[0].weight)
    }
    for name, values in ((field, detections), (f"{field}_weight", weights)):
        if dataset.has_sample_field(name):
            dataset.clear_sample_field(name)
        if values:
            dataset.set_values(name, values, key_field="filepath")
    for kind in sorted({one.kind for found in there.values() for one in found}):
        view = dataset.select_labels(tags=kind, fields=field)
        dataset.save_view(f"{field} {kind}", view, overwrite=True)
    return len(there)


def _xywh(one: MinedImage) -> list[float]:
    """Corner and size as shares, as FiftyOne has them."""
    left, top, right, bottom = one.box
    return [left, top, right - left, bottom - top]
