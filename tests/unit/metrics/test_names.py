from __future__ import annotations

import difflib

import pytest

from hardmine.metrics.names import match_names, normalise


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
def test_normalise(name: str, expected: str) -> None:
    assert normalise(name) == expected


@pytest.mark.parametrize(
    ("class_names", "source", "rows"),
    [
        ([], [], []),
        ([], ["cat"], []),
        (["cat"], [], [-1]),
        (["cat", "dog"], ["dog", "cat"], [1, 0]),
        (["traffic light", "Cat"], ["Traffic_Light", "cat"], [0, 1]),
        # An exact name is preferred to a normalised one.
        (["cat", "Cat"], ["Cat", "cat"], [1, 0]),
        (["cat"], ["CAT", "cat"], [1]),
        # Two names with the same normalised form: not guessed.
        (["cat"], ["CAT", "Cat"], [-1]),
        (["CAT", "Cat"], ["cat"], [-1, -1]),
    ],
)
def test_rows(class_names: list[str], source: list[str], rows: list[int]) -> None:
    assert match_names(class_names, source).rows.tolist() == rows


def test_messages_name_what_did_not_match() -> None:
    match = match_names(
        ["cat", "hair dryer", "sofa", "tv_monitor"], ["TV monitor", "hair drier", "cat", "mAP"]
    )
    assert match.lines() == [
        "'tv_monitor' is read from 'TV monitor'",
        "'hair dryer' has no score; did you mean 'hair drier'?",
        "'sofa' has no score",
        "the score of 'hair drier' belongs to no class",
        "the score of 'mAP' belongs to no class",
    ]


def test_no_messages_if_all_names_are_equal() -> None:
    assert match_names(["a", "b"], ["b", "a"]).lines() == []


def test_many_names_that_do_not_match_cost_little() -> None:
    ours = [f"class number {number}" for number in range(1203)]
    theirs = [f"kind with name {number}" for number in range(1203)]
    compared = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(difflib, "get_close_matches", lambda *args, **_: compared.append(args) or [])
        match = match_names(ours, theirs)
    assert len(compared) == 10
    assert len(match.missing) == len(match.extra) == 1203
    assert (match.rows == -1).all()
