"""An evaluator that keeps the predicted boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.evaluation import DatasetEvaluator

from hardmine.hosts import gather_predictions


class BoxEvaluator(DatasetEvaluator):  # type: ignore[misc]
    """Keeps the boxes of an evaluation, and knows that there was one.

    Attributes:
        finished: Whether an evaluation ended since this was last set to False.
    """

    def __init__(self) -> None:
        self.finished = False
        self.reset()

    def reset(self) -> None:
        """Forget the last evaluation."""
        self._predictions: list[dict[str, Any]] = []
        self._failure = ""

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Keep the boxes of a batch."""
        try:
            self._predictions += [
                _prediction(each["image_id"], found["instances"])
                for each, found in zip(inputs, outputs, strict=True)
            ]
        except Exception as error:  # evaluation must go on; ``gather`` raises it on all ranks
            self._failure = (
                "outputs must have instances with pred_boxes, scores and pred_classes; reading "
                f"them failed with {type(error).__name__}: {error}"
            )

    def evaluate(self) -> None:
        """Note that the evaluation is over; adds no metrics."""
        self.finished = True

    def gather(self) -> list[Mapping[str, Any]]:
        """The predictions of all ranks, as ``predicted_boxes`` takes them."""
        return gather_predictions(self._predictions, self._failure)


def _prediction(image_id: Any, instances: Any) -> dict[str, Any]:
    found = instances.to("cpu")
    return {
        "img_id": image_id,
        "labels": found.pred_classes.numpy(),
        "scores": found.scores.numpy(),
        "boxes": found.pred_boxes.tensor.numpy(),
    }
