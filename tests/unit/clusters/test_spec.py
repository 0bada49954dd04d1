from __future__ import annotations

import pytest

from hardmine.clusters import ClusterSpec, parse_spec
from hardmine.errors import InputError


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("whole", "whole"),
        ("none", "none"),
        ("none+whole", "none+whole"),
        ("kmeans", "kmeans:10"),
        ("kmeans:10", "kmeans:10"),
        ("kmeans:k=10+whole", "kmeans:10+whole"),
        ("kmeans:6/3/6", "kmeans:3/6"),
        ("kmeans:3/6,context=0.40+whole", "kmeans:3/6,context=0.4+whole"),
        ("agglomerative:50", "agglomerative:k=50"),
        ("agglomerative:t=0.35", "agglomerative:t=0.35"),
        ("agglomerative:t=0.123456789", "agglomerative:t=0.123456789"),
        ("agglomerative:linkage=complete,t=1", "agglomerative:t=1,linkage=complete"),
        ("agglomerative:k=50,linkage=average", "agglomerative:k=50"),
        ("pyramid", "pyramid:6"),
        ("pyramid:levels=4", "pyramid:4"),
        ("boxes+whole", "boxes+whole"),
        ("tree", "tree:3/6"),
        (" tree:2/4,linkage=ward ", "tree:2/4,linkage=ward"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    spec = parse_spec(text)
    assert str(spec) == canonical
    assert parse_spec(canonical) == spec
    assert hash(parse_spec(canonical)) == hash(spec)
    assert parse_spec(spec) is spec


def test_options_have_values_and_defaults() -> None:
    spec = parse_spec("agglomerative:t=0.35,context=0.4+whole")
    assert spec == ClusterSpec("agglomerative", (("t", 0.35), ("context", 0.4)), whole=True)
    assert spec.option("linkage") == "average"
    assert spec.option("k") is None
    assert spec.option("levels") is None
    assert parse_spec("kmeans:3/6").counts("k") == (3, 6)
    assert parse_spec("agglomerative:k=7").counts("k") == (7,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'unknown method ""'),
        ("kmean:3", 'did you mean "kmeans"'),
        ("kmeans:0", "k must be a whole number of at least 1"),
        ("kmeans:3/x", "k must be a whole number"),
        ("kmeans:2.5", "k must be a whole number"),
        ("kmeans:", "the colon must be followed by"),
        ("kmeans:k=3,k=4", "k is given twice"),
        ("kmeans:3,4", 'unknown option "4"'),
        ("kmeans:4+hole", "only \\+whole can be added"),
        ("kmeans:4+whole+whole", "only \\+whole can be added, and only once"),
        ("whole+whole", "which already is the whole-image vector"),
        ("whole:3", "this method takes none"),
        ("agglomerative", "needs a number of clusters"),
        ("agglomerative:k=3,t=0.2", "not both"),
        ("agglomerative:t=0", "t must be a distance above 0"),
        ("agglomerative:t=nan", "t must be a distance above 0"),
        ("agglomerative:k=3,linkage=single", "average, complete or ward"),
        ("agglomerative:k=3,linkag=ward", 'did you mean "linkage"'),
        ("agglomerative:k=3,linkage", 'average, complete or ward, got ""'),
        ("none:context=-1", "context must be a number above 0"),
    ],
)
def test_an_invalid_spec_is_an_error_with_a_hint(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_spec(text)
