"""Images to an index on disk; broken off at any moment, the next call goes on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from hardmine import defaults
from hardmine.clusters import parse_spec
from hardmine.datasets import open_image
from hardmine.encoders.base import Encoder
from hardmine.errors import IndexMismatch, InputError
from hardmine.index.builder.commit import clear_up, commit, left_over, own_files
from hardmine.index.builder.lock import LOCK, locked
from hardmine.index.builder.pipeline import Progress, ShardBuilder
from hardmine.index.builder.plan import BuildFolder, Plan, places, require_same
from hardmine.index.builder.proposals import Proposals, proposals_fingerprint
from hardmine.index.builder.ranks import RankGroup
from hardmine.index.open import open_index
from hardmine.index.storage.files import explained, sync_folder
from hardmine.index.storage.image_table import ImageTable, check_path
from hardmine.index.storage.manifest import (
    NAME,
    WORK,
    ClustersRecord,
    EncoderRecord,
    Manifest,
    read_manifest,
)
from hardmine.records import ImageSet

if TYPE_CHECKING:
    from hardmine.clusters.spec import ClusterSpec
    from hardmine.index.base import Index

log = logging.getLogger(__name__)

_SAMPLE = 16  # images tried before work begins


def build_index(
    images: ImageSet,
    encoder: Encoder,
    out: str | Path,
    *,
    clusters: str | ClusterSpec = defaults.CLUSTERS,
    seed: int = 0,
    quantize: Literal["int8"] | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    shard_size: int = 1024,
    proposals: Proposals | None = None,
    resume: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> Index:
    """Embed and cluster every image and keep the regions in a folder.

    Killed at any moment, the same call goes on after the last whole shard and ends with the same
    bytes. Called again on a finished index it only opens it, and writes nothing. Images that
    cannot be read are left out, counted and listed with the reason. Under ``torch.distributed``
    every rank calls this and makes its share of the shards, in a folder that all of them see.

    Args:
        images: N images.
        encoder: What embeds them; its ``preprocess`` is called from several threads at once.
        out: Folder of the index, made if it is not there.
        clusters: How patches become regions, such as ``"agglomerative:k=50+whole"``.
        seed: Of the clustering.
        quantize: ``"int8"`` halves the size at a small loss; None keeps float16.
        batch_size: Images the encoder takes at once.
        workers: Threads that decode; one a CPU core, 16 at most, if None.
        shard_size: Images a shard: what a kill can cost, and what is held in memory.
        proposals: For the clustering "boxes": by image id (n, 4) boxes, xyxy as shares of the
            image's width and height, such as ``read_proposals`` gives.
        resume: False removes what is in the folder and begins anew.
        progress: Called after every batch.

    Raises:
        IndexMismatch: If the folder holds an index, or an unfinished build, of another kind.
        HardmineError: If another process is writing the folder, or the disk is full.
    """
    folder = Path(out)
    _check_counts(batch_size=batch_size, workers=workers, shard_size=shard_size)
    if quantize not in (None, "int8"):
        raise InputError(f'quantize must be "int8" or None, got {quantize!r}')
    plan = Plan(
        base=-1,
        encoder=encoder.fingerprint,
        clusters=str(parse_spec(clusters)),
        seed=seed,
        dtype=quantize or "float16",
        images=images.fingerprint,
        proposals=proposals_fingerprint(proposals, images),
        count=len(images),
        shard_size=shard_size,
        first_number=0,
    )
    require_proposals(plan.clusters, proposals)
    record = encoder_record(encoder)
    build_folder = BuildFolder(folder)
    with RankGroup() as ranks:
        if resume and ranks.on_rank_zero(lambda: _is_finished(build_folder, plan)):
            return open_index(folder, encoder=encoder, images=images)
        with held(ranks, folder):
            pending = ranks.on_rank_zero(
                lambda: _prepare(build_folder, plan, images, resume=resume)
            )
            if pending is not None:
                make_shards(
                    ranks,
                    plan,
                    pending,
                    images,
                    encoder,
                    build_folder,
                    batch_size=batch_size,
                    workers=workers,
                    proposals=proposals,
                    progress=progress,
                )
                ranks.on_rank_zero(lambda: _finish(build_folder, plan, images, record))
    return open_index(folder, encoder=encoder, images=images)


def encoder_record(encoder: Encoder) -> EncoderRecord:
    """What the manifest keeps of an encoder."""
    spec: dict[str, Any] | None = getattr(encoder, "spec", None)
    try:
        msgspec.json.encode(spec)
    except (TypeError, UnicodeEncodeError) as error:
        raise InputError(f"the encoder's spec must hold JSON values only, got {spec}") from error
    return EncoderRecord(fingerprint=encoder.fingerprint, dim=encoder.dim, spec=spec)


def require_proposals(clusters: str, proposals: Proposals | None) -> None:
    """Refuse a clustering of boxes without boxes, and boxes without such a clustering."""
    if (parse_spec(clusters).method == "boxes") != (proposals is not None):
        raise InputError(
            f"clusters {clusters!r} {'needs' if proposals is None else 'takes no'} proposals: "
            "boxes by image id"
        )


@contextmanager
def held(ranks: RankGroup, folder: Path) -> Iterator[None]:
    """Let rank 0 hold the folder for the whole group."""
    with ExitStack() as stack:
        ranks.on_rank_zero(lambda: stack.enter_context(locked(folder)))
        yield


def make_shards(
    ranks: RankGroup,
    plan: Plan,
    pending: list[int],
    images: ImageSet,
    encoder: Encoder,
    build_folder: BuildFolder,
    *,
    batch_size: int,
    workers: int | None,
    proposals: Proposals | None,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Let every rank make its share of the shards that are not whole yet."""
    maker = ShardBuilder(
        plan,
        images,
        encoder,
        build_folder,
        batch_size=batch_size,
        workers=workers or min(os.cpu_count() or 1, 16),
        proposals=proposals,
    )
    missing = sum(len(plan.rows(number)) for number in pending)
    if missing < plan.count:
        log.info("going on: %d of %d images are done", plan.count - missing, plan.count)
    before = plan.count - missing if ranks.size == 1 else 0
    mine = pending[ranks.rank :: ranks.size]
    ranks.on_every_rank(lambda: maker.make(mine, progress, before=before))


def check_paths(images: ImageSet) -> None:
    """Refuse an image set whose paths lead out of its folder."""
    try:
        for path in images.paths:
            check_path(path)
    except ValueError as error:
        raise InputError(f"{error} ({images.root})") from None


def check_readable(images: ImageSet) -> None:
    """Refuse an image set of which not one of a sample can be read."""
    if not len(images):
        raise InputError("there are no images to index")
    sample = np.unique(np.linspace(0, len(images) - 1, _SAMPLE, dtype=int)).tolist()
    problems = [_problem(images.path(row)) for row in sample]
    if all(problems):
        raise InputError(
            f"none of the {len(sample)} images that were tried can be read, the first: "
            f"{problems[0]}; do they lie below {images.root}?"
        )


def _problem(path: Path) -> str:
    try:
        open_image(path)
    except InputError as error:
        return str(error)
    return ""


def _check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"{name} must be at least 1, got {count}")


def _is_finished(build_folder: BuildFolder, plan: Plan) -> bool:
    """Whether the index is there and nobody left anything to be cleared up, nor writes to it.

    Several trainings may begin with it at once, also from a folder that is read-only.
    """
    folder = build_folder.folder
    if not (folder / NAME).exists():
        return False
    manifest = read_manifest(folder)
    _require_fit(folder, manifest, plan)
    busy = build_folder.path.exists() or (folder / LOCK).exists()
    return not busy and not left_over(folder, manifest)


def _prepare(
    build_folder: BuildFolder, plan: Plan, images: ImageSet, *, resume: bool
) -> list[int] | None:
    """Shards to make; None where the index is finished already."""
    folder = build_folder.folder
    if not resume:
        _require_ours(folder)
        _remove(build_folder)
    if (folder / NAME).exists():
        manifest = read_manifest(folder)
        _require_fit(folder, manifest, plan)
        clear_up(build_folder, manifest)
        return None
    check_paths(images)
    check_readable(images)
    found = build_folder.plan()
    if found is None:
        _require_ours(folder)
        build_folder.begin(plan)
    else:
        require_same(found, plan, folder)
        build_folder.go_on()
    return build_folder.pending(plan)


def _remove(build_folder: BuildFolder) -> None:
    build_folder.clear()
    folder = build_folder.folder
    with explained(f"clear {folder}"):
        # The manifest first: half an index must not open.
        (folder / NAME).unlink(missing_ok=True)
        sync_folder(folder)
        for path in own_files(folder):
            path.unlink()


def _require_ours(folder: Path) -> None:
    own = {LOCK, WORK, NAME, "shards", *(path.name for path in folder.glob("images-*.parquet"))}
    foreign = sorted({path.name for path in folder.iterdir()} - own)
    if foreign:
        raise InputError(
            f"{folder} is neither empty nor an index (it holds {', '.join(foreign[:3])}); "
            "choose another folder"
        )


def _require_fit(folder: Path, manifest: Manifest, plan: Plan) -> None:
    found = {
        "encoder": (manifest.encoder.fingerprint, plan.encoder),
        "clusters": (manifest.clusters.spec, plan.clusters),
        "seed": (manifest.clusters.seed, plan.seed),
        "dtype": (manifest.dtype, plan.dtype),
    }
    different = [f"{name} {old}, not {new}" for name, (old, new) in found.items() if old != new]
    if different:
        raise IndexMismatch(
            f"{folder} holds an index made with {', '.join(different)}; choose another folder, "
            "or replace it with resume=False (--restart)"
        )
    if manifest.images.fingerprint != plan.images:
        raise IndexMismatch(
            f"{folder} holds an index of {manifest.images.count} images that are not the "
            f"{plan.count} given; bring it up to date with update_index (hardmine index update), "
            "or choose another folder"
        )


def _finish(
    build_folder: BuildFolder, plan: Plan, images: ImageSet, encoder: EncoderRecord
) -> None:
    finished_shards = build_folder.finished_shards(plan)
    facts, shards, slots = places(finished_shards)
    manifest = commit(
        build_folder,
        ImageTable(images.ids, images.paths, facts, shards, slots),
        tuple(finished.shard for finished in finished_shards),
        generation=0,
        encoder=encoder,
        clusters=ClustersRecord(spec=plan.clusters, seed=plan.seed),
        dtype=plan.dtype,
        fingerprint=images.fingerprint,
        root=images.root.absolute(),
    )
    log.info("%s: %s", build_folder.folder, manifest.summary)
