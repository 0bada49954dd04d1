"""Everything that pages and endpoints answer from."""

from __future__ import annotations

import secrets

from hardmine.kept import CHECKS_FILE
from hardmine.serve.asking import Asking
from hardmine.serve.checks import Decisions, Queue
from hardmine.serve.kept import KeptQuestions
from hardmine.serve.live import Live
from hardmine.serve.thumbnails import Thumbnails
from hardmine.serve.workspace import Workspace

WAIT = 0.2  # seconds that a request waits for a value that may be nearly made


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

    def queue(self) -> Queue | None:
        """What there is to check; None while it is being found or where there are no labels."""
        state = self.live.diagnosis.wait(WAIT)
        mining = None if state.value is None else state.value.mining
        return None if mining is None else Queue.of(mining)
