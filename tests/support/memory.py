"""How much memory a block of code takes."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def anonymous_bytes() -> int:
    """Memory of this process that is not a mapped file."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


@contextmanager
def peak_memory(peak: list[int]) -> Iterator[None]:
    """Append the bytes by which memory rose at most, looked at every 20 ms."""
    before, seen, ended = anonymous_bytes(), [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            seen.append(anonymous_bytes() - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        peak.append(max(seen))
