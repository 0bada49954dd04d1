"""Detects the format of a data set from its files."""

from __future__ import annotations

from pathlib import Path

from hardmine.addresses import as_path
from hardmine.datasets import arrow, coco, datumaro, imagefolder, nuimages, parquet, tar, yolo
from hardmine.datasets.paths import SUFFIXES, walk
from hardmine.errors import InputError

_LOOKED_FOR = (
    "looked for a COCO or Datumaro json (in it or in annotations/), Annotations/*.xml with "
    "JPEGImages/ (VOC), data.yaml (YOLO), v1.0-*/object_ann.json (nuImages), metadata.jsonl, "
    "parquet files or save_to_disk's folder (Hugging Face), tar files, image files (a plain folder)"
)
# Files beside images that probably hold labels; a list of names or an archive may as well.
_LABEL_SUFFIXES = frozenset((".json", ".jsonl", ".xml", ".csv", ".parquet", ".tar", ".tfrecord"))


def detect_format(source: Path, annotations: Path | None) -> str:
    """Name of the format of an existing file or folder.

    Raises:
        InputError: If no known format fits, or more than one.
    """
    labels = annotations or source
    if labels.is_file():
        by_suffix = {
            ".json": "coco",
            ".jsonl": "imagefolder",
            ".parquet": "parquet",
            ".tar": "tar",
            ".yaml": "yolo",
            ".yml": "yolo",
            ".txt": "list",
        }
        if labels.suffix.lower() == ".json" and datumaro.is_datumaro(labels):
            return "datumaro"
        if labels.suffix.lower() in by_suffix:
            return by_suffix[labels.suffix.lower()]
        raise InputError(
            f"{labels}: cannot detect the format of a file that ends in {labels.suffix!r}; "
            "expected .json (COCO, LVIS, Datumaro), .jsonl or .parquet (Hugging Face), .yaml "
            "(YOLO), .tar (images) or .txt (list of images); or pass format="
        )
    found = [name for name, matches in _DETECTORS.items() if matches(labels)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{labels}: matches several formats: {', '.join(found)}; pass format=")
    if annotations is None and _has_images(source):
        if unread := _label_files(source):
            raise InputError(
                f"{source}: images, and files that may hold their labels in a layout that is not "
                f"known: {', '.join(unread)}; {_LOOKED_FOR}; convert them to COCO, give them to "
                "hardmine.images_from, or pass format='folder' to read the images without labels"
            )
        return "folder"
    names = sorted(path.name + "/" * path.is_dir() for path in labels.iterdir())
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    raise InputError(f"{labels}: no known format: {_LOOKED_FOR}; found {shown or 'nothing'}")


def _has_images(folder: Path) -> bool:
    names = (name for _, _, names in walk(folder) for name in names)
    return any(Path(name).suffix.lower() in SUFFIXES for name in names)


def _label_files(folder: Path) -> list[str]:
    """The first files below a folder that may hold labels: by suffix, or named like an image."""
    found: list[str] = []
    for place, subfolders, names in walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if "shards" in subfolders and "manifest.json" in names:  # an index of these images
            subfolders.clear()
            continue
        stems = {Path(name).stem for name in names if Path(name).suffix.lower() in SUFFIXES}
        for name in sorted(names):
            suffix = Path(name).suffix.lower()
            beside = suffix == ".txt" and Path(name).stem in stems
            if beside or suffix in _LABEL_SUFFIXES:
                found.append((as_path(place) / name).relative_to(folder).as_posix())
        if len(found) >= 3:
            break
    return found[:3]


def _is_coco(folder: Path) -> bool:
    return bool(coco.annotation_files(folder))


def _is_voc(folder: Path) -> bool:
    return next(folder.glob("Annotations/*.xml"), next(folder.glob("*.xml"), None)) is not None


def _is_yolo(folder: Path) -> bool:
    return bool(yolo.data_files(folder))


def _is_nuimages(folder: Path) -> bool:
    return bool(nuimages.table_folders(folder))


def _is_datumaro(folder: Path) -> bool:
    return bool(datumaro.annotation_files(folder))


def _is_imagefolder(folder: Path) -> bool:
    return bool(imagefolder.metadata_files(folder))


def _is_parquet(folder: Path) -> bool:
    return bool(parquet.parquet_files(folder))


def _is_tar(folder: Path) -> bool:
    return bool(tar.tar_files(folder)) and not any(
        path.suffix.lower() in SUFFIXES for path in folder.iterdir()
    )


_DETECTORS = {
    "coco": _is_coco,
    "voc": _is_voc,
    "yolo": _is_yolo,
    "nuimages": _is_nuimages,
    "datumaro": _is_datumaro,
    "imagefolder": _is_imagefolder,
    "parquet": _is_parquet,
    "arrow": arrow.is_saved,
    "tar": _is_tar,
}
