"""Opening an index: only if it is whole and fits what it is to be used with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardmine.errors import IndexMismatch, InputError
from hardmine.index.storage.manifest import Manifest, read_manifest
from hardmine.index.storage.read import read_images, read_store
from hardmine.records import ImageSet, rows_of

if TYPE_CHECKING:
    from hardmine.clusters.spec import ClusterSpec
    from hardmine.encoders.base import Encoder
    from hardmine.index.base import Index


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
        path: Folder that ``build_index`` filled.
        encoder: The encoder whose vectors will be asked for; must be the one that built it.
        images: The data set it will be used with; must be the one it was built from.
        clusters: The clustering it must have been built with; any if None.
        backend: ``"exact"``, or ``"faiss:flat"``, ``"faiss:ivfpq"``, ``"faiss:hnsw"``.
        device: Where exact scores are computed; the backend's choice if None.
        root: Where the images lie now; the folder of ``images``, else the one they were built
            from, if None. Only needed to show them.
        verify: Whether to check every byte. None checks everything but large vectors.

    Raises:
        IndexDamaged: If a file is missing, altered or makes no sense.
        IndexMismatch: If it was made with another encoder, clustering or data set.
    """
    folder = Path(path)
    name, _, kind = backend.partition(":")
    if name not in ("exact", "faiss"):
        raise InputError(f'backend must be "exact" or "faiss:KIND", got {backend!r}')
    require_fit(folder, read_manifest(folder), encoder=encoder, images=images, clusters=clusters)
    if root is None and images is not None:
        root = images.root
    store = read_store(folder, root=None if root is None else Path(root), verify=verify)
    if name == "faiss":
        from hardmine.index.search.faiss import FaissIndex

        return FaissIndex(store, kind=kind or "flat")
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
    """Refuse an index that was made with something else than it is to be used with.

    Raises:
        IndexMismatch: Naming both sides.
    """
    if encoder is not None and encoder.fingerprint != manifest.encoder.fingerprint:
        raise IndexMismatch(
            f"{folder} was built with the encoder {describe_encoder(manifest)}, "
            f"got {encoder.fingerprint}; use that encoder, or build the index again"
        )
    if clusters is not None:
        from hardmine.clusters import parse_spec

        if (wanted := str(parse_spec(clusters))) != manifest.clusters.spec:
            raise IndexMismatch(
                f"{folder} was built with clusters {manifest.clusters.spec}, expected {wanted}; "
                "open another index, or build one"
            )
    if images is not None and images.fingerprint != manifest.images.fingerprint:
        difference = _difference(folder, manifest, images)
        raise IndexMismatch(
            f"{folder} was built from another list of images ({difference}); bring it up to date "
            "with update_index (hardmine index update), or open it without images"
        )


def _difference(folder: Path, manifest: Manifest, images: ImageSet) -> str:
    table = read_images(folder, manifest)
    rows = rows_of(table.ids, images.ids)
    known = rows >= 0
    moved = sum(
        images.paths[row] != table.paths[old] for row, old in enumerate(rows.tolist()) if old >= 0
    )
    added, removed = int((~known).sum()), len(table) - int(known.sum())
    if added == removed == moved == 0:
        return "the same images in another order"
    return f"since then {added} were added, {removed} removed, {moved} moved"


def stored_encoder(path: str | Path, *, device: Any = None) -> Encoder:
    """Load the encoder that an index was built with.

    Args:
        path: The index.
        device: Where it computes; its own choice if None.

    Raises:
        IndexMismatch: If it was an object of the caller's own, which no name stands for, or if
            the name now gives other vectors.
    """
    from hardmine.encoders import load_encoder

    folder = Path(path)
    manifest = read_manifest(folder)
    if manifest.encoder.spec is None:
        raise IndexMismatch(
            f"{folder} was built with an encoder that has no name "
            f"({manifest.encoder.fingerprint}); open it in Python and bring that encoder"
        )
    encoder = load_encoder(**manifest.encoder.spec, device=device)
    require_fit(folder, manifest, encoder=encoder)
    return encoder


def describe_encoder(manifest: Manifest) -> str:
    """Name of the encoder that built an index, for people."""
    record = manifest.encoder
    name = (record.spec or {}).get("name")
    return f"{name} ({record.fingerprint})" if name else record.fingerprint
