"""The index of a trainer's images: one that holds them is opened, else one is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hardmine.distributed import RankGroup
from hardmine.encoders.base import Encoder
from hardmine.index import Index, build_index, open_index
from hardmine.index.builder.checks import check_lengths, escape_names
from hardmine.index.open import holds_images
from hardmine.records import ImageSet


def open_or_build(
    images: ImageSet, encoder: Encoder, place: str | Path, *, clusters: str, **options: Any
) -> Index:
    """Open an index that holds the images, or build one of them.

    Trainers leave out images that a data set has, such as those without boxes, and some list them
    in an order of their own. Mining finds images by id, so an index of the whole data set will do.

    Args:
        images: As the trainer has them.
        encoder: Of the index.
        place: Folder of the index. All ranks see it.
        clusters: Of the index.
        **options: More arguments of ``build_index``.
    """
    folder = Path(place)
    named = escape_names(images)
    with RankGroup() as ranks:
        if ranks.on_rank_zero(lambda: holds_images(folder, named)):
            ranks.on_rank_zero(lambda: check_lengths(named, folder))
            return open_index(folder, encoder=encoder, clusters=clusters)
    return build_index(images, encoder, folder, clusters=clusters, **options)
