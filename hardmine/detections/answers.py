"""Which images answer a text: the most similar ones of a set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.index.base import Index
from hardmine.records import ImageSet


def similarity_to_texts(
    images: ImageSet,
    index: Index,
    vectors: npt.NDArray[np.float32],
    *,
    against: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float64]:
    """Similarity of each validation image to each text.

    Args:
        images: N validation images.
        index: Holds at least some of them.
        vectors: (X, D) text vectors.
        against: (X, D) vectors of opposite texts, whose similarity is subtracted.

    Returns:
        (X, N); -inf where the index lacks the image, or its regions, as it could not be read.

    Raises:
        InputError: If the index holds none of the images.
    """
    rows = index.rows_of(images.ids)
    if not (rows >= 0).any():
        raise InputError(
            f"the index holds none of the {len(images)} validation images (ids such as "
            f"{index.ids[0] if len(index) else 'none'} against {images.ids[0]}); slices need an "
            "index of the validation images: build one, or give it with --val-index"
        )
    scores = np.where(rows >= 0, index.scores(vectors)[:, rows], -np.inf).astype(np.float64)
    if against is not None:
        present = np.isfinite(scores)
        scores[present] -= index.scores(against)[:, rows][present]
    return scores


def answering(scores: npt.NDArray[np.floating], *, share: float = 0.2) -> npt.NDArray[np.bool_]:
    """Which images answer each text: those of the highest scores.

    Args:
        scores: (X, N), higher = more similar; -inf never answers.
        share: Share of the images with a score that answer, in (0, 1).

    Returns:
        (X, N) bool. At least one image of each row answers, and all that tie with the last one.

    >>> answering(np.array([[0.3, 0.1, 0.2, 0.0]]), share=0.5)
    array([[ True, False,  True, False]])
    """
    if not 0 < share < 1:
        raise InputError(f"share must be in (0, 1), got {share}")
    finite = np.isfinite(scores)
    answers = np.zeros(scores.shape, bool)
    for row, known in enumerate(finite):
        ranked = np.sort(scores[row, known])
        if len(ranked):
            last = ranked[-max(1, round(share * len(ranked)))]
            answers[row] = known & (scores[row] >= last)
    return answers
