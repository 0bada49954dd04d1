from __future__ import annotations

import numpy as np
import pytest

from hardmine.errors import InputError
from hardmine.mining.need import parse_policy

NAN = np.nan


@pytest.mark.parametrize(
    ("policy", "ap", "gain", "need"),
    [
        # Nothing known, no need, whatever the policy.
        ("mean", [NAN, NAN], [NAN, NAN], [0, 0]),
        ("below:0.5", [NAN], [NAN], [0]),
        ("bottom:3", [NAN], [NAN], [0]),
        ("bottom:20%", [NAN], [NAN], [0]),
        ("stalled", [NAN], [NAN], [0]),
        ("mean", [], [], []),
        ("bottom:1", [], [], []),
        # Distance below the mean, relative to it; the unknown does not count.
        ("mean", [0.6, 0.2, 0.1, NAN], [0, 0, 0, 0], [0, 1 / 3, 2 / 3, 0]),
        ("mean", [0.0, 0.4], [0, 0], [1, 0]),
        ("mean", [0.0, 0.0], [0, 0], [0, 0]),  # all alike: nobody stands out
        # A target.
        ("below:0.5", [0.5, 0.25, 0.0, 0.9, NAN], [0] * 5, [0, 0.5, 1, 0, 0]),
        ("below:50%", [0.25], [0], [0.5]),
        # The bottom; ties with the last of it belong to it.
        ("bottom:2", [0.3, 0.1, 0.2, NAN], [0] * 4, [0, 1, 1, 0]),
        ("bottom:2", [0.1, 0.2, 0.2, 0.3], [0] * 4, [1, 1, 1, 0]),
        ("bottom:9", [0.1, 0.2], [0] * 2, [1, 1]),
        ("bottom:25%", [0.4, 0.3, 0.2, 0.1], [0] * 4, [0, 0, 0, 1]),
        ("bottom:1%", [0.4, 0.3], [0] * 2, [0, 1]),  # at least one
        # Stalled: the room left, by how little was gained; an unknown gain is no stall.
        ("stalled:0.02", [0.4, 0.4, 0.4, 0.4], [0.0, 0.01, 0.05, NAN], [0.6, 0.3, 0, 0]),
        ("stalled", [0.4, 0.4], [-0.2, 0.01], [0.6, 0]),
    ],
)
def test_policies(policy: str, ap: list[float], gain: list[float], need: list[float]) -> None:
    judged = parse_policy(policy)(np.array(ap, float), np.array(gain, float))
    np.testing.assert_allclose(judged, need, atol=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        *("", "means", "mean:1", "below", "below:0", "below:2", "below:.", "below:0.5:3"),
        *("below:1.2.3", "bottom:.%"),
        *("bottom", "bottom:0", "bottom:1.5", "bottom:0%", "bottom:120%", "Bottom 10", "stalled:0"),
    ],
)
def test_other_texts_are_refused_with_the_forms(text: str) -> None:
    with pytest.raises(InputError, match=r'policy must be "mean", "below:0\.5"'):
        parse_policy(text)
