"""Opens an index, after checking that it is whole and fits its encoder and images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from hardmine.addresses import as_path
from hardmine.errors import IndexMismatch, InputError
from hardmine.index.arguments import require_encoder, require_images
from hardmine.index.remote import local_index
from hardmine.index.storage.joined import is_joined, part_folders, read_parts
from hardmine.index.storage.manifest import (
    GRAPH_FOLDER,
    LANCE_FOLDER,
    MANIFEST,
    Manifest,
    read_manifest,
)
from hardmine.index.storage.read import read_images
from hardmine.records import ImageSet, rows_of

if TYPE_CHECKING:
    from hardmine.clusters.spec import ClusterSpec
    from hardmine.encoders.base import Encoder
    from hardmine.index.base import Index
    from hardmine.index.storage.store import Store


def open_index(
    path: str | Path,
    *,
    encoder: Encoder | None = None,
    images: ImageSet | None = None,
    clusters: str | ClusterSpec | None = None,
    backend: str = "exact",
    device: Any = None,
    root: str | Path | None = None,
    verify: bool | None = None,
) -> Index:
    """Open an index for searching.

    Args:
        path: Folder of ``build_index`` or ``join_indexes``, or its address, such
            as ``s3://bucket/coco.hmx``: the index is then fetched into a cache on this machine, see
            ``hardmine.index.remote``.
        encoder: The encoder of the queries; must be the one that built the index.
        images: The data set to use it with; must be the one that it was built from.
        clusters: The clustering that it must have been built with; any if None.
        backend: ``"exact"``, or ``"faiss:flat"``, ``"faiss:ivfpq"``, ``"faiss:hnsw"``. The graph
            of the last is kept in the folder if that can be written to, and so is the table of
            ``"lance"``. ``"milvus:http://localhost:19530"`` sends the vectors to that server,
            where it lacks them.
        device: Where exact scores are computed; the backend chooses if None.
        root: Folder of the images, needed only to show them. If None, the folder of ``images``, or
            else the folder from which the index was built.
        verify: Whether to check every byte, as ``verify_index`` does. None does where the vectors
            have at most 256 MiB. A larger index opens quickly: the lengths of its shards are
            checked, and the layout of a shard is held against its hash when it is first searched.

    Raises:
        IndexDamaged: If a file is missing, altered or inconsistent.
        IndexMismatch: If it was built with another encoder, clustering or data set.
    """
    if encoder is not None:
        require_encoder(encoder)
    if images is not None:
        require_images(images)
    folder = local_index(path)
    name, _, kind = backend.partition(":")
    if name not in ("exact", "faiss", "lance", "milvus") or (name == "milvus" and not kind):
        raise InputError(
            'backend must be "exact", "faiss:KIND", "lance" or "milvus:ADDRESS", such as '
            f"milvus:http://localhost:19530, got {backend!r}"
        )
    if root is None and images is not None:
        root = images.root
    image_folder = None if root is None else as_path(root)

    joined = is_joined(folder)
    count_of: dict[Path, int] = {}

    def check(part: Path, manifest: Manifest) -> None:
        whole = None if joined else images
        require_fit(part, manifest, encoder=encoder, images=whole, clusters=clusters)
        count_of[part] = manifest.images.count

    store = read_parts(folder, check, root=image_folder, verify=verify)
    if joined and images is not None:
        _require_same_images(folder, store, images, sum(count_of.values()))
    if name == "faiss":
        from hardmine.index.search.faiss import FaissIndex
        from hardmine.index.search.graph import KeptGraph

        return FaissIndex(
            store,
            kind=kind or "flat",
            device=None if device is None else str(device),
            graph=KeptGraph(folder / GRAPH_FOLDER, store.digest),
        )
    if name == "lance":
        from hardmine.index.search.lance import LanceIndex

        return LanceIndex(store, folder / LANCE_FOLDER)
    if name == "milvus":
        from hardmine.index.search.milvus import MilvusIndex

        return MilvusIndex(store, kind)
    from hardmine.index.search.exact import ExactIndex

    return ExactIndex(store, device=device)


def require_fit(
    folder: Path,
    manifest: Manifest,
    *,
    encoder: Encoder | None = None,
    images: ImageSet | None = None,
    clusters: str | ClusterSpec | None = None,
) -> None:
    """Refuse an index that was built with another encoder, clustering or data set.

    Raises:
        IndexMismatch: Naming what was expected and what the index has.
    """
    if encoder is not None and encoder.fingerprint != manifest.encoder.fingerprint:
        raise IndexMismatch(
            f"{folder} was built with the encoder {describe_encoder(manifest)}, "
            f"got {encoder.fingerprint}; use that encoder, or build the index again"
        )
    if clusters is not None:
        from hardmine.clusters import parse_spec

        if (expected := str(parse_spec(clusters))) != manifest.clusters.spec:
            raise IndexMismatch(
                f"{folder} was built with clusters {manifest.clusters.spec}, expected {expected}; "
                "open another index, or build one with these clusters"
            )
    if images is not None and images.fingerprint != manifest.images.fingerprint:
        changes = difference(folder, manifest, images)
        raise IndexMismatch(
            f"{folder} was built from another list of images ({changes}); bring it up to date "
            "with update_index (hardmine index update), or open it without images"
        )


def holds_images(folder: Path, images: ImageSet) -> bool:
    """Whether an index has all of some images, with others or in another order.

    They have the same ids and file names there. False where the folder holds no single index, or
    one of these very images.
    """
    if not (folder / MANIFEST).exists():
        return False
    manifest = read_manifest(folder)
    if manifest.images.fingerprint == images.fingerprint:
        return False
    table = read_images(folder, manifest)
    rows = rows_of(table.ids, images.ids)
    if (rows < 0).any():
        return False
    pairs = zip(table.paths_of(rows), images.paths, strict=True)
    return all(old.rpartition("/")[2] == new.rpartition("/")[2] for old, new in pairs)


def _require_same_images(folder: Path, store: Store, images: ImageSet, count: int) -> None:
    """Refuse a data set whose images are not those of a joined index, in whatever order.

    Args:
        folder: The joined index.
        store: Its readable images.
        images: The data set.
        count: Images of the index, broken ones included.
    """
    missing = int((rows_of(images.ids, store.ids) < 0).sum())
    if missing or count != len(images):
        raise IndexMismatch(
            f"{folder} joins {count} images, of which the data set of {len(images)} lacks "
            f"{missing}; update a part with update_index (hardmine index update), add one with "
            "join_indexes (hardmine index join --add), or open it without images"
        )


def difference(folder: Path, manifest: Manifest, images: ImageSet) -> str:
    """How the images differ from the indexed ones, in words."""
    table = read_images(folder, manifest)
    rows = rows_of(table.ids, images.ids)
    indexed = rows >= 0
    moved = sum(
        images.paths[row] != table.paths[old] for row, old in enumerate(rows.tolist()) if old >= 0
    )
    added, removed = int((~indexed).sum()), len(table) - int(indexed.sum())
    if added == len(images) and removed == len(table) > 0 < added:
        ids = images.ids[0].item(), table.ids[0].item()
        return f"none of their ids is in it: {ids[0]!r} here, {ids[1]!r} there"
    if added == removed == moved == 0:
        return "the same images in another order"
    return f"since then {added} were added, {removed} removed, {moved} moved"


# Largest side of the images of an encoder: a hostile one would take all memory.
_MAX_SIDE = 2**16


class _EncoderSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of ``load_encoder`` that a manifest may hold, with its defaults."""

    name: str
    image_size: int | tuple[int, int] | None = None
    dense: str = "value"
    precision: str | None = None
    whole: str = "same"
    compile: bool = False

    def __post_init__(self) -> None:
        # Not by msgspec's own bounds: version 0.22 crashes on a union of a bounded int and a tuple.
        sides = np.array([] if self.image_size is None else self.image_size)
        if ((sides < 1) | (sides > _MAX_SIDE)).any():
            raise ValueError(f"image_size {self.image_size} is not in 1 to {_MAX_SIDE}")


def stored_encoder(path: str | Path, *, device: Any = None) -> Encoder:
    """Load the encoder that an index was built with.

    Args:
        path: The index, or its address.
        device: Where it computes; the encoder chooses if None.

    Raises:
        IndexMismatch: If it was an encoder object without a name, or if the name now loads an
            encoder with other vectors.
    """
    from hardmine.encoders import load_encoder

    folder = local_index(path)
    manifest = read_manifest(part_folders(folder)[0])
    if manifest.encoder.spec is None:
        raise IndexMismatch(
            f"{folder} was built with an encoder that has no name "
            f"({manifest.encoder.fingerprint}); open it in Python and pass that encoder"
        )
    try:
        spec = msgspec.convert(manifest.encoder.spec, _EncoderSpec)
    except msgspec.ValidationError as error:
        raise IndexMismatch(
            f"{folder} was built with an encoder that load_encoder cannot load ({error}); open it "
            "in Python and pass that encoder"
        ) from None
    encoder = load_encoder(**msgspec.structs.asdict(spec), device=device)
    require_fit(folder, manifest, encoder=encoder)
    return encoder


def describe_encoder(manifest: Manifest) -> str:
    """Name and fingerprint of the encoder that built an index, for messages."""
    record = manifest.encoder
    name = (record.spec or {}).get("name")
    return f"{name} ({record.fingerprint})" if name else record.fingerprint
