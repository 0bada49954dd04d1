"""Maps files into memory without keeping them open: an index may have more files than a process."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.index.storage.files import require_regular

# Python's own mmap keeps every file open, and a login shell allows 1,024 open files.
_LIBRARY = ctypes.CDLL(None, use_errno=True)
_LIBRARY.mmap.restype = ctypes.c_void_p
_LIBRARY.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    ctypes.c_int64,
)
_LIBRARY.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


class _Mapping:
    """Bytes of a file in memory, as an array of NumPy sees them, until nothing refers to them."""

    def __init__(self, handle: int, length: int) -> None:
        address = _LIBRARY.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, handle, 0)
        if address == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._place = (address, length)
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "data": (address, True),  # read-only
            "shape": (length,),
            "typestr": "|u1",
        }

    def __del__(self, unmap: Any = _LIBRARY.munmap) -> None:
        if hasattr(self, "_place"):
            unmap(*self._place)


def map_file(path: str | Path) -> npt.NDArray[np.uint8]:
    """Map a whole regular file, read-only; it is read as its bytes are used.

    The bytes stay when the file is removed, as an update may do.

    Raises:
        OSError: If it cannot be opened, or is not a regular file.
    """
    # Without O_NONBLOCK, a pipe would wait for somebody to write into it.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        require_regular(path, status.st_mode)
        length = status.st_size
        return np.asarray(_Mapping(handle, length)) if length else np.zeros(0, np.uint8)
    finally:
        os.close(handle)
