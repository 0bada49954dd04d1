"""Copies arrays to a device through reused memory that the device can read by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

# Devices that copy from page-locked memory while the CPU goes on.
_ASYNCHRONOUS = ("cuda",)
# Columns start at multiples of so many bytes, for the device to read them fast.
_ALIGNMENT = 256


class Staging:
    """Sends arrays to a device.

    There are two buffers: while the device copies from one, the other is filled.

    Args:
        device: Where to; not the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._asynchronous = device.type in _ASYNCHRONOUS
        self._buffers = [torch.empty(0, dtype=torch.uint8)] * 2
        # What says that the device has copied a buffer.
        self._copied: list[Any] = [None, None]
        self._turn = 0

    def send(self, *columns: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Copy some columns to the device, in one transfer.

        Args:
            columns: Each in one piece or more of one dtype, joined along the first dimension.
        """
        starts, total = [], 0
        for column in columns:
            starts.append(total)
            total += sum(piece.numel() * piece.element_size() for piece in column)
            total += -total % _ALIGNMENT
        buffer = self._next_buffer(total)
        for column, start in zip(columns, starts, strict=True):
            for piece, place in zip(column, _places(buffer, column, start), strict=True):
                place.copy_(piece)
        sent = buffer[:total].to(self._device, non_blocking=self._asynchronous)
        if self._asynchronous:
            self._copied[self._turn] = _record(self._device)
        return [
            _view(sent, start, sum(len(piece) for piece in column), column[0])
            for column, start in zip(columns, starts, strict=True)
        ]

    def _next_buffer(self, size: int) -> torch.Tensor:
        self._turn = 1 - self._turn
        if self._copied[self._turn] is not None:
            self._copied[self._turn].synchronize()
        if len(self._buffers[self._turn]) < size:
            self._buffers[self._turn] = _allocate(size, page_locked=self._asynchronous)
        return self._buffers[self._turn]


def _places(buffer: torch.Tensor, column: Sequence[torch.Tensor], start: int) -> list[torch.Tensor]:
    counts = [len(piece) for piece in column]
    return list(torch.split(_view(buffer, start, sum(counts), column[0]), counts))


def _view(buffer: torch.Tensor, start: int, count: int, like: torch.Tensor) -> torch.Tensor:
    """View bytes as ``count`` rows of the shape and dtype of another tensor's."""
    shape = (count, *like.shape[1:])
    size = torch.Size(shape).numel() * like.element_size()
    return buffer[start : start + size].view(like.dtype).view(shape)


def _allocate(size: int, *, page_locked: bool) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8, pin_memory=page_locked)


def _record(device: torch.device) -> Any:
    """An event after what the device has been given so far."""
    return torch.cuda.current_stream(device).record_event()
