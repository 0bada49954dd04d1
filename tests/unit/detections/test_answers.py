"""Which images answer a text."""

from __future__ import annotations

import numpy as np
import pytest

from hardmine.detections import answering
from hardmine.errors import InputError


@pytest.mark.parametrize(
    ("scores", "options", "expected"),
    [
        (np.zeros((0, 3)), {}, np.zeros((0, 3), bool)),
        (np.zeros((1, 0)), {}, np.zeros((1, 0), bool)),
        ([[0.3, 0.1, 0.2, 0.0]], {"share": 0.5}, [[True, False, True, False]]),
        ([[0.3, 0.1, 0.2, 0.0]], {"share": 0.01}, [[True, False, False, False]]),  # at least one
        ([[0.3, 0.3, 0.2, 0.0]], {"share": 0.25}, [[True, True, False, False]]),  # ties
        # An image without a score never answers, and the share is of the others.
        ([[0.3, -np.inf, -np.inf, 0.1]], {"share": 0.5}, [[True, False, False, False]]),
        ([[0.3, 0.1], [0.05, 0.2]], {"share": 0.5}, [[True, False], [False, True]]),
    ],
)
def test_answering(scores: object, options: dict[str, float], expected: object) -> None:
    np.testing.assert_array_equal(answering(np.array(scores), **options), expected)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_none_or_all_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=r"share must be in \(0, 1\)"):
        answering(np.zeros((1, 3)), share=share)
