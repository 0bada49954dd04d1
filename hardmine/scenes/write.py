"""Writes scenes as a COCO data set: the labels, which may have errors, and the truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardmine.errors import InputError
from hardmine.scenes.compose import generate_scene
from hardmine.scenes.kinds import KINDS, NAMES
from hardmine.scenes.scene import Scene

_CATEGORIES = [
    {"id": row + 1, "name": kind.name, "synonyms": [kind.name, *kind.synonyms]}
    for row, kind in enumerate(KINDS)
]


@dataclass(frozen=True)
class WrittenSplit:
    """The files and counts of one written split.

    Attributes:
        annotations: COCO file with the labels.
        truth: COCO file with all objects and their true classes.
        num_images: Number of images.
        num_labels: Number of annotations in ``annotations``.
        num_objects: Number of annotations in ``truth``.
    """

    annotations: Path
    truth: Path
    num_images: int
    num_labels: int
    num_objects: int


def write_scenes(
    out: str | Path,
    *,
    num_images: int,
    seed: int = 0,
    val_share: float = 0.2,
    size: int = 224,
    tail: float = 100.0,
    crowd: float = 1.0,
    missing: float = 0.0,
    wrong: float = 0.0,
    lossless: bool = False,
    on_image: Callable[[], None] = lambda: None,
) -> dict[str, WrittenSplit]:
    """Write a data set: ``out/{train,val}/images``, ``out/annotations`` (labels), ``out/truth``.

    The scenes of val follow those of train in the series. Only train gets label errors, so that
    validation stays reliable.

    Args:
        out: Folder to write; must be new or empty.
        num_images: Number of images of both splits together; at least 2.
        seed: Seed of the series of scenes.
        val_share: Share of the images in val, in (0, 1).
        size: Side of the images in pixels.
        tail: Frequency of the most frequent class relative to the rarest.
        crowd: Number of objects relative to an ordinary scene.
        missing: Share of train's objects without a label.
        wrong: Share of train's objects that are labelled as another class.
        lossless: Write PNG instead of JPEG of quality 92.
        on_image: Called after each image.

    Raises:
        InputError: If a value is out of range or ``out`` is not empty.
    """
    if num_images < 2:
        raise InputError(f"num_images must be at least 2, one for each split, got {num_images}")
    if not 0 < val_share < 1:
        raise InputError(f"val_share must lie between 0 and 1, got {val_share}")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not an empty folder; choose a new or an empty one")
    num_val = min(max(round(num_images * val_share), 1), num_images - 1)
    options: dict[str, Any] = {"seed": seed, "size": size, "tail": tail, "crowd": crowd}
    options |= {"lossless": lossless, "on_image": on_image}
    train, val = range(num_images - num_val), range(num_images - num_val, num_images)
    return {
        "train": write_split(out, "train", train, missing=missing, wrong=wrong, **options),
        "val": write_split(out, "val", val, **options),
    }


def write_split(
    out: Path,
    split: str,
    indices: range,
    *,
    seed: int = 0,
    lossless: bool = False,
    on_image: Callable[[], None] = lambda: None,
    **options: Any,
) -> WrittenSplit:
    """Write a range of scenes of a series as one split: images, labels and truth.

    Args:
        out: The data set's folder.
        split: Name of the split; its images must not exist yet.
        indices: The scenes' positions in the series.
        seed: Seed of the series.
        lossless: Write PNG instead of JPEG of quality 92.
        on_image: Called after each image.
        **options: Further arguments of ``generate_scene``: size, tail, crowd, contexts, missing ...
    """
    # Generate one scene first, so that a value out of range raises before anything is written.
    generate_scene(seed, 0, **options)
    labels, truth = _CocoFile(seed), _CocoFile(seed)
    folder = out / split / "images"
    folder.mkdir(parents=True)
    for index in indices:
        scene = generate_scene(seed, index, **options)
        name = f"{index:06d}.{'png' if lossless else 'jpg'}"
        _save(scene, folder / name)
        labels.add(scene, index + 1, f"{split}/images/{name}", scene.label_rows.tolist())
        truth.add(scene, index + 1, f"{split}/images/{name}", scene.class_rows.tolist())
        on_image()
    paths = out / "annotations" / f"{split}.json", out / "truth" / f"{split}.json"
    for file, path in zip((labels, truth), paths, strict=True):
        path.parent.mkdir(exist_ok=True)
        file.write(path)
    return WrittenSplit(*paths, len(indices), len(labels.annotations), len(truth.annotations))


def _save(scene: Scene, path: Path) -> None:
    picture = scene.picture
    if path.suffix == ".png":
        from PIL.PngImagePlugin import PngInfo

        metadata = PngInfo()
        metadata.add_text("comment", picture.info["comment"])
        picture.save(path, pnginfo=metadata, compress_level=1)
    else:
        picture.save(path, quality=92, comment=picture.info["comment"])


class _CocoFile:
    """Collects the images and annotations of a COCO file."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, scene: Scene, image_id: int, file_name: str, rows: list[int]) -> None:
        height, width = scene.image.shape[:2]
        self._images.append(
            {
                "id": image_id,
                "file_name": file_name,
                "height": height,
                "width": width,
                "place": scene.place,
                "context": scene.context,
                "captions": list(scene.captions),
            }
        )
        for thing, row in zip(scene.objects, rows, strict=True):
            if row < 0:
                continue
            left, top, right, bottom = thing.box
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": image_id,
                    "category_id": row + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": thing.area,
                    "iscrowd": 0,
                    "attributes": {
                        "color": thing.color,
                        "pattern": thing.pattern,
                        "size": thing.size,
                        "visible": round(thing.visible, 3),
                    },
                }
            )

    def write(self, path: Path) -> None:
        info = {"description": f"hardmine scenes, seed {self._seed}", "classes": len(NAMES)}
        content = {
            "info": info,
            "images": self._images,
            "annotations": self.annotations,
            "categories": _CATEGORIES,
        }
        path.write_text(json.dumps(content))
