"""Opening an image file as every part of hardmine sees it: RGB, 8 bits, upright."""

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

    Turned upright by its EXIF orientation, as OpenCV's and thus the detectors' loaders do. Alpha
    is dropped, as they do; of a file with several frames it is the first; 16-bit grey is scaled
    to 8. Its ``info["path"]`` says which file it was.

    Raises:
        InputError: If the file is not there, or cannot be decoded: truncated, not an image, or so
            large that Pillow takes it for a bomb.
    """
    place = Path(path)
    if not place.is_file():  # neither a folder nor a pipe, which would never end
        raise InputError(f"{path}: no such image file")
    try:
        with Image.open(place) as image:
            image.load()
            turn = _UPRIGHT.get(_orientation(image))
            colour = _to_rgb(image)
            upright = colour if turn is None else colour.transpose(turn)
            upright.info["path"] = str(place)  # for encoders that look vectors up by file
            return upright
    except Exception as error:
        # On broken files decoders raise whatever comes to hand, SyntaxError among it.
        raise InputError(f"{path}: cannot be decoded: {error or type(error).__name__}") from error


def image_size(path: str | PathLike[str]) -> tuple[int, int]:
    """Height and width of an image as ``open_image`` gives it, from the file's header alone.

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
        return 1  # EXIF too broken to read says nothing of the pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would cut 16 bits off at 255, which leaves white.
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floats, of no fixed range; expected 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
