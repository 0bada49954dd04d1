"""An index over Ray actors, which several trainings may ask at the same time."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hardmine.encoders.base import Encoder
from hardmine.errors import HardmineError, InputError, MissingExtra
from hardmine.index.open import require_fit
from hardmine.index.sharded.holder import Holder, split_parts
from hardmine.index.sharded.index import ShardedIndex
from hardmine.index.storage.joined import part_folders
from hardmine.index.storage.manifest import read_manifest, render

try:
    import ray
except ImportError:
    raise MissingExtra("ray", "an index over Ray actors") from None

log = logging.getLogger(__name__)

_NAMESPACE = "hardmine"


def open_on_ray(
    path: str | Path,
    *,
    actors: int,
    encoder: Encoder | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    root: str | Path | None = None,
    verify: bool | None = None,
) -> ShardedIndex:
    """Open a joined index so that Ray actors hold its parts and search them.

    Whoever opens the same index with as many actors asks the same ones: they live on when the
    process that made them ends, until ``close``. Ray makes an actor that dies again, which opens
    its parts again, and repeats the question. Call ``ray.init`` first.

    Args:
        path: The joined index, on a folder that all nodes share.
        actors: Number of actors, at most; an index that joins fewer parts has one for each.
        encoder: The encoder of the queries; must be the one that built the index.
        num_cpus: CPUs of each actor.
        num_gpus: GPUs of each actor; with any, scores are computed there.
        root: As in ``open_index``.
        verify: As in ``open_index``.
    """
    if not ray.is_initialized():
        raise InputError("Ray is not connected; call ray.init() first")
    folders = part_folders(path)
    manifests = [read_manifest(folder) for folder in folders]
    for folder, manifest in zip(folders, manifests, strict=True):
        require_fit(folder, manifest, encoder=encoder)
    groups = split_parts(folders, actors)
    there = ray.cluster_resources()
    for kind, each in (("CPU", num_cpus), ("GPU", num_gpus)):
        if each * len(groups) > there.get(kind, 0):
            log.warning(
                "%d actors need %g %ss, the Ray cluster has %g: waiting until they are there",
                len(groups),
                each * len(groups),
                kind,
                there.get(kind, 0),
            )
    # A changed index has other actors.
    content = b"".join(render(manifest) for manifest in manifests)
    digest = hashlib.sha256(
        b"\n".join([*(bytes(folder.absolute()) for folder in folders), content])
    ).hexdigest()[:16]
    actor = ray.remote(Holder)
    handles = [
        actor.options(
            name=f"{digest}-{number}-of-{len(groups)}",
            namespace=_NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=-1,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
        ).remote(group, "cuda" if num_gpus else None, verify)
        for number, group in enumerate(groups)
    ]
    return ShardedIndex(
        [_Actor(handle) for handle in handles],
        [_get(handle.describe.remote()) for handle in handles],
        Path(path),
        root=None if root is None else Path(root),
    )


class _Actor:
    """The way to the holder of one actor."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def ask(self, question: str, *arguments: Any) -> Callable[[], Any]:
        """Send a question."""
        answer = self._handle.answer.remote(question, *arguments)
        return lambda: _get(answer)

    def close(self) -> None:
        """End the actor, for all who ask it."""
        ray.kill(self._handle)


def _get(answer: Any) -> Any:
    try:
        return ray.get(answer)
    except ray.exceptions.RayError as error:
        raise HardmineError(f"an actor of the index failed: {error}") from error
