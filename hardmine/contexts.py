"""Which class is weak under which condition, measured where validation images answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hardmine.encoders.base import Encoder
from hardmine.index.base import Index
from hardmine.queries import embed_queries, fill
from hardmine.records import ImageSet
from hardmine.slices import slice_need


def context_need(
    images: ImageSet,
    detections: Any,
    index: Index,
    contexts: Sequence[str],
    encoder: Encoder,
) -> dict[tuple[str, str], float]:
    """Need of each (class, context) that the validation images can tell, in [0, 1].

    A context is compared with the plain text, so that an image answers it by what the context
    adds. Pairs with too few instances for an interval are left out.

    Args:
        images: Validation images with labels.
        detections: What the detector found on them, in COCO's results format.
        index: Holds the validation images.
        contexts: Such as ``"at night"`` or ``"a wet {}"``.
        encoder: The one that made the index.
    """
    asked = embed_queries(encoder, [(fill(text, "photo"),) for text in contexts], templates=["{}"])
    plain = embed_queries(encoder, [("photo",)] * len(contexts), templates=["{}"])
    slices = slice_need(images, detections, index, contexts, asked, against=plain)
    return {(part.class_name, part.context): part.need for part in slices if not np.isnan(part.low)}
