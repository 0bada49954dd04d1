"""Read free-text queries and their relevant images from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import scipy.sparse

from hardmine.errors import InputError
from hardmine.evaluation.relevance import Relevance
from hardmine.records import ImageSet


class _Query(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    images: list[int | str]


class _Caption(msgspec.Struct):
    image_id: int | str
    caption: str


class _Captions(msgspec.Struct):
    annotations: list[_Caption]


@dataclass(frozen=True)
class LabelledQueries:
    """C texts, and which of N images are relevant to each."""

    texts: tuple[str, ...]
    relevance: Relevance


def read_queries(file: Path, images: ImageSet) -> LabelledQueries:
    """Read queries and their relevant images.

    Args:
        file: A JSON list of ``{"text": ..., "images": [ids or paths]}``, one such object per line
            (.jsonl), or COCO captions, where each caption is a query for its image. Equal texts
            are one query.
        images: The images that the file refers to.
    """
    relevant_images: dict[str, set[int | str]] = {}
    for text, names in _read_pairs(file):
        relevant_images.setdefault(text, set()).update(names)
    if not relevant_images:
        raise InputError(f"{file} holds no queries")
    row_of = _row_by_name(images)
    rows, columns = [], []
    for column, (text, relevant_names) in enumerate(relevant_images.items()):
        for image in relevant_names:
            row = row_of.get(str(image))
            if row is None:
                raise InputError(
                    f"{file}: query {text!r} names image {image!r}, which is not among the "
                    f"{len(images)} images (ids such as {images.ids[:1].tolist()})"
                )
            rows.append(row)
            columns.append(column)
    relevant = scipy.sparse.csc_matrix(
        (np.ones(len(rows), bool), (rows, columns)), shape=(len(images), len(relevant_images))
    )
    return LabelledQueries(tuple(relevant_images), Relevance(relevant))


def _read_pairs(file: Path) -> list[tuple[str, list[int | str]]]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the queries file {file}: {error.strerror}") from None
    try:
        if file.suffix == ".jsonl":
            lines = [line for line in content.splitlines() if line.strip()]
            queries = [msgspec.json.decode(line, type=_Query) for line in lines]
        elif content.lstrip()[:1] == b"{":
            captions = msgspec.json.decode(content, type=_Captions).annotations
            return [(caption.caption.strip(), [caption.image_id]) for caption in captions]
        else:
            queries = msgspec.json.decode(content, type=list[_Query])
    except msgspec.DecodeError as error:
        raise InputError(
            f'{file}: {error}; expected a list of {{"text": ..., "images": [...]}}, one such '
            "object per line (.jsonl), or COCO captions"
        ) from None
    return [(query.text, query.images) for query in queries]


def _row_by_name(images: ImageSet) -> Mapping[str, int]:
    """Row of each image by path and by id; an id takes precedence over an equal path."""
    row_of = {path: row for row, path in enumerate(images.paths)}
    row_of.update({str(image_id): row for row, image_id in enumerate(images.ids.tolist())})
    return row_of
