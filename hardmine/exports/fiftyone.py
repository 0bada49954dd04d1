"""Writes found images, and the weights of a round, into a FiftyOne data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.encoders.base import Encoder
from hardmine.errors import InputError
from hardmine.exports.files import by_image
from hardmine.exports.mined import MinedImage, images_of_round
from hardmine.history.rounds import Round
from hardmine.index.base import Index


def add_to_fiftyone(
    dataset: Any, mined: Sequence[MinedImage], root: str | Path, *, field: str = "hardmine"
) -> int:
    """Add found regions to the samples of a FiftyOne data set, and a saved view of each kind.

    The field gets ``Detections`` tagged with their kind, similarity as confidence; it is replaced
    where it exists. The saved views are called ``hardmine suspect``, ``hardmine confuser`` ...

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
    _replace_values(dataset, field, detections)
    for kind in sorted({one.kind for found in there.values() for one in found}):
        view = dataset.select_labels(tags=kind, fields=field)
        dataset.save_view(f"{field} {kind}", view, overwrite=True)
    return len(there)


def add_round_to_fiftyone(
    dataset: Any,
    done: Round,
    index: Index,
    encoder: Encoder,
    ids: npt.ArrayLike | None = None,
    *,
    field: str = "hardmine",
) -> int:
    """Add what a round found, and the weight of every image, to a FiftyOne data set.

    Besides what ``add_to_fiftyone`` does, the field ``<field>_weight`` gets the sampling weights as
    multiples of the mean, and the saved view ``<field> most drawn`` sorts by it.

    Args:
        dataset: A ``fiftyone.Dataset``. Samples are found by ``filepath``.
        done: What ``HardMiner.step`` returned, or a replayed round.
        index: Of the training images.
        encoder: The one that made it.
        ids: (N,) image ids in the order of the sampler's rows; the index's if None.
        field: Name of the field.

    Returns:
        Number of samples that got detections.

    Raises:
        InputError: If the round has no targets, or the data set holds none of the images.
    """
    mined = images_of_round(done, index, encoder, ids)
    count = add_to_fiftyone(dataset, mined, index.root, field=field)
    assert done.weights is not None  # or images_of_round had refused the round
    rows = index.rows_of(np.asarray(index.ids if ids is None else ids))
    folder, known = index.root.absolute(), set(dataset.values("filepath"))
    paths = [str(folder / index.paths[row]) if row >= 0 else "" for row in rows.tolist()]
    shares = (done.weights / done.weights.mean()).tolist()
    weights = {path: w for path, w in zip(paths, shares, strict=True) if path in known}
    _replace_values(dataset, f"{field}_weight", weights)
    view = dataset.sort_by(f"{field}_weight", reverse=True)
    dataset.save_view(f"{field} most drawn", view, overwrite=True)
    return count


def _replace_values(dataset: Any, name: str, values: Mapping[str, Any]) -> None:
    """Set a field of some samples by path, and clear it in all others."""
    if dataset.has_sample_field(name):
        dataset.clear_sample_field(name)
    if values:
        dataset.set_values(name, values, key_field="filepath")


def _xywh(one: MinedImage) -> list[float]:
    """Corner and size as shares, as FiftyOne has them."""
    left, top, right, bottom = one.box
    return [left, top, right - left, bottom - top]
