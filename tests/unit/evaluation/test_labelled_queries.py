"""Free-text queries and their relevant images, read from files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hardmine.errors import InputError
from hardmine.evaluation.labelled_queries import read_queries
from hardmine.records import ImageSet


@pytest.fixture
def images() -> ImageSet:
    return ImageSet(
        root=Path(),
        ids=np.array([7, 8, 9]),
        paths=("a/x.jpg", "a/y.jpg", "b/z.jpg"),
        sizes=np.zeros((3, 2), np.int32),
    )


QUERIES = [{"text": "a dog", "images": [7, "b/z.jpg"]}, {"text": "a cat", "images": []}]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_lists(tmp_path, images, suffix) -> None:
    file = tmp_path / f"queries{suffix}"
    lines = "\n".join(map(json.dumps, QUERIES)) if suffix == ".jsonl" else json.dumps(QUERIES)
    file.write_text(lines)
    queries = read_queries(file, images)
    assert queries.texts == ("a dog", "a cat")
    assert queries.relevance.relevant.toarray().T.astype(int).tolist() == [[1, 0, 1], [0, 0, 0]]


def test_captions_are_queries_for_their_image(photos, photo_images) -> None:
    queries = read_queries(photos / "captions.json", photo_images)
    captions = json.loads((photos / "captions.json").read_text())["annotations"]
    assert queries.relevance.relevant.sum() == len(
        {(caption["caption"].strip(), caption["image_id"]) for caption in captions}
    )
    column = queries.texts.index(captions[0]["caption"].strip())
    [row] = photo_images.rows_of([captions[0]["image_id"]])
    assert queries.relevance.relevant[row, column]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no queries"),
        ('[{"text": "a", "images": [1]}]', "names image 1, which is not among the 3 images"),
        ('[{"text": "a"}]', "missing required field `images`"),
        ('[{"text": "a", "images": [], "pics": []}]', "unknown field `pics`"),
        ("[{", "truncated"),
    ],
)
def test_bad_files(tmp_path, images, content, message) -> None:
    file = tmp_path / "queries.json"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_queries(file, images)


def test_missing_file(tmp_path, images) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_queries(tmp_path / "none.json", images)
