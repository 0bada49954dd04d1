"""The YOLO reader on the layouts that users have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hardmine.datasets import load_images
from hardmine.datasets.yolo_labels import label_path
from hardmine.errors import InputError

ImageWriter = Callable[..., Path]


@pytest.fixture
def dataset(tmp_path: Path, image_file: ImageWriter) -> Callable[..., Path]:
    """Writes images/{train,val} with labels and a data.yaml whose keys can be replaced."""

    def write(labels: str = "1 0.5 0.5 0.5 0.5\n0 0.1 0.1 0.1 0.1\n", **keys: Any) -> Path:
        for name in ("train/a", "train/deep/b", "val/c"):
            image_file(f"set/images/{name}.png")
        file = tmp_path / "set/labels/train/a.txt"
        file.parent.mkdir(parents=True)
        file.write_text(labels)
        data = {"train": "images/train", "val": "images/val", "names": ["cat", "dog"], **keys}
        (tmp_path / "set/data.yaml").write_text(yaml.safe_dump(data))
        return tmp_path / "set"

    return write


def test_values(dataset: Callable[..., Path]) -> None:
    root = dataset()
    images = load_images(root)
    assert images.root == root
    assert images.paths == ("images/train/a.png", "images/train/deep/b.png")
    assert images.ids.tolist() == list(images.paths)
    assert images.class_names == ("cat", "dog")
    assert images.sizes.tolist() == [[40, 60], [0, 0]]
    assert images.instances is not None
    assert images.instances.image_rows.tolist() == [0, 0]
    assert images.instances.class_rows.tolist() == [1, 0]
    np.testing.assert_allclose(images.instances.boxes, [[15, 10, 45, 30], [3, 2, 9, 6]], rtol=1e-6)
    np.testing.assert_allclose(images.instances.areas, [600, 24], rtol=1e-6)


def test_a_polygon_gives_a_box_and_an_area(dataset: Callable[..., Path]) -> None:
    triangle = "0 0.5 0.25 1.0 0.75 0.0 0.75\n"
    images = load_images(dataset(labels=triangle))
    assert images.instances is not None
    np.testing.assert_allclose(images.instances.boxes, [[0, 10, 60, 30]], rtol=1e-6)
    np.testing.assert_allclose(images.instances.areas, [600], rtol=1e-6)


@pytest.mark.parametrize(
    "keys",
    [
        {"path": "."},
        {"path": "set"},
        {"path": "../set", "nc": 2},
        {"names": {0: "cat", 1: "dog"}},
        {"train": ["images/train"]},
        {"train": "../images/train"},
        {"train": "train.txt"},
        {"train": ["images/train/deep", "a.txt"]},
    ],
    ids=str,
)
def test_variants_of_the_yaml(dataset: Callable[..., Path], keys: dict[str, Any]) -> None:
    root = dataset(**keys)
    lines = ["./images/train/a.png", "", str(root / "images/train/deep/b.png")]
    (root / "train.txt").write_text("\n".join(lines))
    (root / "a.txt").write_text("images/train/a.png\r\n")
    for images in (load_images(root / "data.yaml"), load_images(root, "yolo", split="train")):
        assert images.root == root
        assert sorted(images.paths) == ["images/train/a.png", "images/train/deep/b.png"]
        assert images.class_names == ("cat", "dog")
        assert len(images.instances or ()) == 2


def test_absolute_path_and_a_train_folder_elsewhere(
    dataset: Callable[..., Path], image_file: ImageWriter, tmp_path: Path
) -> None:
    other = image_file("other/images/x.png")
    (tmp_path / "other/labels").mkdir()
    (tmp_path / "other/labels/x.txt").write_text("0 0.5 0.5 1 1")
    root = dataset(path=str(tmp_path / "set"), train=["images/train", str(other.parent)])
    images = load_images(root / "data.yaml")
    assert images.root == tmp_path
    assert images.paths[-1] == "other/images/x.png"
    assert images.paths[0] == "set/images/train/a.png"


def test_links_to_images_keep_their_labels(dataset: Callable[..., Path], tmp_path: Path) -> None:
    root = dataset()
    (root / "images").rename(tmp_path / "disk")
    (root / "images").symlink_to(tmp_path / "disk")
    assert len(load_images(root).instances or ()) == 2


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("set/images/train/a.jpg", "set/labels/train/a.txt"),
        ("images/images/a.b.jpg", "images/labels/a.b.txt"),
        ("set/train/a.jpg", "set/train/a.txt"),
        ("set/images.jpg", "set/images.txt"),
    ],
)
def test_label_path(image: str, label: str) -> None:
    assert label_path(Path(image)) == Path(label)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("0 0.5 0.5 0.5\n", r"a\.txt: line 1: expected 'class x y w h' .*, got 4 numbers"),
        ("\n0 0.5 0.5 0.5 0.5 0.9\n", r"a\.txt: line 2: .*, got 6 numbers"),
        ("2 0.5 0.5 0.5 0.5\n", r"a\.txt: line 1: unknown class 2; expected 0 to 1"),
        ("-1 0.5 0.5 0.5 0.5\n", r"a\.txt: line 1: unknown class -1"),
        ("0.5 0.5 0.5 0.5 0.5\n", r"a\.txt: line 1: unknown class 0\.5"),
        ("nan 0.5 0.5 0.5 0.5\n", r"a\.txt: line 1: unknown class nan"),
        ("dog 0.5 0.5 0.5 0.5\n", r"a\.txt: line 1: could not convert string to float: 'dog'"),
        ("0 30 20 10 10\n" * 3, r"3 of 3 boxes are empty or lie outside .*a\.txt line 1;.*centre"),
    ],
)
def test_errors_name_the_file_and_the_line(
    dataset: Callable[..., Path], labels: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_images(dataset(labels=labels))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"names": None}, "names must be a list or a mapping"),
        ({"names": ["cat", True]}, r"names: entry 1 is True, not text; put it in quotes"),
        ({"names": {1: "cat", 2: "dog"}}, "names must be numbered 0 to 1"),
        ({"names": ["cat", "cat"]}, "class names must be unique, 'cat' is there twice"),
        ({"nc": 3}, "nc is 3, but there are 2 names"),
        ({"train": None}, "no split 'train'; found val"),
        ({"train": "images/none"}, r"train: .*set/images/none does not exist"),
        ({"path": "nowhere"}, "path: 'nowhere' is not a folder"),
        ({"train": "list.txt"}, r"list\.txt: line 2: the path '\.\./\.\./x\.png' leaves"),
        ({"train": "away.txt"}, r"away\.txt: line 1: the path '/etc/x\.png' leaves"),
        ({"train": "twice.txt"}, r"'images/train/a\.png' is listed twice"),
        ({"train": "lost.txt"}, r"missing below .*images/lost\.png"),
        ({"train": "images/val"}, r"none of 1 images has a label file;.*labels/val/c\.txt"),
    ],
)
def test_errors_name_the_key(
    dataset: Callable[..., Path], keys: dict[str, Any], message: str
) -> None:
    root = dataset(**keys)
    (root / "list.txt").write_text("images/train/a.png\n../../x.png\n")
    (root / "away.txt").write_text("/etc/x.png\n")
    (root / "twice.txt").write_text("images/train/a.png\n./images/train/a.png\n")
    (root / "lost.txt").write_text("images/train/a.png\nimages/lost.png\n")
    with pytest.raises(InputError, match=message):
        load_images(root / "data.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a\ntrain: b", r"data\.yaml: malformed YAML: .*\n.*line 1"),
        ("!!python/object/apply:os.system ['true']", r"data\.yaml: malformed YAML"),
        ("- a", r"data\.yaml: expected keys such as"),
    ],
)
def test_a_malformed_yaml_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        load_images(file)


def test_an_image_without_a_readable_header_is_left_out(
    dataset: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    root = dataset()
    (root / "labels/train/deep").mkdir()
    (root / "labels/train/deep/b.txt").write_text("0 0.5 0.5 1 1\n")
    (root / "images/train/a.png").write_bytes(b"no image")
    images = load_images(root)
    assert images.paths == ("images/train/deep/b.png",)
    assert images.instances is not None
    np.testing.assert_array_equal(images.instances.boxes, [[0, 0, 60, 40]])
    assert images.notes == ("left out 1 images that cannot be decoded: first images/train/a.png",)
    assert sum(images.notes[0] in line for line in caplog.messages) == 1


@pytest.mark.parametrize("row", ["0 1e300 0.5 1e300 1", "0 nan 0.5 1 1", "0 1 1 1e200 1e200 0 inf"])
def test_numbers_out_of_range_only_drop_their_box(dataset: Callable[..., Path], row: str) -> None:
    images = load_images(dataset(labels=f"{row}\n1 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5\n"))
    assert images.instances is not None
    assert images.instances.class_rows.tolist()[-2:] == [1, 0]
    assert np.isfinite(images.instances.boxes).all()
    assert np.isfinite(images.instances.areas).all()
