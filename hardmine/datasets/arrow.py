"""Reads a data set that Hugging Face ``datasets`` saved to a folder of arrow files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hardmine.errors import InputError
from hardmine.records import ImageSet


def read(
    source: Path, *, annotations: Path | None, split: str | None, check_files: bool
) -> ImageSet:
    """Read what ``dataset.save_to_disk`` wrote, as ``from_huggingface`` reads the data set.

    Args:
        source: The folder.
        annotations: Must be None.
        split: Needed if the folder holds several splits.
        check_files: Not used: the images are inside the files.
    """
    try:
        from datasets import load_from_disk
    except ImportError:
        raise InputError(f"{source}: to read it, pip install datasets") from None
    from hardmine.datasets.sources.huggingface import from_huggingface

    if annotations is not None:
        raise InputError(f"{source}: the data set holds its labels; leave annotations= out")
    try:
        dataset = load_from_disk(str(source))
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: datasets cannot read it: {error}") from error
    if isinstance(dataset, Mapping):
        if split not in dataset:
            raise InputError(f"{source}: expected split= as one of {', '.join(dataset)}")
        dataset = dataset[split]
    elif split is not None:
        raise InputError(f"{source}: the folder holds one split; leave split= out")
    return from_huggingface(dataset)


def saved_images(folder: Path | None) -> ImageSet | None:
    """The images of such a folder; None if it is another."""
    if folder is None or not is_saved(folder):
        return None
    return read(folder, annotations=None, split=None, check_files=False)


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote this folder."""
    one = all((folder / name).is_file() for name in ("state.json", "dataset_info.json"))
    return one or (folder / "dataset_dict.json").is_file()
