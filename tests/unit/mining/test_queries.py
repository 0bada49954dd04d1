"""Class names become words, weak classes become queries."""

from __future__ import annotations

import numpy as np
import pytest
from toy_data import WordEncoder, text_vector

from hardmine.errors import InputError
from hardmine.mining.queries import build_queries, clean_name, embed_queries, fill, name_phrases


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", ""),
        ("person", "person"),
        ("traffic_light", "traffic light"),
        ("wheel_(of_a_car)", "wheel of a car"),
        ("pan_(for_cooking)", "pan for cooking"),
        ("bow_(decorative_ribbons)", "bow (decorative ribbons)"),
        ("Cabinet/shelf", "cabinet or shelf"),
        ("TrafficLight", "traffic light"),
        ("TV", "TV"),
        ("human.pedestrian.adult", "adult pedestrian"),
        ("vehicle.car", "car"),
        ("flip-flop_(sandal)", "flip-flop (sandal)"),
        ("  hot   dog ", "hot dog"),
    ],
)
def test_names_are_cleaned_for_text(name: str, words: str) -> None:
    assert clean_name(name) == words


def test_synonyms_follow_the_name_without_repeats_up_to_a_limit() -> None:
    assert name_phrases("tv", ["tv", "television_set", "telly", "box", "tube"]) == (
        "tv",
        "television set",
        "telly",
        "box",
    )


def test_a_context_follows_the_word_or_surrounds_it() -> None:
    assert fill("at night", "car") == "car at night"
    assert fill("a wet {}", "car") == "a wet car"


def test_only_weak_classes_get_a_query() -> None:
    assert len(build_queries([], [])) == 0
    queries = build_queries(["car", "fork", "zebra"], [0.0, 0.5, 1.0])
    assert queries.phrases == (("fork",), ("zebra",))
    assert queries.class_rows.tolist() == [1, 2]
    assert queries.need.tolist() == [0.5, 1.0]


def test_contexts_come_after_their_class_and_measured_need_wins() -> None:
    queries = build_queries(
        ["car", "fork", "cow"],
        [0.4, 0.0, 0.2],
        contexts=["at night", "in the rain"],
        context_need={("car", "at night"): 0.9, ("fork", "at night"): 0.7, ("cow", "at night"): 0},
    )
    rows = list(
        zip(queries.class_rows.tolist(), queries.contexts, queries.need.tolist(), strict=True)
    )
    assert rows == [
        (0, "", 0.4),
        (0, "at night", 0.9),
        (0, "in the rain", 0.4),
        (1, "at night", 0.7),
        (2, "", 0.2),
        (2, "in the rain", 0.2),
    ]


def test_weak_sizes_are_searched_for_in_words() -> None:
    queries = build_queries(["car"], [0.0], sizes=[[0.8, 0.9, np.nan]])
    assert queries.phrases == (("small car", "tiny car far away"),)
    assert queries.need.tolist() == [0.8]


@pytest.mark.parametrize(
    ("need", "more", "message"),
    [
        ([0.5], {}, "one value per class"),
        ([0.5, np.nan], {}, "give an unknown class need 0"),
        ([0.5, 0.5], {"context_need": {("dog", "at night"): 1.0}}, "'dog'"),
        ([0.5, 0.5], {"sizes": [[1, 1, 1]]}, r"sizes must be \(2, 3\)"),
        ([0.5, 0.5], {"synonyms": [["a"]]}, "expected 2, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(need: list[float], more: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_queries(["car", "fork"], need, **more)


def test_a_query_is_the_mean_of_its_phrases() -> None:
    encoder = WordEncoder()
    vectors = embed_queries(encoder, [("car", "zebra"), ("fork",)], templates="plain")
    mean = text_vector("car") + text_vector("zebra")
    assert np.allclose(vectors[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert np.allclose(vectors[1], text_vector("fork"), atol=1e-6)
    assert embed_queries(encoder, []).shape == (0, encoder.dim)
