"""The results that a ``CocoEvaluator`` is updated with, which it does not keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hardmine.distributed import RankGroup


class KeptResults:
    """Keeps the predicted boxes of each validation.

    For loops that evaluate with torchvision's ``CocoEvaluator`` or a copy of it, as DETR, RT-DETR,
    D-FINE, DEIM and faster-coco-eval have.

    Args:
        evaluator: Its ``update`` is called with ``{image_id: prediction}`` of each batch.
    """

    def __init__(self, evaluator: Any) -> None:
        self._kept: dict[Any, list[dict[str, Any]]] = {}
        update = evaluator.update

        def updated(predictions: Mapping[Any, Any]) -> None:
            for image_id, found in predictions.items():
                self._kept[image_id] = evaluator.prepare({image_id: found}, "bbox")
            update(predictions)

        evaluator.update = updated

    def gather(self) -> list[dict[str, Any]]:
        """What was found since the last call on all ranks, in COCO's results format.

        All ranks must call this. Images that ranks got twice, as padding, count once.
        """
        kept, self._kept = self._kept, {}
        with RankGroup() as ranks:
            of_image = {key: found for part in ranks.gather(kept) for key, found in part.items()}
        return [result for found in of_image.values() for result in found]
