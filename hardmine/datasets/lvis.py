"""The fields that LVIS adds to COCO: verified absences and incomplete labels of each image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.datasets.coco_json import Tables
from hardmine.errors import InputError
from hardmine.records import ImageSet, rows_of


def add_lvis_fields(images: ImageSet, tables: Tables) -> ImageSet:
    """Add verified absences, incomplete labels, synonyms and frequencies to a COCO image set.

    Raises:
        InputError: If an image lists a category that is not in ``categories``.
    """
    return replace(
        images,
        negatives=_to_matrix(images, tables, "neg_category_ids", tables.negatives),
        not_exhaustive=_to_matrix(
            images, tables, "not_exhaustive_category_ids", tables.not_exhaustive
        ),
        class_synonyms=tuple(
            tuple(dict.fromkeys((each.name, *(each.synonyms or ())))) for each in tables.categories
        )
        if any(each.synonyms for each in tables.categories)
        else (),
        class_frequency=tuple(each.frequency or "" for each in tables.categories)
        if any(each.frequency for each in tables.categories)
        else (),
    )


def _to_matrix(
    images: ImageSet, tables: Tables, name: str, pairs: npt.NDArray[np.int64] | None
) -> Any:
    """(N, C) bool sparse matrix, from pairs (image row, category id)."""
    pairs = np.zeros((0, 2), np.int64) if pairs is None else pairs
    class_rows = rows_of(images.class_ids, pairs[:, 1])
    if (class_rows < 0).any():
        row, category = pairs[int(np.argmin(class_rows))].tolist()
        raise InputError(
            f"{tables.source}: {tables.image_entry(row)}: {name} has the category {category}, "
            "which is not among 'categories'"
        )
    shape = (len(images), len(images.class_names))
    positions = (pairs[:, 0], class_rows)
    matrix = scipy.sparse.csr_matrix((np.ones(len(pairs), np.int32), positions), shape=shape)
    return matrix.astype(bool)
