"""Values that take long to compute: made in a thread, and again when a file changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from hardmine.errors import HardmineError

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class State(Generic[T]):
    """What is known of a value now.

    Attributes:
        value: The last one made; None before the first.
        version: Number of values made or failed; a page shows a new one when it changes.
        busy: Whether another one is being made.
        error: Why the last attempt failed; empty if it did not.
    """

    value: T | None = None
    version: int = 0
    busy: bool = False
    error: str = ""


class Background(Generic[T]):
    """A value that is made in a thread when it is first asked for, and anew when its stamp changes.

    Args:
        make: Makes the value.
        stamp: Of what the value depends on; compared at every ``state``.
    """

    def __init__(self, make: Callable[[], T], stamp: Callable[[], Hashable] = lambda: None) -> None:
        self._make = make
        self._stamp = stamp
        self._made_for: Hashable = object()  # equal to no stamp
        self._state: State[T] = State()
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()

    def state(self) -> State[T]:
        """The value as it is now; starts making it where it is missing or out of date."""
        stamp = self._stamp()
        with self._lock:
            if not self._state.busy and stamp != self._made_for:
                self._made_for = stamp
                self._state = State(self._state.value, self._state.version, True, self._state.error)
                self._idle.clear()
                threading.Thread(target=self._run, daemon=True).start()
            return self._state

    def wait(self, timeout: float | None = None) -> State[T]:
        """The value when it is made, or as it is after ``timeout`` seconds."""
        self.state()
        self._idle.wait(timeout)
        return self._state

    def _run(self) -> None:
        try:
            value, error = self._make(), ""
        except HardmineError as caught:
            value, error = None, str(caught)
        except Exception as caught:  # the server goes on, and the page says what failed
            _LOG.exception("a page cannot be made")
            value, error = None, f"{type(caught).__name__}: {caught}"
        with self._lock:
            kept = self._state.value if value is None else value
            self._state = State(kept, self._state.version + 1, False, error)
            self._idle.set()


def file_stamp(path: Path | None) -> Hashable:
    """Changes when a file does; None where there is none."""
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return None
    return status and (status.st_ino, status.st_mtime_ns, status.st_size)
