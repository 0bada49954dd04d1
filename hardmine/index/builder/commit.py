"""Finished shards become the index that readers see: table, then manifest, then clearing up."""

from __future__ import annotations

from pathlib import Path

from hardmine._version import __version__
from hardmine.index.builder.plan import BuildFolder
from hardmine.index.storage.files import explained
from hardmine.index.storage.image_table import ImageTable, write_table
from hardmine.index.storage.manifest import (
    FORMAT,
    ClustersRecord,
    EncoderRecord,
    ImagesRecord,
    Manifest,
    ShardRecord,
    table_name,
    write_manifest,
)


def commit(
    build_folder: BuildFolder,
    table: ImageTable,
    shards: tuple[ShardRecord, ...],
    *,
    generation: int,
    encoder: EncoderRecord,
    clusters: ClustersRecord,
    dtype: str,
    fingerprint: str,
    root: Path,
) -> Manifest:
    """Make an index out of shards that are whole.

    Until the manifest is replaced, in one step, the index before it (if any) stays whole: nothing
    of it is written over or removed.
    """
    folder = build_folder.folder
    record = write_table(folder, table_name(generation), table, scratch=build_folder.path)
    manifest = Manifest(
        format=FORMAT,
        hardmine=__version__,
        generation=generation,
        encoder=encoder,
        clusters=clusters,
        dtype="int8" if dtype == "int8" else "float16",
        images=ImagesRecord(
            fingerprint=fingerprint,
            root=str(root),
            count=len(table),
            broken=int(table.broken.sum()),
            table=record,
        ),
        shards=shards,
    )
    write_manifest(folder, manifest, scratch=build_folder.path)
    clear_up(build_folder, manifest)
    return manifest


def clear_up(build_folder: BuildFolder, manifest: Manifest) -> None:
    """Remove what the manifest no longer names, and the unfinished work."""
    with explained(f"clear up {build_folder.folder}"):
        for path in left_over(build_folder.folder, manifest):
            path.unlink()
    build_folder.clear()


def left_over(folder: Path, manifest: Manifest) -> list[Path]:
    """Files of an index that its manifest does not name."""
    kept = {record.name for record in manifest.files}
    return [path for path in own_files(folder) if path.relative_to(folder).as_posix() not in kept]


def own_files(folder: Path) -> list[Path]:
    """Files that only an index writes, whether or not the manifest names them."""
    patterns = ("images-*.parquet", "shards/*.vectors.npy", "shards/*.regions.npz")
    return sorted(path for pattern in patterns for path in folder.glob(pattern))
