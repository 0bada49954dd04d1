"""Images that mining or a search found, with the region that matched, for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.encoders.base import Encoder
from hardmine.errors import InputError
from hardmine.history.rounds import Round
from hardmine.index.base import Index
from hardmine.mining.queries import embed_queries
from hardmine.mining.targets import KINDS, Targets
from hardmine.records import Hits


@dataclass(frozen=True)
class MinedImage:
    """An image that mining found for a class.

    Attributes:
        image_id: As in the labels.
        path: Below the index's root.
        class_name: The class whose query found it, or the text of a search.
        kind: One of ``targets.KINDS``; "hit" for what a search found.
        score: Cosine similarity to the class's query.
        box: Matching region, xyxy as shares of the image's width and height.
        size: Height and width in pixels; 0 where unknown.
        weight: Its sampling weight, as a multiple of the mean weight; NaN for a search.
    """

    image_id: int | str
    path: str
    class_name: str
    kind: str
    score: float
    box: tuple[float, float, float, float]
    size: tuple[int, int]
    weight: float

    @property
    def pixels(self) -> tuple[float, float, float, float]:
        """The box in pixels, xyxy, to hundredths."""
        height, width = self.size
        if not height or not width:
            raise InputError(
                f"the size of {self.path} is not known, so its box cannot be given in pixels"
            )
        left, top, right, bottom = self.box
        return (
            round(left * width, 2),
            round(top * height, 2),
            round(right * width, 2),
            round(bottom * height, 2),
        )


def images_of_hits(index: Index, queries: Sequence[str], hits: Hits) -> tuple[MinedImage, ...]:
    """What a search found, query by query, best first.

    Args:
        index: That was searched.
        queries: C texts; they become the classes.
        hits: Of the queries.
    """
    return tuple(
        MinedImage(
            image_id=index.ids[row].item(),
            path=index.paths[row],
            class_name=query,
            kind="hit",
            score=float(hits.scores[number, place]),
            box=_box(hits.boxes[number, place]),
            size=(int(index.sizes[row, 0]), int(index.sizes[row, 1])),
            weight=float("nan"),
        )
        for number, query in enumerate(queries)
        for place, row in enumerate(hits.image_rows[number].tolist())
        if row >= 0
    )


def images_of_round(
    done: Round,
    index: Index,
    encoder: Encoder,
    ids: npt.ArrayLike | None = None,
    *,
    kinds: Sequence[str] = ("hard", "confuser", "suspect", "hit"),
    limit: int | None = None,
) -> tuple[MinedImage, ...]:
    """What a round found for each query, the strongest of each kind first.

    Args:
        done: What ``HardMiner.step`` returned, or a replayed round.
        index: Of the training images.
        encoder: The one that made it.
        ids: (N,) image ids in the order of the sampler's rows; the index's if None.
        kinds: Which of ``targets.KINDS``.
        limit: Most images of each query and kind; None for all.

    Raises:
        InputError: If the round failed or was read from a file, or a kind is unknown.
    """
    if done.result is None or done.weights is None:
        raise InputError(
            f"round {done.number} has no targets: "
            f"{done.error or 'it was read from a file; replay it first'}"
        )
    if unknown := set(kinds) - set(KINDS):
        raise InputError(f"kinds must be among {', '.join(KINDS)}, got {sorted(unknown)[0]!r}")
    assert done.inputs is not None  # a round with a result has them
    image_ids = np.asarray(index.ids if ids is None else ids)
    if len(image_ids) != len(done.weights):
        raise InputError(
            f"the round has {len(done.weights)} images, ids has {len(image_ids)}; pass ids=, the "
            "image id of each of the sampler's rows"
        )
    return find_mined(
        index,
        encoder,
        image_ids,
        done.weights / done.weights.mean(),
        done.result.targets,
        [(row, query.class_name, query.phrases) for row, query in enumerate(done.queries)],
        [(kind,) for kind in kinds],
        limit,
        templates=done.inputs.targets.templates,
    )


def find_mined(
    index: Index,
    encoder: Encoder,
    ids: npt.NDArray[Any],
    weights: npt.NDArray[np.float64],
    targets: Targets,
    queries: Sequence[tuple[int, str, tuple[str, ...]]],
    groups: Sequence[Sequence[str]],
    limit: int | None,
    *,
    templates: str | Sequence[str] = "short",
) -> tuple[MinedImage, ...]:
    """The strongest targets of each query, with the region that matched.

    Args:
        index: Of the training images.
        encoder: The one that made it.
        ids: (N,) image ids in the order of the targets' rows.
        weights: (N,) sampling weights, as multiples of the mean.
        targets: Of the queries.
        queries: For each query its row among the targets, its class and its phrases.
        groups: Kinds that are ranked together.
        limit: Most images of each query and group; None for all.
        templates: Of the round, as in ``TargetRules``.
    """
    mined = []
    index_rows = index.rows_of(ids)
    for query, class_name, phrases in queries:
        if not (targets.query_rows == query).any():
            continue
        vector = embed_queries(encoder, [phrases], templates=templates)
        for kinds in groups:
            of_kind = np.isin(targets.kinds, [KINDS.index(kind) for kind in kinds])
            in_index = index_rows[targets.image_rows] >= 0
            chosen = targets.take((targets.query_rows == query) & of_kind & in_index)
            order = np.lexsort((-chosen.scores, -chosen.strengths))[:limit]
            images = chosen.image_rows[order]
            if not len(images):
                continue
            rows = index_rows[images]
            scores, boxes = index.best_regions(vector, rows[None])
            for place, row in enumerate(rows.tolist()):
                mined.append(
                    MinedImage(
                        image_id=ids[images[place]].item(),
                        path=index.paths[row],
                        class_name=class_name,
                        kind=KINDS[chosen.kinds[order[place]]],
                        score=float(scores[0, place]),
                        box=_box(boxes[0, place]),
                        size=(int(index.sizes[row, 0]), int(index.sizes[row, 1])),
                        weight=float(weights[images[place]]),
                    )
                )
    return tuple(mined)


def _box(box: npt.NDArray[np.float32]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(edge), 4) for edge in box)
    return (left, top, right, bottom)
