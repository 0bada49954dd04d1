"""Builds an index of all images; after an interruption the next call continues."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from hardmine import defaults
from hardmine.clusters import parse_spec
from hardmine.distributed import RankGroup
from hardmine.encoders.base import Encoder
from hardmine.encoders.preprocess import WholeImage
from hardmine.errors import HardmineError, IndexMismatch, InputError
from hardmine.index.arguments import require_encoder, require_images
from hardmine.index.builder.build_folder import BuildFolder
from hardmine.index.builder.checks import (
    check_counts,
    check_lengths,
    check_paths,
    check_proposals,
    check_readable,
    check_seed,
    check_sizes,
    escape_names,
)
from hardmine.index.builder.commit import commit, index_files, remove_unused, unused_files
from hardmine.index.builder.executor import Job, executor_for, make_shards
from hardmine.index.builder.lock import LOCK, locked
from hardmine.index.builder.pipeline import Progress
from hardmine.index.builder.plan import Plan, continues, require_same_plan
from hardmine.index.builder.proposals import Proposals, proposals_fingerprint
from hardmine.index.builder.remaining import NOT_READ, Remaining, find_remaining
from hardmine.index.open import difference, open_index
from hardmine.index.storage.files import explain_os_errors, sync_folder
from hardmine.index.storage.image_table import BROKEN, ImageTable
from hardmine.index.storage.joined import is_joined
from hardmine.index.storage.manifest import (
    BUILD_FOLDER,
    GRAPH_FOLDER,
    LANCE_FOLDER,
    MANIFEST,
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
    executor: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Index:
    """Embed and cluster every image, and store the regions in a folder.

    A build may be killed at any moment: the same call then continues after the last finished
    shard and ends with the same bytes. A call with other images and the same settings continues
    too: images that are embedded stay embedded. On a finished index it only opens it, and warns if
    the files have changed since, by the length of 64 of them.
    Images that cannot be read are skipped, counted and listed with the reason. Under
    ``torch.distributed`` every rank calls this and makes its share of the shards, in a folder
    that all ranks see.

    Args:
        images: N images.
        encoder: Embeds them. Its ``preprocess`` is called from several threads at once.
        out: Folder of the index; made if missing.
        clusters: Clustering that makes regions of patches, such as ``"agglomerative:k=50+whole"``.
        seed: Seed of the clustering.
        quantize: ``"int8"`` halves the size at a small loss; None keeps float16.
        batch_size: Images that the encoder takes at once. It does not change vectors on a CPU; a
            GPU may round them in another way.
        workers: Threads that decode images; one per CPU core, at most 16, if None.
        shard_size: Images in a shard: so many are held in memory, and lost by a kill.
        proposals: For the clustering "boxes": by image id (n, 4) boxes, xyxy as shares of the
            image's width and height. ``read_proposals`` reads them from a file.
        resume: False removes an index or unfinished build in the folder and starts again.
        executor: Who makes the shards. None is this process, or every rank. ``"ray"`` is a Ray
            cluster, the one running here or else one of this machine, ``"ray:ADDRESS"`` the one
            there: a worker on each GPU, or where there are none on each node. All nodes see the
            images and ``out`` under the same paths.
        progress: Called after every batch, or with Ray every second.

    Raises:
        IndexMismatch: If the folder holds an index, or an unfinished build, with other settings.
        Unreachable: If images are on another host that cannot be reached. Finished shards stay.
        HardmineError: If another process is writing the folder, or the disk is full.
    """
    require_images(images)
    require_encoder(encoder)
    folder = Path(out)
    if resume and is_joined(folder):
        return open_index(folder, encoder=encoder, images=images, clusters=clusters)
    check_counts(batch_size=batch_size, workers=workers, shard_size=shard_size)
    check_seed(seed)
    images = escape_names(images)
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
        pixels="fast" if isinstance(encoder.preprocess, WholeImage) else "exact",
    )
    check_proposals(plan.clusters, proposals)
    record = encoder_record(encoder)
    build_folder = BuildFolder(folder)
    with RankGroup() as ranks:
        maker = executor_for(executor, ranks, images, encoder)
        if resume and ranks.on_rank_zero(lambda: _is_finished(build_folder, plan, images)):
            ranks.on_rank_zero(lambda: tidy(build_folder, keep_update=True))
            ranks.on_rank_zero(lambda: check_lengths(images, folder))
            return open_index(folder, encoder=encoder, images=images)
        with locked_for_all(ranks, folder):
            work = ranks.on_rank_zero(
                lambda: _prepare(build_folder, plan, images, proposals, resume=resume)
            )
            if work is not None:
                remaining, pending = work
                job = Job(
                    remaining.plan,
                    pending,
                    images.subset(remaining.rows),
                    encoder,
                    build_folder,
                    batch_size=batch_size,
                    workers=workers,
                    proposals=proposals,
                    already_done=len(images) - len(remaining.rows),
                )
                make_shards(maker, job, progress)
                ranks.on_rank_zero(lambda: _finish(build_folder, remaining, images, record))
    return open_index(folder, encoder=encoder, images=images)


def encoder_record(encoder: Encoder) -> EncoderRecord:
    """The manifest's record of an encoder."""
    spec: dict[str, Any] | None = getattr(encoder, "spec", None)
    try:
        msgspec.json.encode(spec)
    except (TypeError, UnicodeEncodeError) as error:
        raise InputError(f"the encoder's spec must hold JSON values only, got {spec}") from error
    return EncoderRecord(fingerprint=encoder.fingerprint, dim=encoder.dim, spec=spec)


@contextmanager
def locked_for_all(ranks: RankGroup, folder: Path) -> Iterator[None]:
    """Lock the folder on rank 0 on behalf of all ranks."""
    with ExitStack() as stack:
        ranks.on_rank_zero(lambda: stack.enter_context(locked(folder)))
        yield


def _is_finished(build_folder: BuildFolder, plan: Plan, images: ImageSet) -> bool:
    """Whether the folder holds the finished index.

    It is then opened without a lock: several trainings may start on it at once, also from a
    read-only folder, and beside an update.
    """
    folder = build_folder.folder
    if not (folder / MANIFEST).exists():
        return False
    _require_same_settings(folder, read_manifest(folder), plan, images)
    return True


def tidy(build_folder: BuildFolder, *, keep_update: bool) -> None:
    """Remove what a killed writer left of a finished index, if nobody else writes to it.

    Args:
        build_folder: Of the index.
        keep_update: Whether the finished shards of an unfinished update stay.
    """
    folder = build_folder.folder
    left = build_folder.path.exists() or (folder / LOCK).exists()
    if not left and not unused_files(folder, read_manifest(folder)):
        return
    try:
        with locked(folder):
            manifest = read_manifest(folder)
            if not (keep_update and build_folder.unfinished_update(manifest.generation)):
                remove_unused(build_folder, manifest)
    except HardmineError as error:
        log.info("files that the index does not need stay: %s", error)


def _prepare(
    build_folder: BuildFolder,
    plan: Plan,
    images: ImageSet,
    proposals: Proposals | None,
    *,
    resume: bool,
) -> tuple[Remaining, list[int]] | None:
    """What is left to do, and the shards to make; None if the index is finished."""
    folder = build_folder.folder
    if not resume:
        _require_own_folder(folder)
        _remove(build_folder)
    if _is_finished(build_folder, plan, images):
        return None  # another process finished it before the lock was ours
    check_paths(images)
    check_readable(images)
    unfinished = build_folder.plan()
    if unfinished is None:
        _require_own_folder(folder)
    else:
        plan = msgspec.structs.replace(plan, pixels=unfinished.pixels)  # goes on as it was begun
    remaining = find_remaining(
        build_folder,
        images,
        _empty_table(images),
        np.arange(len(images)),
        lambda rows, first_number: _plan_of(plan, images.subset(rows), proposals, first_number),
        first_number=0,
    )
    # Other images may follow on an unfinished build, but not in place of what it has finished.
    if unfinished is not None and not (remaining.resumes or remaining.adopted):
        lost = build_folder.finished(unfinished.numbers)
        if lost or not continues(unfinished, plan):
            require_same_plan(unfinished, plan, folder)
    return remaining, remaining.begin(build_folder)


def _plan_of(plan: Plan, images: ImageSet, proposals: Proposals | None, first_number: int) -> Plan:
    """The same plan for some of its images."""
    return msgspec.structs.replace(
        plan,
        images=images.fingerprint,
        proposals=proposals_fingerprint(proposals, images),
        count=len(images),
        first_number=first_number,
    )


def _empty_table(images: ImageSet) -> ImageTable:
    """A table of images none of which has been read."""
    none = np.full(len(images), BROKEN, np.int32)
    return ImageTable(images.ids, images.paths, (NOT_READ,) * len(images), none, none)


def _remove(build_folder: BuildFolder) -> None:
    """Remove the index and any unfinished build."""
    build_folder.clear()
    folder = build_folder.folder
    with explain_os_errors(f"clear {folder}"):
        # The manifest goes first: half an index must not open.
        (folder / MANIFEST).unlink(missing_ok=True)
        sync_folder(folder)
        for path in index_files(folder):
            path.unlink()


def _require_own_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an index."""
    own = {
        LOCK,
        BUILD_FOLDER,
        GRAPH_FOLDER,
        LANCE_FOLDER,
        MANIFEST,
        "shards",
        *(path.name for path in folder.glob("images-*.parquet")),
    }
    foreign = sorted({path.name for path in folder.iterdir()} - own)
    if foreign:
        raise InputError(
            f"{folder} is neither empty nor an index (it holds {', '.join(foreign[:3])}); "
            "choose another folder"
        )


def _require_same_settings(folder: Path, manifest: Manifest, plan: Plan, images: ImageSet) -> None:
    """Refuse a finished index whose settings or images differ from the plan's."""
    settings = {
        "encoder": (manifest.encoder.fingerprint, plan.encoder),
        "clusters": (manifest.clusters.spec, plan.clusters),
        "seed": (manifest.clusters.seed, plan.seed),
        "dtype": (manifest.dtype, plan.dtype),
    }
    different = [f"{name} {old}, not {new}" for name, (old, new) in settings.items() if old != new]
    if different:
        raise IndexMismatch(
            f"{folder} holds an index made with {', '.join(different)}; choose another folder, "
            "or replace it with resume=False (--restart)"
        )
    if manifest.images.fingerprint != plan.images:
        changes = difference(folder, manifest, images)
        raise IndexMismatch(
            f"{folder} holds an index of {manifest.images.count} images, which are not the "
            f"{plan.count} given ({changes}); bring it up to date with update_index (hardmine "
            "index update), or choose another folder"
        )


def _finish(
    build_folder: BuildFolder, remaining: Remaining, images: ImageSet, encoder: EncoderRecord
) -> None:
    table, made = remaining.complete(build_folder)
    plan = remaining.plan
    manifest = commit(
        build_folder,
        table,
        (*remaining.adopted, *made),
        generation=0,
        encoder=encoder,
        clusters=ClustersRecord(spec=plan.clusters, seed=plan.seed),
        dtype=plan.dtype,
        fingerprint=images.fingerprint,
        root=images.root.absolute(),
        pixels=plan.pixels,
    )
    log.info("%s: %s", build_folder.folder, manifest.summary)
    check_sizes(images, table)
