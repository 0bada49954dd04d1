"""``hardmine index``: build, update, verify, compact and describe an index."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardmine import defaults
from hardmine.cli import join
from hardmine.cli.progress import console, one_line, progress_bar
from hardmine.errors import InputError

if TYPE_CHECKING:
    from hardmine.index.builder.pipeline import Progress
    from hardmine.index.builder.proposals import Proposals
    from hardmine.index.builder.update import Changes
    from hardmine.records import ImageSet

_MAX_SHOWN = 10  # broken images listed in a summary
# Share of the indexed images that an update may remove without asking.
_MAX_LOST = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    build = actions.add_parser(
        "build", help="embed images into a new index; continues an unfinished build"
    )
    _add_images(build)
    build.add_argument("--out", required=True, type=Path, help="folder of the index")
    build.add_argument("--encoder", default="tiny", help="encoder (default: %(default)s)")
    build.add_argument("--image-size", type=int, help="side that images are resized to")
    build.add_argument(
        "--dense",
        default="value",
        help="how a ViT's last attention treats patches (default: %(default)s)",
    )
    build.add_argument(
        "--clusters", default=defaults.CLUSTERS, help="clustering (default: %(default)s)"
    )
    build.add_argument(
        "--seed", type=int, default=0, help="seed of the clustering (default: %(default)s)"
    )
    build.add_argument(
        "--quantize", choices=["int8"], help="store int8: half the size, slightly less exact"
    )
    build.add_argument("--precision", help="fp32, bf16 or fp16 (default: chosen for the device)")
    build.add_argument("--limit", type=int, metavar="N", help="index only the first N images")
    build.add_argument(
        "--restart",
        action="store_true",
        help="remove the index or unfinished build in OUT and start again",
    )
    _add_pipeline(build)
    build.set_defaults(action_run=_build)

    update = actions.add_parser("update", help="encode new and changed images, forget removed ones")
    update.add_argument("index", type=Path, help="the index")
    _add_images(update)
    update.add_argument("--dry-run", action="store_true", help="only count the changes")
    update.add_argument(
        "--yes",
        action="store_true",
        help="do not ask when more than half of the images would leave the index",
    )
    update.add_argument("--json", action="store_true", help="JSON on stdout")
    _add_pipeline(update)
    update.set_defaults(action_run=_update)

    info = actions.add_parser("info", help="describe an index")
    info.add_argument("index", type=Path, help="the index")
    info.add_argument("--json", action="store_true", help="JSON on stdout")
    info.set_defaults(action_run=_info)

    verify = actions.add_parser(
        "verify", help="check every byte; exit status 1 if anything is wrong"
    )
    verify.add_argument("index", type=Path, help="the index")
    verify.set_defaults(action_run=_verify)

    compact = actions.add_parser("compact", help="free the space of removed images")
    compact.add_argument("index", type=Path, help="the index")
    compact.add_argument(
        "--shard-size", type=int, default=1024, help="images in a shard (default: %(default)s)"
    )
    compact.set_defaults(action_run=_compact)
    join.add_action(actions)


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, help="folder of images, or a data set's file")
    parser.add_argument("--ann", type=Path, help="annotation file, if not below IMAGES")
    parser.add_argument("--format", help="data set format (default: detected)")
    parser.add_argument("--split", help="split of the data set, if it has several")


def _add_pipeline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="JSON list of image_id and bbox, for --clusters boxes",
    )
    parser.add_argument("--device", help="such as cpu or cuda:0")
    parser.add_argument(
        "--batch-size", type=int, default=32, help="images per batch (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="threads that decode images (default: one per CPU core, at most 16)",
    )
    parser.add_argument(
        "--shard-size", type=int, default=1024, help="images in a shard (default: %(default)s)"
    )
    parser.add_argument(
        "--ray",
        dest="executor",
        nargs="?",
        type="ray:{}".format,
        const="ray",
        metavar="ADDRESS",
        help="make the shards on a Ray cluster: the one at ADDRESS, or the one running here",
    )


def run(args: argparse.Namespace) -> int:
    """Run the action: results go to stdout, progress and summaries to stderr."""
    action: Callable[[argparse.Namespace], int] = args.action_run
    return action(args)


def _build(args: argparse.Namespace) -> int:
    from hardmine.clusters import parse_spec
    from hardmine.encoders import load_encoder
    from hardmine.index import build_index
    from hardmine.index.builder.checks import check_readable
    from hardmine.index.builder.lock import locked
    from hardmine.index.storage.manifest import MANIFEST

    # Check the arguments before the encoder, which takes long to load.
    clusters = parse_spec(args.clusters)
    images = _load(args)
    if args.limit is not None:
        images = images.subset(range(min(args.limit, len(images))))
    proposals = _proposals(args, images)
    with _ranks() as (rank, device):
        # A finished index is only opened: it may be read-only, and others may open it too.
        if rank == 0 and (args.restart or not (args.out / MANIFEST).exists()):
            with locked(args.out):
                check_readable(images)
        encoder = load_encoder(
            args.encoder,
            image_size=args.image_size,
            dense=args.dense,
            device=args.device or device,
            precision=args.precision,
        )
        with _progress("embedding", len(images), rank) as show_progress:
            build_index(
                images,
                encoder,
                args.out,
                clusters=clusters,
                seed=args.seed,
                quantize=args.quantize,
                batch_size=args.batch_size,
                workers=args.workers,
                shard_size=args.shard_size,
                proposals=proposals,
                resume=not args.restart,
                executor=args.executor,
                progress=show_progress,
            )
    if rank == 0:
        _summary(args.out)
    return 0


def _update(args: argparse.Namespace) -> int:
    from hardmine.index import read_manifest, stored_encoder, update_index
    from hardmine.index.builder.update import find_changes
    from hardmine.index.storage.read import read_images, with_manifest

    read_manifest(args.index)  # before the images, which may take long to list
    images = _load(args)
    table = with_manifest(args.index, lambda manifest: read_images(args.index, manifest))
    changes = find_changes(table, images)
    if args.json:
        counts = {"added": len(changes.added), "changed": len(changes.changed)}
        print(json.dumps({**counts, "removed": len(changes.removed)}))
    else:
        console.print(f"{args.index}: {changes}", highlight=False, soft_wrap=True)
    if args.dry_run:
        return 0
    if not args.yes:
        _ask(changes, images, len(table), str(args.index))
    proposals = _proposals(args, images)
    with _ranks() as (rank, device):
        encoder = stored_encoder(args.index, device=args.device or device)
        with _progress("embedding", len(changes.encode), rank) as show_progress:
            update_index(
                args.index,
                images,
                encoder,
                batch_size=args.batch_size,
                workers=args.workers,
                shard_size=args.shard_size,
                proposals=proposals,
                executor=args.executor,
                progress=show_progress,
            )
    if rank == 0:
        _summary(args.index)
    return 0


def _ask(changes: Changes, images: ImageSet, indexed: int, index: str) -> None:
    """Ask before an update removes more than half of the images: the folder may be a wrong one."""
    missing = [row for row in changes.changed.tolist() if images.modified(row) < 0]
    lost = len(changes.removed) + len(missing)
    if lost <= _MAX_LOST * indexed:
        return
    if len(changes.added) >= lost:
        guess = "this looks like another data set, or like the same one listed from another folder"
    else:
        guess = "this looks like a folder of which a part is missing, or is not mounted"
    question = (
        f"{index} would lose {lost} of its {indexed} images ({len(changes.removed)} are not listed "
        f"in {images.root}, {len(missing)} files are gone or out of reach), and "
        f"{len(changes.added)} would be added: {guess}"
    )
    if not sys.stdin.isatty():
        raise InputError(f"{question}; nothing was changed: repeat with --yes if it is meant")
    console.print(question, highlight=False, markup=False, soft_wrap=True)
    if console.input("Update all the same? [y/N] ").strip().lower() not in ("y", "yes"):
        raise InputError("nothing was changed")


def _info(args: argparse.Namespace) -> int:
    from hardmine.index.remote import local_index
    from hardmine.index.storage.manifest import BUILD_FOLDER
    from hardmine.index.storage.read import read_images, with_manifest

    args.index = local_index(args.index)
    manifest, table = with_manifest(
        args.index, lambda manifest: (manifest, read_images(args.index, manifest))
    )
    regions = sum(shard.regions for shard in manifest.shards)
    stored = sum(shard.images for shard in manifest.shards)
    size = sum(record.bytes for record in manifest.files)
    present = len(table) - manifest.images.broken
    facts: dict[str, Any] = {
        "images": present,
        "broken": manifest.images.broken,
        "removed": stored - present,
        "regions": regions,
        "dim": manifest.encoder.dim,
        "dtype": manifest.dtype,
        "clusters": manifest.clusters.spec,
        "seed": manifest.clusters.seed,
        "encoder": (manifest.encoder.spec or {}).get("name"),
        "encoder_fingerprint": manifest.encoder.fingerprint,
        "root": manifest.images.root,
        "images_fingerprint": manifest.images.fingerprint,
        "shards": len(manifest.shards),
        "bytes": size,
        "bytes_an_image": round(size / present) if present else 0,
        "generation": manifest.generation,
        "hardmine": manifest.hardmine,
        "unfinished_update": (args.index / BUILD_FOLDER).exists(),
    }
    if args.json:
        problems = {
            path: fact.problem
            for path, fact in zip(table.paths, table.facts, strict=True)
            if fact.problem
        }
        print(json.dumps({**facts, "problems": problems}, indent=2))
        return 0
    width = max(map(len, facts))
    for name, value in facts.items():
        text = f"{value:,}" if type(value) is int else value
        print(f"{name.replace('_', ' '):<{width}}  {text}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from hardmine.index import verify_index
    from hardmine.index.remote import local_index

    args.index = local_index(args.index)
    with progress_bar() as bar:
        task = bar.add_task("checking MiB", total=None, note="")
        problems = verify_index(
            args.index,
            progress=lambda done, total: bar.update(task, completed=done >> 20, total=total >> 20),
        )
    for problem in problems:
        print(problem)
    if not problems:
        whole = f"{args.index}: every byte is as it was written\n{join.summary(args.index)}"
        console.print(whole, highlight=False, soft_wrap=True)
    return 1 if problems else 0


def _load(args: argparse.Namespace) -> ImageSet:
    from hardmine.datasets import load_images

    # Missing images are skipped and listed later, like others that cannot be read.
    return load_images(
        args.images, args.format, annotations=args.ann, split=args.split, check_files=False
    )


def _proposals(args: argparse.Namespace, images: ImageSet) -> Proposals | None:
    from hardmine.index.builder.proposals import read_proposals

    return None if args.boxes is None else read_proposals(args.boxes, images)


@contextmanager
def _ranks() -> Iterator[tuple[int, str | None]]:
    """Rank and device of this process; (0, None) unless torchrun started it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, None
        return
    import torch
    import torch.distributed as dist

    device = f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else None
    dist.init_process_group("gloo")
    try:
        yield dist.get_rank(), device
    finally:
        dist.destroy_process_group()


@contextmanager
def _progress(label: str, total: int, rank: int) -> Iterator[Callable[[Progress], None] | None]:
    """Show progress on rank 0: count, time left, images per second, skipped images."""
    if rank != 0:
        yield None
        return
    with progress_bar() as bar, redirect_stdout(sys.stderr):  # Ray prints which nodes are lost
        task = bar.add_task(label, total=total, note="")

        def report(progress: Progress) -> None:
            skipped = f", {progress.skipped} skipped" if progress.skipped else ""
            bar.update(
                task,
                completed=progress.done,
                total=progress.total,
                note=f"{progress.rate:.1f} images/s{skipped}",
            )

        yield report


def _summary(folder: Path) -> None:
    from hardmine.index.storage.read import read_images, with_manifest

    manifest, table = with_manifest(
        folder, lambda manifest: (manifest, read_images(folder, manifest))
    )
    console.print(f"{folder}: {manifest.summary}", highlight=False, soft_wrap=True)
    if not manifest.images.broken:
        return
    broken = [
        f"  {one_line(path)}: {one_line(fact.problem)}"
        for path, fact in zip(table.paths, table.facts, strict=True)
        if fact.problem
    ]
    console.print("\n".join(broken[:_MAX_SHOWN]), highlight=False, markup=False, soft_wrap=True)
    if len(broken) > _MAX_SHOWN:
        more = len(broken) - _MAX_SHOWN
        console.print(
            f"  and {more} more; list all: hardmine index info --json {folder}", highlight=False
        )


def _compact(args: argparse.Namespace) -> int:
    from hardmine.index import compact_index, read_manifest

    before = sum(record.bytes for record in read_manifest(args.index).files)
    manifest = compact_index(args.index, shard_size=args.shard_size)
    freed = (before - sum(record.bytes for record in manifest.files)) / 2**20
    console.print(f"{args.index}: {manifest.summary}; {freed:.1f} MiB freed", highlight=False)
    return 0
