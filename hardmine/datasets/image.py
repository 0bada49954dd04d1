"""Opens image files as 8-bit RGB with EXIF orientation applied, the same way everywhere."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from hardmine.errors import InputError

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(path: str | PathLike[str]) -> Image.Image:
    """Decode an image file into 8-bit RGB.

    EXIF orientation is applied and alpha is dropped, as OpenCV does, and so the loaders of
    detectors. Of several frames the first is read. 16-bit grey is scaled to 8 bits. The file's path
    is in ``info["path"]``.

    Raises:
        InputError: If the file is missing or cannot be decoded: truncated, not an image, or above
            Pillow's limit on the number of pixels (a decompression bomb).
    """
    file = Path(path)
    if not file.is_file():  # a folder, or a pipe that would block
        raise InputError(f"{path}: no such image file")
    try:
        with Image.open(file) as image:
            image.load()
            transpose = _UPRIGHT.get(_orientation(image))
            rgb = _to_rgb(image)
            upright = rgb if transpose is None else rgb.transpose(transpose)
            upright.info["path"] = str(file)  # for encoders that look up vectors by path
            return upright
    except Exception as error:
        # Decoders raise many types of exception on broken files, SyntaxError among them.
        raise InputError(f"{path}: cannot be decoded: {error or type(error).__name__}") from error


def image_size(path: str | PathLike[str]) -> tuple[int, int]:
    """Height and width of the image that ``open_image`` returns, read from the file's header.

    Raises:
        InputError: If the header cannot be read.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (width, height) if _orientation(image) >= 5 else (height, width)
    except Exception as error:
        raise InputError(f"{path}: cannot be decoded: {error or type(error).__name__}") from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1  # unreadable EXIF: take the image as it is


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit values at 255, so nearly all becomes white.
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floats without a fixed range; expected 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
