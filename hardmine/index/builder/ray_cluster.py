"""The nodes of a Ray cluster, and the connection to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from hardmine.errors import HardmineError, InputError
from hardmine.index.builder.executor import MAX_THREADS

_STORE = 80_000_000  # bytes of the object store of a cluster of this machine alone


@dataclass(frozen=True)
class Place:
    """Workers that fit on a node, each with so many CPUs and GPUs."""

    node_id: str
    name: str
    workers: int
    cpus: int
    gpus: int


def places_of(nodes: Sequence[dict[str, Any]]) -> list[Place]:
    """Where workers go, of the nodes that ``ray.nodes`` lists.

    One to each GPU; where no node has any, one to at most 16 CPUs. Nodes without a GPU are left out
    beside nodes with one, as they would be slow and round in another way.
    """
    alive = [node for node in nodes if node["Alive"]]
    with_gpus = [node for node in alive if node["Resources"].get("GPU", 0) >= 1]
    places = []
    for node in with_gpus or alive:
        cpus, gpus = (int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
        workers = gpus if with_gpus else -(-cpus // MAX_THREADS)
        if workers:
            name = f"{node['NodeName']} ({node['NodeManagerHostname']})"
            share = cpus // workers
            places.append(Place(node["NodeID"], name, workers, share, 1 if with_gpus else 0))
    return places


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster, unless this process is connected already.

    Raises:
        HardmineError: If there is none at the address.
    """
    if ray.is_initialized():
        if address is not None:
            raise InputError('this process is connected to Ray already; use executor="ray"')
        yield
        return
    # Nothing is reported to anyone on behalf of hardmine's users.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    local = {"address": "local", "include_dashboard": False, "object_store_memory": _STORE}
    try:
        if address == "local":
            ray.init(**local, **options)
        else:
            try:
                ray.init(address=address or "auto", **options)
            except ConnectionError:
                if address is not None:
                    raise
                ray.init(**local, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise HardmineError(
            f"cannot connect to a Ray cluster at {address or 'this machine'}: {error}; start one "
            "with ray start --head"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
