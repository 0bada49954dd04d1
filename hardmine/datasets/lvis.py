"""What LVIS adds to COCO: classes that each image was, and was not, searched for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.datasets.coco_json import Tables
from hardmine.errors import InputError
from hardmine.records import ImageSet, rows_of


def federate(images: ImageSet, tables: Tables) -> ImageSet:
    """Add verified absences, incomplete labels, synonyms and frequencies to a set read as COCO.

    Raises:
        InputError: If an image names a category that the file does not list.
    """
    return replace(
        images,
        negatives=_pairs(images, tables, "neg_category_ids", tables.negatives),
        not_exhaustive=_pairs(images, tables, "not_exhaustive_category_ids", tables.not_exhaustive),
        class_synonyms=tuple(
            tuple(dict.fromkeys((each.name, *(each.synonyms or ())))) for each in tables.categories
        )
        if any(each.synonyms for each in tables.categories)
        else (),
        class_frequency=tuple(each.frequency or "" for each in tables.categories)
        if any(each.frequency for each in tables.categories)
        else (),
    )


def _pairs(images: ImageSet, tables: Tables, name: str, pairs: npt.NDArray[np.int64] | None) -> Any:
    """(N, C) bool sparse matrix of pairs of image row and category id."""
    pairs = np.zeros((0, 2), np.int64) if pairs is None else pairs
    class_rows = rows_of(images.class_ids, pairs[:, 1])
    if (class_rows < 0).any():
        row, category = pairs[int(np.argmin(class_rows))].tolist()
        raise InputError(
            f"{tables.source}: {tables.image_entry(row)}: {name} has the category {category}, "
            "which is not among 'categories'"
        )
    shape = (len(images), len(images.class_names))
    places = (pairs[:, 0], class_rows)
    matrix = scipy.sparse.csr_matrix((np.ones(len(pairs), np.int32), places), shape=shape)
    return matrix.astype(bool)
