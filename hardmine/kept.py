"""What people keep in ``hardmine serve`` for a training, which reads it again at each round."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from hardmine.config import load_config
from hardmine.errors import InputError
from hardmine.mining.checked import CheckRecord, read_checks
from hardmine.mining.conditions import AUTO, read_contexts

CONTEXTS_FILE = "contexts.yaml"  # a config of which miner.contexts is set
CHECKS_FILE = "checks.jsonl"

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Kept:
    """What was kept at one time.

    Attributes:
        contexts: Besides those that the miner was made with.
        checks: The last answer for each image and class.
        notes: Why a file was not read; what it held before counts instead.
    """

    contexts: tuple[str, ...] = ()
    checks: tuple[CheckRecord, ...] = ()
    notes: tuple[str, ...] = ()


class KeptFolder:
    """Contexts and checks in a folder, read while others write them.

    Args:
        folder: Where ``hardmine serve`` keeps them. Neither the folder nor its files need exist.

    Raises:
        InputError: If a file is not understood now; later that is a note.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(
                f"kept must be the folder of hardmine serve, such as coco.serve; {folder} is a file"
            )
        self._last = Kept(
            read_kept_contexts(self.folder / CONTEXTS_FILE), read_checks(self.folder / CHECKS_FILE)
        )

    def read(self) -> Kept:
        """What is kept now. Of a file that is not understood, what it held last."""
        notes: list[str] = []

        def again(read: Callable[[Path], T], name: str, last: T) -> T:
            try:
                return read(self.folder / name)
            except InputError as error:
                notes.append(f"what was read before stays in use: {error}")
                logger.warning("%s", notes[-1])
                return last

        before = self._last
        self._last = Kept(
            again(read_kept_contexts, CONTEXTS_FILE, before.contexts),
            again(read_checks, CHECKS_FILE, before.checks),
        )
        if self._last.contexts != before.contexts:
            logger.info("contexts kept in %s: %s", self.folder, ", ".join(self._last.contexts))
        return replace(self._last, notes=tuple(notes))


def read_kept_contexts(file: Path) -> tuple[str, ...]:
    """Read the contexts of a config; none without the file.

    Raises:
        InputError: If it is no config, or asks for contexts to be found, which is the miner's own
            setting.
    """
    if not file.exists():
        return ()
    contexts = read_contexts(load_config(file).miner.contexts)
    if AUTO in contexts:
        raise InputError(
            f"{file}: {AUTO!r} is no context to keep; set it where the miner is made: "
            f"HardMiner(contexts={AUTO!r})"
        )
    return contexts
