"""The Pascal VOC reader against torchvision's, and its error messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hardmine.datasets import load_images
from hardmine.errors import InputError

ImageWriter = Callable[..., Path]

XML = """<annotation>
  <folder>VOC2012</folder>
  <filename>{stem}.jpg</filename>
  <source><database>The VOC2007 Database</database></source>
  <size><width>{width}</width><height>40</height><depth>3</depth></size>
  <segmented>0</segmented>{objects}
</annotation>
"""
OBJECT = """
  <object>
    <name>{name}</name><pose>Left</pose><truncated>1</truncated><difficult>{difficult}</difficult>
    <part><name>head</name><bndbox>
      <xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
    <bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
  </object>"""


def object_xml(name: str, *edges: float, difficult: int = 0) -> str:
    return OBJECT.format(*edges, name=name, difficult=difficult)


@pytest.fixture
def voc(tmp_path: Path, image_file: ImageWriter) -> Callable[..., Path]:
    """Writes a VOC folder of images of 60 × 40, one for each stem."""

    def write(root: str = "VOCdevkit/VOC2012", width: int = 60, **objects: str) -> Path:
        folder = tmp_path / root
        (folder / "Annotations").mkdir(parents=True)
        for stem, text in objects.items():
            image_file(f"{root}/JPEGImages/{stem}.jpg")
            page = XML.format(stem=stem, objects=text, width=width)
            (folder / "Annotations" / f"{stem}.xml").write_text(page)
        main = folder / "ImageSets" / "Main"
        main.mkdir(parents=True)
        (main / "train.txt").write_text("\n".join(objects) + "\n")
        return folder

    return write


def test_values(voc: Callable[..., Path]) -> None:
    person = object_xml("person", 10, 5, 30, 25) + object_xml("dog", 1, 1, 60, 40, difficult=1)
    images = load_images(voc(b=person, a=""))
    assert images.ids.tolist() == ["a", "b"]
    assert images.paths == ("JPEGImages/a.jpg", "JPEGImages/b.jpg")
    assert images.sizes.tolist() == [[40, 60], [40, 60]]
    assert len(images.class_names) == 20
    assert images.instances is not None
    assert images.instances.image_rows.tolist() == [1, 1]
    np.testing.assert_array_equal(images.instances.boxes, [[9, 4, 30, 25], [0, 0, 60, 40]])
    np.testing.assert_array_equal(images.instances.areas, [21 * 21, 2400])
    assert not images.instances.crowd.any()


def test_boxes_equal_torchvision_s(voc: Callable[..., Path], tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    voc(
        a=object_xml("person", 10, 5, 30, 25) + object_xml("tvmonitor", 2, 3, 4, 5),
        b=object_xml("cat", 1, 1, 60, 40),
    )
    peer = datasets.VOCDetection(str(tmp_path), year="2012", image_set="train")
    images = load_images(tmp_path / "VOCdevkit/VOC2012", split="train")
    assert images.instances is not None
    assert len(images) == len(peer) == 2
    for row, (picture, target) in enumerate(peer):
        page = target["annotation"]
        assert images.path(row).name == page["filename"]
        assert images.sizes[row].tolist() == [picture.height, picture.width]
        own = images.instances.take(images.instances.image_rows == row)
        names = [images.class_names[each] for each in own.class_rows]
        assert names == [each["name"] for each in page["object"]]
        edges = [
            [float(each["bndbox"][edge]) for edge in ("xmin", "ymin", "xmax", "ymax")]
            for each in page["object"]
        ]
        # torchvision returns the file's text, which counts pixels from 1.
        np.testing.assert_array_equal(own.boxes, np.subtract(edges, [1, 1, 0, 0]))


def test_other_classes_are_sorted_by_name(voc: Callable[..., Path]) -> None:
    images = load_images(voc(a=object_xml("zebra", 1, 1, 9, 9) + object_xml("ant", 2, 2, 8, 8)))
    assert images.class_names == ("ant", "zebra")
    assert images.instances is not None
    assert images.instances.class_rows.tolist() == [1, 0]


def test_images_and_annotations_in_other_folders(voc: Callable[..., Path]) -> None:
    folder = voc(a=object_xml("cat", 1, 1, 9, 9), width=0)
    images = load_images(folder / "JPEGImages", annotations=folder / "Annotations")
    assert images.paths == ("a.jpg",)
    assert images.sizes.tolist() == [[40, 60]]  # read from the image, as the XML says 0
    (folder / "JPEGImages" / "a.jpg").rename(folder / "Annotations" / "a.jpg")
    beside = load_images(folder / "Annotations")  # Roboflow's form
    assert (beside.paths, beside.labelled) == (("a.jpg",), True)


def test_the_image_is_found_by_stem_with_any_suffix(
    voc: Callable[..., Path], image_file: ImageWriter, tmp_path: Path
) -> None:
    folder = voc(a=object_xml("cat", 1, 1, 9, 9))
    (folder / "JPEGImages/a.jpg").unlink()
    image_file("VOCdevkit/VOC2012/JPEGImages/a.png")
    assert load_images(folder).paths == ("JPEGImages/a.png",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", r"a\.xml: malformed XML: no element found: line 1, column 20"),
        ("", r"a\.xml: malformed XML: no element found"),
        (
            '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>',
            r"a\.xml: line 1: a document type is refused",
        ),
        (
            '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
            r"a\.xml: line 1: a document type is refused",
        ),
        (XML.format(stem="a", width=60, objects="<object/>"), r"a\.xml: object 0 has no name"),
        (
            XML.format(stem="a", width=60, objects=object_xml("cat", 1, 2, "three", 4)),  # type: ignore[arg-type]
            r"a\.xml: object 0: bndbox/xmax must be a number, got 'three'",
        ),
        (XML.format(stem="../../a", width=60, objects=""), r"a\.xml: filename: .* leaves"),
        (XML.format(stem="/etc/a", width=60, objects=""), r"a\.xml: filename: .* leaves"),
    ],
)
def test_errors_name_the_file_and_the_entry(
    voc: Callable[..., Path], text: str, message: str
) -> None:
    folder = voc(a="")
    (folder / "Annotations/a.xml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_images(folder, "voc")


def test_an_entity_bomb_in_another_encoding_is_refused(voc: Callable[..., Path]) -> None:
    folder = voc(a="")
    bomb = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE x [<!ENTITY a "aa">]><x>&a;</x>'
    (folder / "Annotations/a.xml").write_bytes(bomb.encode("utf-16"))
    with pytest.raises(InputError, match="document type is refused"):
        load_images(folder)


def test_missing_splits_and_files_are_named(voc: Callable[..., Path]) -> None:
    folder = voc(a="", b="")
    with pytest.raises(InputError, match=r"trainval\.txt: no such split; found train"):
        load_images(folder, split="trainval")
    (folder / "JPEGImages/b.jpg").unlink()
    with pytest.raises(InputError, match=r"missing below .*JPEGImages/b\.jpg \(b\.xml\)"):
        load_images(folder)
    (folder / "Annotations/b.xml").unlink()
    with pytest.raises(InputError, match=r"train\.txt: line 2: .*b\.xml is missing"):
        load_images(folder, split="train")


def test_boxes_outside_the_image_are_counted_and_named(voc: Callable[..., Path]) -> None:
    boxes = (
        object_xml("cat", 70, 1, 80, 9)
        + object_xml("cat", 50, 1, 80, 9)
        + object_xml("cat", 1, 1, 9, 9)
    )
    images = load_images(voc(a=boxes))
    assert len(images.instances or ()) == 2
    assert [note.partition(": ")[2] for note in images.notes] == [
        "a.xml object 0",
        "a.xml object 1",
    ]


def test_an_impossible_image_size_is_an_error(voc: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"a\.xml: impossible image size, 1e\+30 wide and 40 high"):
        load_images(voc(a="", width=10**30))
