"""Makes finished shards the index: writes the table, then the manifest, removes unused files."""

from __future__ import annotations

from pathlib import Path

from hardmine._version import __version__
from hardmine.index.builder.build_folder import BuildFolder
from hardmine.index.storage.files import explain_os_errors
from hardmine.index.storage.image_table import ImageTable, write_table
from hardmine.index.storage.manifest import (
    FORMAT_OF,
    ClustersRecord,
    EncoderRecord,
    ImagesRecord,
    Manifest,
    Pixels,
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
    pixels: Pixels,
) -> Manifest:
    """Make an index of finished shards.

    A previous index stays whole until its manifest is replaced, in one step: before that, none of
    its files is overwritten or removed.
    """
    folder = build_folder.folder
    record = write_table(folder, table_name(generation), table, scratch=build_folder.path)
    manifest = Manifest(
        format=FORMAT_OF[pixels],
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
        pixels=pixels,
    )
    write_manifest(folder, manifest, scratch=build_folder.path)
    remove_unused(build_folder, manifest)
    return manifest


def remove_unused(build_folder: BuildFolder, manifest: Manifest) -> None:
    """Remove the files that the manifest does not name, and the build folder."""
    with explain_os_errors(f"remove unused files of {build_folder.folder}"):
        for path in unused_files(build_folder.folder, manifest):
            path.unlink()
    build_folder.clear()


def unused_files(folder: Path, manifest: Manifest) -> list[Path]:
    """Files of earlier generations or builds, which the manifest does not name."""
    kept = {record.name for record in manifest.files}
    return [path for path in index_files(folder) if path.relative_to(folder).as_posix() not in kept]


def index_files(folder: Path) -> list[Path]:
    """Tables and shard files in a folder, whether or not the manifest names them."""
    patterns = ("images-*.parquet", "shards/*.vectors.npy", "shards/*.regions.npz")
    return sorted(path for pattern in patterns for path in folder.glob(pattern))
