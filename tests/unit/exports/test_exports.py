"""Found images in the formats of labelling and curation tools."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from toy_data import WordEncoder, make_toy_data
from toy_miner import METRICS, make_miner

from hardmine import TargetRules
from hardmine.datasets import load_images
from hardmine.errors import InputError
from hardmine.exports import (
    MinedImage,
    add_round_to_fiftyone,
    add_to_fiftyone,
    images_of_hits,
    images_of_round,
    write_export,
)
from hardmine.exports.files import label_studio_config, to_cvat, to_label_studio
from hardmine.history import Round
from hardmine.mining.targets import KINDS
from hardmine.records import Hits

BOX = (0.25, 0.5, 0.75, 1.0)
SIZE = (100, 200)  # so the box is 50, 50 to 150, 100 in pixels
MINED = (
    MinedImage(7, "a b/7.jpg", 'dog & "cat"', "suspect", 0.31, BOX, SIZE, 1.5),
    MinedImage(9, "9.jpg", "bus", "confuser", 0.25, (0.0, 0.0, 1.0, 1.0), SIZE, 0.5),
    MinedImage(7, "a b/7.jpg", "bus", "hard", 0.2, (0.1, 0.1, 0.3, 0.2), SIZE, 1.5),
)


def test_coco_is_a_data_set(tmp_path: Path) -> None:
    write_export(MINED, "coco", tmp_path / "to" / "proposals.json")
    images = load_images(tmp_path / "to" / "proposals.json", check_files=False)
    assert (images.ids.tolist(), images.paths) == ([7, 9], ("a b/7.jpg", "9.jpg"))
    assert images.class_names == ("bus", 'dog & "cat"')
    assert images.instances is not None
    assert images.instances.image_rows.tolist() == [0, 0, 1]
    np.testing.assert_allclose(
        images.instances.boxes, [[50, 50, 150, 100], [20, 10, 60, 20], [0, 0, 200, 100]]
    )
    assert images.instances.class_rows.tolist() == [1, 0, 0]
    written = json.loads((tmp_path / "to" / "proposals.json").read_text())["annotations"]
    assert [(one["score"], one["kind"]) for one in written] == [
        (0.31, "suspect"),
        (0.25, "confuser"),
        (0.2, "hard"),
    ]


def test_label_studio_tasks_hold_what_its_documentation_asks_for() -> None:
    first, second = to_label_studio(MINED)
    assert first["data"] == {
        "image": "/data/local-files/?d=a%20b/7.jpg",
        "image_id": 7,
        "kinds": ["hard", "suspect"],
        "weight": 1.5,
    }
    (prediction,) = first["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("hardmine", 0.31)
    box, other = prediction["result"]
    assert box == {
        "id": "0",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": 200,
        "original_height": 100,
        "image_rotation": 0,
        "score": 0.31,
        "value": {
            **{"x": 25.0, "y": 50.0, "width": 50.0, "height": 50.0, "rotation": 0},
            "rectanglelabels": ['dog & "cat"'],
        },
    }
    assert other["id"] == "1"
    assert to_label_studio(MINED, "s3://b/")[1]["data"]["image"] == "s3://b/9.jpg"
    assert second["data"]["kinds"] == ["confuser"]
    config = ElementTree.fromstring(label_studio_config(MINED))
    labels = config.find("RectangleLabels")
    assert labels is not None
    assert labels.attrib == {"name": "label", "toName": "image"}
    assert [label.get("value") for label in labels] == ["bus", 'dog & "cat"']


def test_label_studio_itself_accepts_the_tasks() -> None:
    reason = "needs pip install label-studio-sdk"
    interface = pytest.importorskip("label_studio_sdk.label_interface", reason=reason)
    mined = [*MINED, replace(MINED[1], image_id=8, path="8.jpg", score=-0.01)]
    checked = interface.LabelInterface(label_studio_config(mined))
    checked.validate()
    for task in to_label_studio(mined):
        [prediction] = task.pop("predictions")
        assert checked.validate_task(task)
        assert checked.validate_prediction(prediction, return_errors=True) == []
    prediction["score"] = -0.01
    assert not checked.validate_prediction(prediction)


def test_datumaro_reads_the_cvat_file(tmp_path: Path) -> None:
    datumaro = pytest.importorskip("datumaro", reason="needs pip install datumaro")
    write_export(MINED, "cvat", tmp_path / "annotations.xml")
    for path in ("a b/7.jpg", "9.jpg"):
        file = tmp_path / "images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1]).save(file)
    read = datumaro.Dataset.import_from(str(tmp_path), "cvat")
    names = [label.name for label in read.categories()[datumaro.AnnotationType.label].items]
    found = {
        item.id: [(names[box.label], *box.get_bbox()) for box in item.annotations] for item in read
    }
    assert found == {
        "a b/7": [('dog & "cat"', 50, 50, 100, 50), ("bus", 20, 10, 40, 10)],
        "9": [("bus", 0, 0, 200, 100)],
    }


def test_cvat_xml() -> None:
    root = ElementTree.fromstring(to_cvat(MINED))
    assert root.findtext("version") == "1.1"
    names = [label.findtext("name") for label in root.iterfind("meta/task/labels/label")]
    assert names == ["bus", 'dog & "cat"']
    images = root.findall("image")
    assert [image.attrib for image in images] == [
        {"id": "0", "name": "a b/7.jpg", "width": "200", "height": "100"},
        {"id": "1", "name": "9.jpg", "width": "200", "height": "100"},
    ]
    box = images[0][0].attrib
    assert box["label"] == 'dog & "cat"'
    edges = [box[name] for name in ("xtl", "ytl", "xbr", "ybr")]
    assert edges == ["50.00", "50.00", "150.00", "100.00"]
    assert [len(image) for image in images] == [2, 1]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be one of coco, labelstudio, cvat, got 'csv'"):
        write_export(MINED, "csv", tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_export(MINED, "coco", tmp_path / "file" / "x.json")
    unknown = MinedImage(1, "1.jpg", "bus", "hit", 0.2, BOX, (0, 0), float("nan"))
    with pytest.raises(InputError, match=r"the size of 1\.jpg is not known"):
        write_export([unknown], "cvat", tmp_path / "x.xml")


def test_hits_of_a_search() -> None:
    toy = make_toy_data(5)
    hits = Hits(
        np.array([[3, 1], [0, -1]]),
        np.array([[0.5, 0.25], [0.125, -np.inf]], np.float32),
        np.full((2, 2, 4), 0.5, np.float32),
    )
    found = images_of_hits(toy.index, ["a", "b"], hits)
    assert [(one.image_id, one.class_name, one.score) for one in found] == [
        (int(toy.index.ids[3]), "a", 0.5),
        (int(toy.index.ids[1]), "a", 0.25),
        (int(toy.index.ids[0]), "b", 0.125),
    ]
    assert {one.kind for one in found} == {"hit"}
    assert "weight" not in to_label_studio(found)[0]["data"]


@pytest.fixture(scope="module")
def mined_round() -> tuple[Any, Round]:
    toy = make_toy_data(1000, missing=0.15, rates=(0.5, 0.3, 0.1))
    return toy, make_miner(toy).step(METRICS)


def test_targets_of_a_round(mined_round: tuple[Any, Round]) -> None:
    toy, done = mined_round
    assert done.result is not None
    assert done.weights is not None
    found = images_of_round(done, toy.index, WordEncoder(), kinds=("suspect", "hard"))
    counts = done.counts()
    assert counts["suspect"] > 0
    for kind in ("suspect", "hard"):
        assert len([one for one in found if one.kind == kind]) == counts[kind]
    suspects = {(one.image_id, one.class_name) for one in found if one.kind == "suspect"}
    assert suspects == {(int(toy.index.ids[row]), name) for row, name, _ in done.suspects()}
    one = found[0]
    row = int(toy.index.rows_of([one.image_id])[0])
    assert one.weight == done.weights[row] / done.weights.mean()
    few = images_of_round(done, toy.index, WordEncoder(), kinds=("hard",), limit=2)
    assert len(few) == 2 * sum(query.counts["hard"] > 0 for query in done.queries)
    with pytest.raises(InputError, match=r"kinds must be among positive, .* got 'good'"):
        images_of_round(done, toy.index, WordEncoder(), kinds=("good",))
    with pytest.raises(InputError, match="the round has 1000 images, ids has 2; pass ids="):
        images_of_round(done, toy.index, WordEncoder(), [1, 2])
    read = Round.from_json(done.to_json())
    with pytest.raises(InputError, match="it was read from a file; replay it first"):
        images_of_round(read, toy.index, WordEncoder())


def test_scores_and_boxes_are_those_of_the_rounds_templates() -> None:
    toy = make_toy_data(300)
    done = make_miner(toy, targets=TargetRules(templates=("night {}",))).step(METRICS)
    assert done.result is not None
    targets = done.result.targets
    mined = {
        (done.queries[query].class_name, int(toy.index.ids[row])): score
        for query, row, score in zip(
            targets.query_rows, targets.image_rows, targets.scores, strict=True
        )
    }
    found = images_of_round(done, toy.index, WordEncoder(), kinds=KINDS)
    assert len(found) == len(mined) > 20
    expected = [mined[one.class_name, one.image_id] for one in found]
    np.testing.assert_allclose([one.score for one in found], expected, atol=1e-6)


class Samples:
    """A FiftyOne data set as far as it is used, refusing what the real one refuses.

    ``set_values`` raises for unknown keys, ``save_view`` for a name in use.
    """

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        self.fields: dict[str, dict[str, Any]] = {"hardmine": {"old": None}}
        self.views: dict[str, Any] = {"hardmine hard": None}

    def values(self, field: str) -> list[str]:
        assert field == "filepath"
        return self.paths

    def has_sample_field(self, name: str) -> bool:
        return name in self.fields

    def clear_sample_field(self, name: str) -> None:
        self.fields[name].clear()

    def set_values(self, name: str, values: dict[str, Any], key_field: str) -> None:
        assert key_field == "filepath"
        assert set(values) <= set(self.paths)
        self.fields.setdefault(name, {}).update(values)

    def select_labels(self, *, tags: str, fields: str) -> dict[str, list[Any]]:
        found = {
            path: [one for one in value.detections if tags in one.tags]
            for path, value in self.fields[fields].items()
        }
        return {path: labels for path, labels in found.items() if labels}

    def sort_by(self, field: str, *, reverse: bool) -> list[str]:
        return sorted(self.paths, key=self.fields[field].__getitem__, reverse=reverse)

    def save_view(self, name: str, view: Any, *, overwrite: bool = False) -> None:
        assert overwrite or name not in self.views
        self.views[name] = view


@pytest.fixture
def _fiftyone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(Detection=SimpleNamespace, Detections=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "fiftyone", module)


@pytest.mark.usefixtures("_fiftyone")
def test_fiftyone_gets_detections_and_views() -> None:
    dataset = Samples(["/set/a b/7.jpg", "/set/other.jpg"])
    assert add_to_fiftyone(dataset, MINED, "/set") == 1
    first, second = dataset.fields["hardmine"]["/set/a b/7.jpg"].detections
    assert (first.label, first.confidence, first.tags) == ('dog & "cat"', 0.31, ["suspect"])
    assert first.bounding_box == [0.25, 0.5, 0.5, 0.5]
    assert set(dataset.fields["hardmine"]) == {"/set/a b/7.jpg"}
    assert dataset.views == {
        "hardmine hard": {"/set/a b/7.jpg": [second]},
        "hardmine suspect": {"/set/a b/7.jpg": [first]},
    }
    with pytest.raises(InputError, match=r"none of the 2 images, such as /else/a b/7\.jpg"):
        add_to_fiftyone(dataset, MINED, "/else")


@pytest.mark.usefixtures("_fiftyone")
def test_fiftyone_gets_a_round(mined_round: tuple[Any, Round]) -> None:
    toy, done = mined_round
    assert done.weights is not None
    paths = [str(toy.index.root.absolute() / path) for path in toy.index.paths]
    dataset = Samples(paths[100:])
    add_round_to_fiftyone(dataset, done, toy.index, WordEncoder())
    weights = dataset.fields["hardmine_weight"]
    assert list(weights) == paths[100:]
    np.testing.assert_allclose(list(weights.values()), done.weights[100:] / done.weights.mean())
    most = dataset.views["hardmine most drawn"][0]
    assert weights[most] == max(weights.values())
    kinds = {f"hardmine {kind}" for kind, count in done.counts().items() if count} - {
        "hardmine positive"
    }
    assert set(dataset.views) == {*kinds, "hardmine hard", "hardmine most drawn"}
