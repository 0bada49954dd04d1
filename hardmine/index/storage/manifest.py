"""``manifest.json``: settings of an index, and name, length and hash of each of its files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from hardmine._version import __version__
from hardmine.errors import IndexDamaged, IndexMismatch
from hardmine.index.storage.files import FileRecord, read_regular, write_durably

MANIFEST = "manifest.json"
BUILD_FOLDER = ".build"  # subfolder of an unfinished build or update
JOINED = "joined.json"  # in place of the manifest, where a folder joins other indexes
LANCE_FOLDER = "lance"  # subfolder of a LanceDB table that a search has made
GRAPH_FOLDER = "graph"  # subfolder of a graph that a search has built
FORMAT = 2
FORMAT_OF = {"exact": 1, "fast": 2}  # by pixels; format 1 has exact ones only
_MAX_BYTES = 256 << 20

Pixels = Literal["exact", "fast"]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class ShardRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One shard: number of stored images (removed ones included) and regions, and its two files."""

    number: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 2)]
    images: Count
    regions: Count
    vectors: FileRecord
    layout: FileRecord


class EncoderRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The encoder that made the vectors.

    Attributes:
        fingerprint: The encoder's fingerprint.
        dim: D.
        spec: Arguments of ``load_encoder`` that load it again; None for an encoder of the user's
            own.
    """

    fingerprint: str
    dim: Annotated[int, msgspec.Meta(ge=1, le=2**20)]
    spec: dict[str, Any] | None = None


class ClustersRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The clustering that made regions of patches."""

    spec: str
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class ImagesRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The indexed images: fingerprint and folder of the data set, and the table that lists them."""

    fingerprint: str
    root: str
    count: Count
    broken: Count
    table: FileRecord


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Contents of ``manifest.json``.

    Attributes:
        format: Version of the layout on disk.
        hardmine: Version of hardmine that wrote it.
        generation: 0 after a build, one more after each update or compaction.
        dtype: dtype of the stored vectors.
        shards: In ascending order of their numbers.
        pixels: How images were resized for the encoder, see ``Plan``; updates do the same.
    """

    format: Count
    hardmine: str
    generation: Count
    encoder: EncoderRecord
    clusters: ClustersRecord
    dtype: Literal["float16", "int8"]
    images: ImagesRecord
    shards: tuple[ShardRecord, ...]
    pixels: Pixels = "exact"

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """Every file of the index except the manifest."""
        pairs = [record for shard in self.shards for record in (shard.vectors, shard.layout)]
        return (self.images.table, *pairs)

    @property
    def summary(self) -> str:
        """One line for logs: images, regions, shards, size."""
        images, regions = self.images, sum(shard.regions for shard in self.shards)
        size = sum(record.bytes for record in self.files) / 2**20
        skipped = f", {images.broken} skipped" if images.broken else ""
        return (
            f"{images.count - images.broken} images{skipped}, {regions} regions of "
            f"{self.encoder.dim} {self.dtype}, {len(self.shards)} shards, {size:.1f} MiB"
        )

    @property
    def next_number(self) -> int:
        """Smallest number above all shard numbers."""
        return self.shards[-1].number + 1 if self.shards else 0


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    manifest: Manifest
    sha256: str


def render(manifest: Manifest) -> bytes:
    """Return the exact bytes of ``manifest.json``; its last field is the hash of the rest."""
    return seal(manifest)


def seal(manifest: msgspec.Struct) -> bytes:
    """Return a record as JSON; its last field is the hash of the rest."""
    body = msgspec.json.encode(manifest)
    sealed = {"manifest": msgspec.Raw(body), "sha256": hashlib.sha256(body).hexdigest()}
    return msgspec.json.format(msgspec.json.encode(sealed), indent=1) + b"\n"


def write_manifest(folder: Path, manifest: Manifest, *, scratch: Path) -> None:
    """Replace the manifest atomically; from then on readers see the new index."""
    write_durably(folder, MANIFEST, [render(manifest)], scratch=scratch)


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check ``manifest.json``.

    Raises:
        IndexDamaged: If it is missing, inconsistent, or altered by as much as one byte.
        IndexMismatch: If a newer hardmine wrote it.
    """
    path = Path(folder) / MANIFEST
    try:
        content = read_regular(path, _MAX_BYTES)
    except OSError as error:
        raise IndexDamaged(_missing(Path(folder), error)) from None
    try:
        manifest = msgspec.json.decode(content, type=_Sealed).manifest
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        refuse_other_format(path, content, FORMAT)
        raise IndexDamaged(f"{path} is damaged ({error}); restore it, or build again") from None
    refuse_other_format(path, content, FORMAT)
    if render(manifest) != content:
        raise IndexDamaged(
            f"{path} is damaged: its checksum does not match; restore it, or build again"
        )
    _check(path, manifest)
    return manifest


_MAKE = "make one with build_index (hardmine index build)"


def _missing(folder: Path, error: OSError) -> str:
    if (folder / JOINED).is_file():
        return (
            f"{folder} joins other indexes and holds no images itself; do this to its parts, which "
            f"hardmine index join {folder} lists"
        )
    if (folder / BUILD_FOLDER).is_dir():
        return f"{folder} is not finished: run the build again, it continues where it stopped"
    if folder.is_dir() and isinstance(error, FileNotFoundError):
        return f"{folder} is not an index: it has no {MANIFEST}; {_MAKE}"
    if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
        return f"no index at {folder}: {error.strerror}; {_MAKE}"
    return f"{folder / MANIFEST} cannot be read: {error.strerror}; restore it, or build again"


def refuse_other_format(path: Path, content: bytes, known: int) -> None:
    """Refuse a file of a format above the known one.

    Raises:
        IndexMismatch: If it says that it has such a format.
    """
    try:
        version = msgspec.json.decode(content)["manifest"]["format"]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        return
    if version not in range(1, known + 1):
        raise IndexMismatch(
            f"{path} has format {version}, hardmine {__version__} reads format {known}; "
            "use the hardmine that wrote it, or build again"
        )


def _check(path: Path, manifest: Manifest) -> None:
    numbers = [shard.number for shard in manifest.shards]
    names = [record.name for record in manifest.files]
    problem = ""
    if sorted(set(numbers)) != numbers:
        problem = "shard numbers are not ascending"
    elif len(set(names)) != len(names):
        problem = "a file is listed twice"
    elif any(shard.vectors.name != vectors_name(shard.number) for shard in manifest.shards):
        problem = "a shard's vectors have an unexpected file name"
    elif any(shard.layout.name != layout_name(shard.number) for shard in manifest.shards):
        problem = "a shard's layout has an unexpected file name"
    elif manifest.images.table.name != table_name(manifest.generation):
        problem = "the table of images has an unexpected file name"
    elif manifest.images.broken > manifest.images.count:
        problem = "it counts more broken images than images"
    elif "\0" in manifest.images.root:
        problem = "the folder of its images has a NUL in its name"
    if problem:
        raise IndexDamaged(f"{path} is inconsistent: {problem}; build again")


def vectors_name(number: int) -> str:
    """File name of a shard's vectors."""
    return f"shards/{number:05d}.vectors.npy"


def layout_name(number: int) -> str:
    """File name of a shard's layout: offsets, boxes, masses and scales of its regions."""
    return f"shards/{number:05d}.regions.npz"


def table_name(generation: int) -> str:
    """File name of the table of images: one per generation, so that the old index stays whole."""
    return f"images-{generation}.parquet"
