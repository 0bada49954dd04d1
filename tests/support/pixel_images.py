"""Small image files and a small real encoder, for tests that build an index."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F

from hardmine.encoders.base import DenseFeatures
from hardmine.index.storage.files import FileRecord, sha256_of
from hardmine.index.storage.manifest import read_manifest, write_manifest
from hardmine.records import ImageSet

# Folder for many small synced files: in memory if the system has one, else None for the default.
FAST_FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class PixelEncoder:
    """A fixed random projection of each 4×4 block of a 16×16 thumbnail: 4×4 patches of 8."""

    dim = 8

    def __init__(self, seed: int = 0) -> None:
        self.fingerprint = f"pixels-{seed}"
        generator = torch.Generator().manual_seed(seed)
        self._weight = torch.randn(48, self.dim, generator=generator)

    def preprocess(self, image: PIL.Image.Image) -> torch.Tensor:
        """The 16×16 thumbnail, colours in [-1, 1]."""
        pixels = np.asarray(image.resize((16, 16)), np.float32) / 127.5 - 1
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        """Project the blocks; the image vector is their mean."""
        patches = F.normalize(
            batch.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3)
            @ self._weight,
            dim=-1,
        )
        return DenseFeatures(patches, F.normalize(patches.mean(dim=(1, 2)), dim=-1))

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """A fixed direction for each text."""
        seeds = [sum(text.encode()) for text in texts]
        rows = [torch.randn(self.dim, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return F.normalize(torch.stack(rows), dim=-1)


def write_image(path: Path, seed: int) -> None:
    """Write one small image of random blocks, which the seed determines."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(blocks.repeat(4, axis=0).repeat(4, axis=1)).save(path, quality=90)


def write_images(root: Path, count: int, *, broken: Iterable[int] = ()) -> ImageSet:
    """Write ``count`` image files, some of them broken, and list them."""
    for number in range(count):
        write_image(root / f"{number}.jpg", number)
    for number in broken:
        (root / f"{number}.jpg").write_bytes(b"\xff\xd8 no image")
    return list_images(root, range(count))


def list_images(root: Path, numbers: Iterable[int]) -> ImageSet:
    """The image set of some numbered images; ids are ten times the number."""
    numbers = list(numbers)
    return ImageSet(
        root,
        np.array(numbers, np.int64) * 10,
        tuple(f"{number}.jpg" for number in numbers),
        np.zeros((len(numbers), 2), np.int32),
    )


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def reseal(folder: Path, **changes: object) -> None:
    """Update the hashes in a manifest to its changed files, as an attacker would."""
    manifest = read_manifest(folder)

    def record(old: FileRecord) -> FileRecord:
        path = folder / old.name
        return FileRecord(name=old.name, bytes=path.stat().st_size, sha256=sha256_of(path))

    images = msgspec.structs.replace(manifest.images, table=record(manifest.images.table))
    shards = tuple(
        msgspec.structs.replace(shard, vectors=record(shard.vectors), layout=record(shard.layout))
        for shard in manifest.shards
    )
    changed = msgspec.structs.replace(manifest, **{"images": images, "shards": shards} | changes)
    write_manifest(folder, changed, scratch=folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run as a user without root's right to write anywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
