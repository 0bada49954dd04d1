"""Lets a GPU cluster one batch while it encodes the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def event_after(device: torch.device) -> Any:
    """What says that a GPU has done what it was given so far; None on another device."""
    return torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None


class SideStream:
    """A second queue of a GPU.

    In the same queue, the host would wait for the next batch, which is already being encoded,
    whenever it waits for the clusters of this one.
    """

    def __init__(self) -> None:
        self._stream: Any = None

    @contextmanager
    def after(self, device: torch.device, event: Any) -> Iterator[None]:
        """A context whose operations wait for an event, and for nothing that came later.

        It must end with a copy to the CPU: memory that is given free behind it is then done with.
        """
        if event is None:
            yield
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(event)
            yield
