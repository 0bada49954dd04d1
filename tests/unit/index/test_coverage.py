"""An index of another data set with the same ids is refused; moved and packed images are not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pixel_images import write_image

from hardmine.cli.main import main
from hardmine.datasets import load_images
from hardmine.encoders import load_encoder
from hardmine.errors import IndexMismatch
from hardmine.index import Index, build_index, index_from_regions
from hardmine.index.coverage import other_file, require_same_files
from hardmine.records import ImageSet
from hardmine.serve import open_workspace

COCO = [f"{number:012d}.jpg" for number in range(1, 6)]
STREETS = [f"street_{number:06d}.jpg" for number in range(5)]


def labels(paths: Sequence[str], ids: Sequence[int | str] | None = None) -> ImageSet:
    numbers = np.array(ids if ids is not None else range(1, len(paths) + 1))
    return ImageSet(Path(), numbers, tuple(paths), np.zeros((len(paths), 2), np.int32))


def indexed(paths: Sequence[str] | None, ids: Sequence[int | str] | None = None) -> Index:
    numbers = np.array(
        ids if ids is not None else range(1, len(COCO if paths is None else paths) + 1)
    )
    count = len(numbers)
    vectors = np.tile(np.eye(1, 4), (count, 1))
    return index_from_regions(vectors, np.arange(count + 1), ids=numbers, paths=paths)


@pytest.mark.parametrize(
    ("index", "images"),
    [
        pytest.param(indexed([]), labels(COCO), id="nothing indexed"),
        pytest.param(indexed(COCO), labels([]), id="no labels"),
        pytest.param(indexed(COCO), labels(COCO), id="the same"),
        pytest.param(indexed([f"train/{p}" for p in COCO]), labels(COCO), id="another folder"),
        pytest.param(indexed([f"a.tar/{p}" for p in COCO]), labels(COCO), id="in a tar file"),
        pytest.param(
            indexed([p.replace("jpg", "png") for p in COCO]), labels(COCO), id="converted"
        ),
        pytest.param(indexed([p.upper() for p in STREETS]), labels(STREETS), id="upper case"),
        pytest.param(
            indexed([f"COCO_train2014_{p}" for p in COCO]), labels(COCO), id="COCO 2014 and 2017"
        ),
        pytest.param(indexed(None), labels(COCO), id="an index without paths"),
        pytest.param(indexed(STREETS), labels(list("01234")), id="images that are no files"),
        pytest.param(
            indexed(COCO[:3] + STREETS[3:]), labels(COCO), id="fewer than half were renamed"
        ),
        pytest.param(
            indexed(STREETS, list("abcde")), labels(COCO, list("abcde")), id="text as ids"
        ),
        pytest.param(indexed(STREETS), labels(COCO, range(6, 11)), id="no id in common"),
    ],
)
def test_the_same_images_are_accepted(index: Index, images: ImageSet) -> None:
    require_same_files(index, images)


@pytest.mark.parametrize(
    ("index", "images", "named"),
    [
        pytest.param(
            indexed(STREETS), labels(COCO), (1, "street_000000.jpg", COCO[0]), id="all differ"
        ),
        pytest.param(
            indexed(STREETS[:3] + COCO[3:]),
            labels(COCO),
            (1, "street_000000.jpg", COCO[0]),
            id="most differ",
        ),
        pytest.param(
            indexed([f"a/street_{number:06d}.jpg" for number in range(1, 6)]),
            labels([f"{number:06d}.png" for number in range(5)]),
            (1, "street_000001.jpg", "000000.png"),
            id="a tail that is not the id",
        ),
        pytest.param(
            indexed(STREETS), labels(COCO[:1], [3]), (3, STREETS[2], COCO[0]), id="labels of one"
        ),
    ],
)
def test_other_files_under_the_same_ids_are_found(
    index: Index, images: ImageSet, named: tuple[int, str, str]
) -> None:
    assert other_file(index, images) == named


def test_a_hundred_names_spread_over_all_are_compared() -> None:
    count = 1000
    paths = [f"{number}.jpg" for number in range(count)]
    index = indexed(paths, range(count))
    others = [f"b{number}.jpg" for number in range(count)]
    assert other_file(index, labels(paths[:600] + others[600:], range(count))) is None
    found = other_file(index, labels(paths[:400] + others[400:], range(count)))
    assert found is not None
    assert 400 <= found[0] < 420


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets with the ids 1 to 6 and an index of each; detections and metrics of one."""
    place = tmp_path_factory.mktemp("sets")
    for name, form in (("mine", "{:06d}.jpg"), ("other", "street_{:06d}.jpg")):
        paths = [form.format(number) for number in range(6)]
        for number, path in enumerate(paths):
            write_image(place / name / path, number)
        boxes = {"bbox": [1, 1, 20, 20], "category_id": 1}
        content = {
            "images": [{"id": row + 1, "file_name": path} for row, path in enumerate(paths)],
            "annotations": [{"id": row, "image_id": row, **boxes} for row in range(1, 5)],
            "categories": [{"id": 1, "name": "car"}],
        }
        (place / f"{name}.json").write_text(json.dumps(content))
        images = load_images(place / name, annotations=place / f"{name}.json")
        encoder = load_encoder("tiny", image_size=64)
        build_index(images, encoder, place / f"{name}.hmx", clusters="whole", workers=1)
    found = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "score": 0.5}]
    (place / "results.json").write_text(json.dumps(found))
    (place / "metrics.json").write_text('{"car": 0.5}')
    (place / "queries.json").write_text(json.dumps([{"text": "a car", "images": [1, 2]}]))
    return place


@pytest.mark.parametrize(
    "line",
    [
        "report --metrics metrics.json --index {}.hmx --ann mine.json",
        "report --detections results.json --val-ann mine.json --val-index {}.hmx --slice night",
        "eval {}.hmx --ann mine.json --templates short",
        "eval {}.hmx --ann mine.json --queries queries.json",
        "search {}.hmx car --class car --ann mine.json --images mine",
    ],
)
def test_commands_refuse_the_index_of_another_data_set(
    sets: Path, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sets)
    assert main(line.format("mine").split()) == 0
    capsys.readouterr()
    assert main(line.format("other").split()) == 2
    shown = capsys.readouterr()
    assert "id 1: street_000000.jpg in the index, 000000.jpg in the labels" in shown.err
    assert shown.out == ""


def test_a_report_without_slices_takes_validation_images_with_the_ids_of_training(
    sets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(sets)
    line = "report --detections results.json --val-ann mine.json --index other.hmx --ann other.json"
    assert main(line.split()) == 0
    assert main([*line.split(), "--slice", "night"]) == 2
    assert "street_000000.jpg in the index" in capsys.readouterr().err


def test_a_workspace_refuses_other_labels_and_tells_validation_images_apart(sets: Path) -> None:
    index = sets / "other.hmx"
    with pytest.raises(IndexMismatch, match=r"id 1: street_000000.jpg"):
        open_workspace(index, ann=sets / "mine.json")
    space = open_workspace(index, ann=sets / "other.json", val_ann=sets / "mine.json")
    assert space.val_index is None
