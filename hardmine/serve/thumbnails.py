"""Small copies of images: each made once, kept in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from pathlib import Path
from typing import Literal

from hardmine.report.page import small_jpeg

Size = Literal["small", "large"]
# Longest side in pixels and JPEG quality.
SIZES: dict[Size, tuple[int, int]] = {"small": (320, 75), "large": (1280, 85)}


class Thumbnails:
    """JPEG copies of image files, the least recently used ones dropped first.

    Args:
        limit: Bytes of all copies together.
    """

    def __init__(self, limit: int = 128 << 20) -> None:
        self.limit = limit
        self._kept: OrderedDict[tuple[Path, Size], bytes] = OrderedDict()
        self._num_bytes = 0
        self._making: dict[tuple[Path, Size], Future[bytes]] = {}
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Bytes of the copies kept."""
        return self._num_bytes

    def get(self, path: Path, size: Size = "small") -> bytes:
        """A copy; requests for one that is being made wait for it.

        Args:
            path: The image file.
            size: Of the copy.

        Raises:
            InputError: If the file is missing or broken.
        """
        key = (path, size)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            future = self._making.get(key)
            mine = future is None
            if future is None:
                future = self._making[key] = Future()
        if mine:
            self._make(key, future)
        return future.result()

    def _make(self, key: tuple[Path, Size], future: Future[bytes]) -> None:
        side, quality = SIZES[key[1]]
        try:
            jpeg, _ = small_jpeg(key[0], side=side, quality=quality)
        except Exception as error:
            future.set_exception(error)
        else:
            with self._lock:
                self._kept[key] = jpeg
                self._num_bytes += len(jpeg)
                while self._num_bytes > self.limit:
                    _, dropped = self._kept.popitem(last=False)
                    self._num_bytes -= len(dropped)
            future.set_result(jpeg)
        finally:
            with self._lock:
                del self._making[key]
