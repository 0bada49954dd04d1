"""Lists the images inside tar files, such as WebDataset's; they have no labels."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path, PurePosixPath

from hardmine.datasets.folder import unlabelled_images
from hardmine.datasets.paths import SUFFIXES, inside
from hardmine.errors import InputError
from hardmine.image_files.archives import tar_members
from hardmine.records import ImageSet

_log = logging.getLogger(__name__)


def read(
    source: Path, *, annotations: Path | None, split: str | None, check_files: bool
) -> ImageSet:
    """Read a tar file, or all tar files of a folder, in the order of their members.

    Images stay inside the files. Ids are the paths, such as ``0001.tar/a.jpg``. WebDataset has no
    common layout of boxes: other members are counted in a note, and labels are given to
    ``images_from`` together with these paths.

    Args:
        source: The file or the folder.
        annotations: Must be None.
        split: What the files' names begin with; None takes all.
        check_files: Not used: the images are inside the files.
    """
    if annotations is not None:
        raise InputError(f"{source}: tar files take no annotations=; give both to images_from")
    files = [source] if source.is_file() else tar_files(source, split or "")
    root = source.parent if source.is_file() else source
    paths: list[str] = []
    others: list[str] = []
    for file in files:
        for name in tar_members(file):
            path = f"{file.name}/{inside(name, file, 'a member')}"
            is_image = PurePosixPath(name).suffix.lower() in SUFFIXES
            (paths if is_image else others).append(path)
    if not paths:
        raise InputError(
            f"{source}: no image in {len(files)} tar files"
            + (f"; they hold {', '.join(others[:3])} ..." if others else "")
        )
    images = unlabelled_images(root, tuple(paths))
    if not others:
        return images
    note = (
        f"read images only: {len(others)} other members, such as {others[0]}, may be labels; "
        "give them to hardmine.images_from"
    )
    _log.warning("%s: %s", source, note)
    return replace(images, notes=(note,))


def tar_files(folder: Path, prefix: str = "") -> list[Path]:
    """Tar files of a folder, sorted."""
    return sorted(folder.glob(f"{prefix}*.tar"))
