"""``manifest.json``: what an index is made of, down to the hash of every file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from hardmine._version import __version__
from hardmine.errors import IndexDamaged, IndexMismatch
from hardmine.index.storage.files import FileRecord, write_durably

NAME = "manifest.json"
WORK = ".build"  # what an unfinished build or update keeps inside the folder
FORMAT = 1
_LONGEST = 256 << 20

Count = Annotated[int, msgspec.Meta(ge=0)]


class ShardRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One shard: images stored (later removed ones included), their regions, the two files."""

    number: Count
    images: Count
    regions: Count
    vectors: FileRecord
    layout: FileRecord


class EncoderRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which encoder made the vectors; ``spec`` makes it again where the encoder has one."""

    fingerprint: str
    dim: Annotated[int, msgspec.Meta(ge=1)]
    spec: dict[str, Any] | None = None


class ClustersRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How patches became regions."""

    spec: str
    seed: int


class ImagesRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which images: the data set's fingerprint and folder, and the table that lists them."""

    fingerprint: str
    root: str
    count: Count
    broken: Count
    table: FileRecord


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that must hold for an index to be opened.

    Attributes:
        format: Version of the layout on disk.
        hardmine: Version that wrote it.
        generation: 0 after a build, one more with each update.
        dtype: How vectors are stored.
        shards: In ascending order of their numbers.
    """

    format: Count
    hardmine: str
    generation: Count
    encoder: EncoderRecord
    clusters: ClustersRecord
    dtype: Literal["float16", "int8"]
    images: ImagesRecord
    shards: tuple[ShardRecord, ...]

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """Every file of the index but the manifest."""
        pairs = [record for shard in self.shards for record in (shard.vectors, shard.layout)]
        return (self.images.table, *pairs)

    @property
    def summary(self) -> str:
        """One line for people."""
        images, regions = self.images, sum(shard.regions for shard in self.shards)
        size = sum(record.bytes for record in self.files) / 2**20
        skipped = f", {images.broken} skipped" if images.broken else ""
        return (
            f"{images.count - images.broken} images{skipped}, {regions} regions of "
            f"{self.encoder.dim} {self.dtype}, {len(self.shards)} shards, {size:.1f} MiB"
        )

    @property
    def next_number(self) -> int:
        """First shard number that no shard has reached."""
        return self.shards[-1].number + 1 if self.shards else 0


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    manifest: Manifest
    sha256: str


def render(manifest: Manifest) -> bytes:
    """The exact bytes of ``manifest.json``; its last field is the hash of the rest."""
    body = msgspec.json.encode(manifest)
    sealed = _Sealed(manifest=manifest, sha256=hashlib.sha256(body).hexdigest())
    return msgspec.json.format(msgspec.json.encode(sealed), indent=1) + b"\n"


def write_manifest(folder: Path, manifest: Manifest, *, scratch: Path) -> None:
    """Replace the manifest: the one moment at which an index becomes what is new."""
    write_durably(folder, NAME, [render(manifest)], scratch=scratch)


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check ``manifest.json``.

    Raises:
        IndexDamaged: If it is missing, altered by as much as one byte, or makes no sense.
        IndexMismatch: If a newer hardmine wrote it.
    """
    path = Path(folder) / NAME
    try:
        if path.stat().st_size > _LONGEST:
            raise IndexDamaged(f"{path} is longer than any manifest can be ({_LONGEST} bytes)")
        content = path.read_bytes()
    except OSError as error:
        raise IndexDamaged(_missing(Path(folder), error)) from None
    try:
        manifest = msgspec.json.decode(content, type=_Sealed).manifest
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _refuse_other_format(path, content)
        raise IndexDamaged(f"{path} is damaged ({error}); restore it, or build again") from None
    _refuse_other_format(path, content)
    if render(manifest) != content:
        raise IndexDamaged(f"{path} is damaged: its checksum does not fit; restore or rebuild")
    _check(path, manifest)
    return manifest


def _missing(folder: Path, error: OSError) -> str:
    if (folder / WORK).is_dir():
        return f"{folder} is not finished: run the build again, it goes on where it stopped"
    if folder.is_dir() and isinstance(error, FileNotFoundError):
        return f"{folder} is not an index: it has no {NAME}"
    return f"no index at {folder}: {error.strerror}"


def _refuse_other_format(path: Path, content: bytes) -> None:
    try:
        version = msgspec.json.decode(content)["manifest"]["format"]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        return
    if version != FORMAT:
        raise IndexMismatch(
            f"{path} has format {version}, hardmine {__version__} reads format {FORMAT}; "
            "use the hardmine that wrote it, or build again"
        )


def _check(path: Path, manifest: Manifest) -> None:
    numbers = [shard.number for shard in manifest.shards]
    names = [record.name for record in manifest.files]
    problem = ""
    if sorted(set(numbers)) != numbers:
        problem = "shard numbers do not ascend"
    elif len(set(names)) != len(names):
        problem = "a file is listed twice"
    elif any(shard.vectors.name != vectors_name(shard.number) for shard in manifest.shards):
        problem = "a shard's vectors have a foreign name"
    elif any(shard.layout.name != layout_name(shard.number) for shard in manifest.shards):
        problem = "a shard's layout has a foreign name"
    elif manifest.images.table.name != table_name(manifest.generation):
        problem = "the table of images has a foreign name"
    elif manifest.images.broken > manifest.images.count:
        problem = "more images are broken than there are"
    if problem:
        raise IndexDamaged(f"{path} makes no sense: {problem}; build again")


def vectors_name(number: int) -> str:
    """Name of a shard's vectors."""
    return f"shards/{number:05d}.vectors.npy"


def layout_name(number: int) -> str:
    """Name of what a shard says about its regions."""
    return f"shards/{number:05d}.regions.npz"


def table_name(generation: int) -> str:
    """Name of the table of images; one a generation, so that the old index stays whole."""
    return f"images-{generation}.parquet"
