"""What the server finds by itself: conditions, and images of a pool to label next."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from serve_site import Running, running
from toy_data import make_toy_data


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("find")) as one:
        yield one


def made(served: Running, path: str, **query: Any) -> dict[str, Any]:
    """An answer that is made in the background."""
    for _ in range(300):
        found: dict[str, Any] = served.client.get(path, params=query).json()
        if found["version"]:
            assert found["error"] == ""
            return found
        time.sleep(0.1)
    raise AssertionError(found)


def test_a_planted_condition_is_shown_on_both_sides(served: Running) -> None:
    """The detector misses cars at night; images on the one side are nights, on the other days."""
    (found,) = made(served, "/api/conditions")["conditions"]
    assert "night" in found["phrase"]
    assert found["missed"] > 0.5 > found["missed_usually"]
    assert found["ap"]["inside"] < found["ap"]["outside"]
    night = served.toy.night
    assert night[[one["row"] for one in found["inside"]]].all()
    assert not night[[one["row"] for one in found["outside"]]].any()
    assert night[[one["row"] for one in found["training"]]].all()
    assert abs(found["val_share"] - night.mean()) < 0.15
    # Marked are the cars, which are labelled, and nothing on the other side.
    assert [len(one["missed"]) for one in found["outside"]] == [0] * 8
    assert sum(len(one["missed"]) for one in found["inside"]) > 2
    for one in (*found["inside"], *found["training"]):
        if one["path"] != "broken.png":
            address = f"/images/{one['row']}/small"
            assert served.client.get(address, params={"of": one["of"]}).status_code == 200
    assert served.client.get("/images/500/small", params={"of": "pool"}).status_code == 400


def test_what_to_label_next(served: Running, tmp_path: Path) -> None:
    """What is chosen shows what it is wanted for, about as often as expected."""
    present = make_toy_data(120, seed=9).present
    served.client.post("/api/contexts", json={"texts": ["on a street"]})
    found = made(served, "/api/collect", budget=40)
    names = served.site.workspace.class_names
    wanted = {one["name"]: one for one in found["wishes"]}
    assert "on a street" in wanted
    assert sum(one["num_chosen"] for one in found["wishes"]) == len(found["images"]) == 40
    for name, one in wanted.items():
        if name in names and one["num_chosen"]:
            rows = [image["row"] for image in found["images"] if image["wish"] == name]
            true = present[rows, names.index(name)].sum()
            assert abs(true - one["expected"]) <= 2 * np.sqrt(len(rows)), (name, true, one)
    # A smaller budget is the beginning of the same list.
    fewer = made(served, "/api/collect", budget=10)["images"]
    assert [one["row"] for one in fewer] == [one["row"] for one in found["images"][:10]]
    export = served.client.get("/api/collect/export", params={"budget": 40, "format": "cvat"})
    images = ElementTree.fromstring(export.text).findall("image")
    assert {image.get("name") for image in images} == {one["path"] for one in found["images"]}
    coco = served.client.get("/api/collect/export", params={"budget": 40}).json()
    assert len(coco["annotations"]) == 40
