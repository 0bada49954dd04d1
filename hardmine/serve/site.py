"""Everything that pages and endpoints answer from."""

from __future__ import annotations

import secrets

from hardmine.errors import InputError
from hardmine.kept import CHECKS_FILE
from hardmine.serve.asking import Asking
from hardmine.serve.background import State
from hardmine.serve.checks import Decisions, Queue
from hardmine.serve.collect import Collected, Wishes, collect
from hardmine.serve.kept import KeptQuestions
from hardmine.serve.live import Live
from hardmine.serve.questions import Kept
from hardmine.serve.thumbnails import Thumbnails
from hardmine.serve.workspace import Workspace

WAIT = 0.2  # seconds that a request waits for a value that may be nearly made
_NUM_CHOICES = 8  # of images to label, kept


class Site:
    """A workspace with what is asked of it, made from it and kept beside it.

    Args:
        workspace: What is shown.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.run = secrets.token_hex(4)  # part of the addresses that a browser caches
        self.asking = Asking(workspace)
        self.live = Live(workspace)
        self.kept = KeptQuestions(workspace.folder)
        self.decisions = Decisions(workspace.folder / CHECKS_FILE)
        self.thumbnails = Thumbnails()
        self._collected: Kept[Collected] = Kept(_NUM_CHOICES)

    def queue(self) -> Queue | None:
        """What there is to check; None while it is being found or where there are no labels."""
        state = self.live.diagnosis.wait(WAIT)
        mining = None if state.value is None else state.value.mining
        return None if mining is None else Queue.of(mining)

    def collected(self, state: State[Wishes], budget: int) -> Collected:
        """Images of the pool to label next.

        Raises:
            InputError: If it is not known what is wanted.
        """
        if state.value is None:
            raise InputError(state.error)
        key = f"{state.version} {budget}"
        collected = self._collected.get(key)
        if collected is None:
            collected = collect(state.value, self.workspace.index_of("pool"), budget)
            self._collected.put(key, collected)
        return collected
