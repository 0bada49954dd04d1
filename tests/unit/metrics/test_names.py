from __future__ import annotations

import pytest

from hardmine.metrics.names import match_names, plain


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", ""),
        ("cat", "cat"),
        ("Traffic_Light", "traffic light"),
        ("wheel_(of_a_car)", "wheel of a car"),
        ("T-shirt", "t shirt"),
        ("  hair   drier ", "hair drier"),
        ("Fußgänger", "fussgänger"),
    ],
)
def test_plain(name: str, expected: str) -> None:
    assert plain(name) == expected


@pytest.mark.parametrize(
    ("wanted", "given", "rows"),
    [
        ([], [], []),
        ([], ["cat"], []),
        (["cat"], [], [-1]),
        (["cat", "dog"], ["dog", "cat"], [1, 0]),
        (["traffic light", "Cat"], ["Traffic_Light", "cat"], [0, 1]),
        # The exact name wins over one that is alike.
        (["cat", "Cat"], ["Cat", "cat"], [1, 0]),
        (["cat"], ["CAT", "cat"], [1]),
        # Two that are alike on either side: not guessed.
        (["cat"], ["CAT", "Cat"], [-1]),
        (["CAT", "Cat"], ["cat"], [-1, -1]),
    ],
)
def test_rows(wanted: list[str], given: list[str], rows: list[int]) -> None:
    assert match_names(wanted, given).rows.tolist() == rows


def test_what_did_not_match_is_told_with_the_nearest_name() -> None:
    match = match_names(
        ["cat", "hair dryer", "sofa", "tv_monitor"], ["TV monitor", "hair drier", "cat", "mAP"]
    )
    assert match.lines() == [
        "'tv_monitor' is taken from 'TV monitor'",
        "'hair dryer' has no score; did you mean 'hair drier'?",
        "'sofa' has no score",
        "the score of 'hair drier' belongs to no class",
        "the score of 'mAP' belongs to no class",
    ]


def test_nothing_to_tell() -> None:
    assert match_names(["a", "b"], ["b", "a"]).lines() == []
