"""Writes found images as COCO, Label Studio tasks or CVAT XML."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from hardmine.errors import InputError
from hardmine.exports.mined import MinedImage

# Format -> usual name of its file.
FORMATS = {"coco": "proposals.json", "labelstudio": "tasks.json", "cvat": "annotations.xml"}
LOCAL_FILES = "/data/local-files/?d="


def write_export(
    mined: Sequence[MinedImage], format: str, file: str | Path, *, image_url: str = LOCAL_FILES
) -> None:
    """Write found images with their boxes, for people to check in a labelling tool.

    A box is the region that matched: it shows where to look, and is not a tight box of the object.

    ===============  =======================================================================
    ``coco``         a COCO data set; annotations also have ``score`` and ``kind``
    ``labelstudio``  tasks with predictions, to be imported into a project with the labelling
                     configuration of ``label_studio_config``
    ``cvat``         "CVAT for images 1.1" XML, to be uploaded to a task that holds the images
    ===============  =======================================================================

    Args:
        mined: The images.
        format: One of the names above.
        file: Where to write.
        image_url: Label Studio: put before each path to make the address of the image. By default
            that of local files, with the image folder as ``LOCAL_FILES_DOCUMENT_ROOT``.

    Raises:
        InputError: If the format is unknown, or the file cannot be written.
    """
    if format not in FORMATS:
        raise InputError(f"the format must be one of {', '.join(FORMATS)}, got {format!r}")
    if format == "cvat":
        text = to_cvat(mined)
    elif format == "labelstudio":
        text = json.dumps(to_label_studio(mined, image_url), ensure_ascii=False, indent=1)
    else:
        text = json.dumps(to_coco(mined), ensure_ascii=False)
    path = Path(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error}; choose another file") from error


def to_coco(
    mined: Sequence[MinedImage], class_ids: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """A COCO data set, which labelling tools open; ``score`` is the similarity.

    Args:
        mined: The images.
        class_ids: Category id by class name; the classes that occur, numbered from 1, if None.
    """
    if class_ids is None:
        class_ids = {name: number for number, name in enumerate(class_names(mined), 1)}
    annotations = []
    for number, one in enumerate(mined, 1):
        left, top, right, bottom = one.pixels
        width, height = round(right - left, 2), round(bottom - top, 2)
        annotations.append(
            {
                "id": number,
                "image_id": one.image_id,
                "category_id": class_ids[one.class_name],
                "bbox": [left, top, width, height],
                "area": round(width * height, 2),
                "iscrowd": 0,
                "score": round(one.score, 4),
                "kind": one.kind,
            }
        )
    return {
        "info": {"description": "Found by hardmine, to be checked by people."},
        "images": [
            {
                "id": found[0].image_id,
                "file_name": found[0].path,
                "height": found[0].size[0],
                "width": found[0].size[1],
            }
            for found in by_image(mined)
        ],
        "categories": [{"id": number, "name": name} for name, number in class_ids.items()],
        "annotations": annotations,
    }


def to_label_studio(
    mined: Sequence[MinedImage], image_url: str = LOCAL_FILES
) -> list[dict[str, Any]]:
    """Tasks for Label Studio, one an image, with the boxes as predictions."""
    tasks = []
    for found in by_image(mined):
        height, width = found[0].size
        weight = found[0].weight
        facts: dict[str, Any] = {
            "image_id": found[0].image_id,
            "kinds": sorted({one.kind for one in found}),
        }
        if not math.isnan(weight):
            facts["weight"] = round(weight, 4)
        result = []
        for number, one in enumerate(found):
            left, top, right, bottom = (round(100 * edge, 4) for edge in one.box)
            result.append(
                {
                    "id": f"{number}",
                    "type": "rectanglelabels",
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "score": _confidence(one.score),
                    "value": {
                        "x": left,
                        "y": top,
                        "width": round(right - left, 4),
                        "height": round(bottom - top, 4),
                        "rotation": 0,
                        "rectanglelabels": [one.class_name],
                    },
                }
            )
        score = _confidence(max(one.score for one in found))
        prediction = {"model_version": "hardmine", "score": score, "result": result}
        data = {"image": image_url + quote(found[0].path), **facts}
        tasks.append({"data": data, "predictions": [prediction]})
    return tasks


def _confidence(similarity: float) -> float:
    """A similarity as Label Studio takes scores, which it refuses outside [0, 1]."""
    return round(min(max(similarity, 0.0), 1.0), 4)


def label_studio_config(mined: Sequence[MinedImage]) -> str:
    """The labelling configuration of a project that takes the tasks."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    labels = ElementTree.SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in class_names(mined):
        ElementTree.SubElement(labels, "Label", value=name)
    return ElementTree.tostring(view, encoding="unicode")


def to_cvat(mined: Sequence[MinedImage]) -> str:
    """XML of the format "CVAT for images 1.1"; CVAT finds the images of a task by name."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    labels = ElementTree.SubElement(task, "labels")
    for name in class_names(mined):
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "attributes")
    for number, found in enumerate(by_image(mined)):
        height, width = found[0].size
        image = ElementTree.SubElement(
            root,
            "image",
            id=f"{number}",
            name=found[0].path,
            width=f"{width}",
            height=f"{height}",
        )
        for one in found:
            left, top, right, bottom = (f"{edge:.2f}" for edge in one.pixels)
            ElementTree.SubElement(
                image,
                "box",
                label=one.class_name,
                source="auto",
                occluded="0",
                xtl=left,
                ytl=top,
                xbr=right,
                ybr=bottom,
                z_order="0",
            )
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def class_names(mined: Sequence[MinedImage]) -> list[str]:
    """All classes, sorted."""
    return sorted({one.class_name for one in mined})


def by_image(mined: Sequence[MinedImage]) -> list[list[MinedImage]]:
    """What was found in each image, images in the order of their first."""
    images: dict[str, list[MinedImage]] = {}
    for one in mined:
        images.setdefault(one.path, []).append(one)
    return list(images.values())
