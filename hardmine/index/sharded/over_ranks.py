"""An index over the ranks of torch.distributed: each holds some parts where its memory is."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist

from hardmine.distributed import RankGroup, rank_and_world_size
from hardmine.encoders.base import Encoder
from hardmine.errors import HardmineError
from hardmine.index.open import require_fit
from hardmine.index.sharded.holder import Held, Holder, split_parts
from hardmine.index.sharded.index import ShardedIndex, Worker
from hardmine.index.storage.joined import part_folders
from hardmine.index.storage.manifest import read_manifest

# Ranks wait for questions as long as a training runs.
_TIMEOUT = datetime.timedelta(days=365)


@contextmanager
def open_over_ranks(
    path: str | Path,
    *,
    encoder: Encoder | None = None,
    device: Any = None,
    root: str | Path | None = None,
    verify: bool | None = None,
) -> Iterator[ShardedIndex | None]:
    """Open a joined index so that every rank holds some of its parts and searches them.

    Rank 0 gets an index that asks all ranks. The others get None and answer in a thread, whatever
    they do meanwhile; ``HardMiner`` takes both. Every rank must enter and leave it together, before
    the process group is destroyed. Messages travel over gloo.

    Args:
        path: The joined index; every rank must find its own parts there.
        encoder: The encoder of the queries; must be the one that built the index.
        device: Where this rank computes scores.
        root: As in ``open_index``.
        verify: As in ``open_index``.
    """
    rank, size = rank_and_world_size()
    holders: list[Holder] = []
    workers: list[Worker] = []
    indexes: list[ShardedIndex] = []

    def hold() -> None:
        folders = part_folders(path)
        groups = split_parts(folders, size)
        for folder in folders:
            require_fit(folder, read_manifest(folder), encoder=encoder)
        if rank < len(groups):
            holders.append(Holder(groups[rank], None if device is None else str(device), verify))

    def connect() -> None:
        if rank == 0:
            workers.append(_Here(holders[0]))
            workers.extend(_Rank(number, messages) for number in range(1, size))
            own_root = None if root is None else Path(root)
            indexes.append(ShardedIndex(workers[: len(held)], held, Path(path), root=own_root))

    with RankGroup() as ranks:
        ranks.on_every_rank(hold)
        # Ranks without a part come last.
        described = ranks.gather(holders[0].describe() if holders else None)
        held: list[Held] = [one for one in described if one is not None]
        messages = dist.new_group(backend="gloo", timeout=_TIMEOUT) if size > 1 else None
        ranks.on_every_rank(connect)
    if rank > 0:
        thread = threading.Thread(
            target=_serve, args=(holders, messages), name="hardmine-holder", daemon=True
        )
        thread.start()
        # An error here is not held up: rank 0 learns of it when the connection breaks.
        yield None
        thread.join()
    else:
        try:
            yield indexes[0]
        finally:
            for worker in workers:
                worker.close()
    if messages is not None:
        # One that lives until the process exits can abort it there.
        dist.destroy_process_group(messages)


class _Here:
    """The holder of rank 0 itself, which answers while the others do."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    def ask(self, question: str, *arguments: Any) -> Callable[[], Any]:
        """Answer when the answer is waited for: by then the others have been asked."""
        return lambda: self._holder.answer(question, *arguments)

    def close(self) -> None:
        """Nothing to end."""


class _Rank:
    """The way to the holder of another rank."""

    def __init__(self, rank: int, group: Any) -> None:
        self._rank, self._group, self._owes_answer = rank, group, False

    def ask(self, question: str, *arguments: Any) -> Callable[[], Any]:
        """Send a question."""
        self._send((question, arguments))
        self._owes_answer = True
        return self._answer

    def close(self) -> None:
        """Tell the rank that no question will follow."""
        self._send(None)

    def _send(self, message: Any) -> None:
        if self._owes_answer:
            # Waiting was broken off, and the rank takes no question before its answer is received.
            self._receive()
        dist.send_object_list([message], dst=self._rank, group=self._group)

    def _receive(self) -> Any:
        message: list[Any] = [None]
        dist.recv_object_list(message, src=self._rank, group=self._group)
        self._owes_answer = False
        return message[0]

    def _answer(self) -> Any:
        value, error = self._receive()
        if error:
            raise HardmineError(f"rank {self._rank} could not search its part: {error}")
        return value


def _serve(holders: list[Holder], group: Any) -> None:
    """Answer rank 0 until it closes."""
    while True:
        message: list[Any] = [None]
        dist.recv_object_list(message, src=0, group=group)
        if message[0] is None:
            return
        question, arguments = message[0]
        try:
            answer = (holders[0].answer(question, *arguments), "")
        except Exception as error:  # rank 0 raises it
            answer = (None, f"{type(error).__name__}: {error}")
        dist.send_object_list([answer], dst=0, group=group)
