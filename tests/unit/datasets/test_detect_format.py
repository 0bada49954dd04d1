"""Detection of the format from the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardmine.datasets import READERS, load_images
from hardmine.datasets.detect_format import detect_format
from hardmine.errors import InputError

SETS = {
    "coco": {"annotations/train.json": '{"images": []}'},
    "voc": {"Annotations/a.xml": "<annotation/>", "JPEGImages/a.jpg": ""},
    "yolo": {"data.yaml": "names: [cat]\ntrain: images"},
    "nuimages": {"v1.0-mini/object_ann.json": "[]"},
    "datumaro": {"annotations/train.json": '{"info": {}, "categories": {}, "items": []}'},
    "imagefolder": {"train/metadata.jsonl": "{}", "train/a.jpg": ""},
    "parquet": {"data/train-00000-of-00001.parquet": ""},
    "arrow": {"state.json": "{}", "dataset_info.json": "{}", "data-00000-of-00001.arrow": ""},
    "tar": {"0001.tar": "", "0002.tar": ""},
    "folder": {"deep/er/a.jpg": ""},
}
OTHERS = {
    "coco with the json next to its images": (
        "coco",
        {"_annotations.coco.json": '{"info": 1}', "a.jpg": ""},
    ),
    "yolo with another file name": ("yolo", {"coco8.yaml": "names: {0: cat}\nval: images"}),
    "images with other yaml": ("folder", {"train.yaml": "epochs: 3", "a.jpg": ""}),
    "Roboflow's folder of splits": ("coco", {"train/_annotations.coco.json": '{"info": 1}'}),
    "images and a list of them": ("folder", {"train.txt": "a.jpg", "a.jpg": ""}),
    "folder of nuImages tables": ("nuimages", {"object_ann.json": "[]"}),
    "folder of VOC files": ("voc", {"a.xml": "<annotation/>"}),
}


def fill(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", SETS)
def test_each_format(tmp_path: Path, name: str) -> None:
    assert detect_format(fill(tmp_path, SETS[name]), None) == name


@pytest.mark.parametrize("case", OTHERS)
def test_less_common_layouts(tmp_path: Path, case: str) -> None:
    name, files = OTHERS[case]
    assert detect_format(fill(tmp_path, files), None) == name


@pytest.mark.parametrize(
    ("file", "name"), [("x.json", "coco"), ("x.YAML", "yolo"), ("x.yml", "yolo"), ("x.txt", "list")]
)
def test_a_file_is_detected_by_its_suffix(tmp_path: Path, file: str, name: str) -> None:
    assert detect_format(fill(tmp_path, {file: ""}) / file, None) == name


def test_every_format_is_covered() -> None:
    assert {*SETS, "lvis", "list"} == READERS.keys()


def test_two_formats_in_one_folder_are_an_error(tmp_path: Path) -> None:
    fill(tmp_path, SETS["coco"] | SETS["yolo"])
    with pytest.raises(InputError, match="matches several formats: coco, yolo; pass format="):
        load_images(tmp_path)


def test_an_unknown_folder_reports_what_was_searched_and_found(tmp_path: Path) -> None:
    fill(tmp_path, {"movie.mp4": "", "sub/notes.md": ""})
    with pytest.raises(
        InputError, match=r"looked for a COCO or Datumaro json .* found movie\.mp4, sub/$"
    ):
        load_images(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found nothing"):
        load_images(tmp_path / "empty")


@pytest.mark.parametrize(
    "file", ["results.json", "labels/a.csv", "images/a.txt", "a.xml.json", "shards/0.tar"]
)
def test_images_with_labels_of_an_unknown_layout_are_never_read_without_them(
    tmp_path: Path, file: str
) -> None:
    fill(tmp_path, {file: '[{"image_id": 1}]', "images/a.jpg": ""})
    with pytest.raises(InputError, match=f"may hold their labels .*: {file}; looked for"):
        load_images(tmp_path)
    assert not load_images(tmp_path, format="folder").labelled


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none",), r"none: no such file or folder"),
        ((".", "koko"), r"format must be one of coco, lvis, voc.*got 'koko'"),
        (("movie.mp4",), r"cannot detect the format of a file that ends in '\.mp4'"),
    ],
)
def test_bad_arguments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(fill(tmp_path, {"movie.mp4": ""}))
    with pytest.raises(InputError, match=message):
        load_images(*arguments)
