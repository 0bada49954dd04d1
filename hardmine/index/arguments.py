"""Says what to make of a name where an encoder, an image set or an index is expected."""

from __future__ import annotations

import os
from typing import Any

from hardmine.errors import InputError
from hardmine.records import ImageSet


def require_encoder(encoder: Any) -> None:
    """Refuse what is no encoder, such as the name of one."""
    _require(hasattr(encoder, "fingerprint"), "encoder", encoder, "an encoder", "load_encoder")


def require_images(images: Any, name: str = "images") -> None:
    """Refuse what is no image set, such as a folder."""
    _require(isinstance(images, ImageSet), name, images, "an ImageSet", "load_images")


def require_index(index: Any, name: str = "index") -> None:
    """Refuse what is no index, such as the folder of one."""
    fits = hasattr(index, "rows_of") and hasattr(index, "search")
    _require(fits, name, index, "an index", "open_index")


def _require(fits: bool, name: str, value: Any, kind: str, maker: str) -> None:
    if fits:
        return
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(text, str):
        raise InputError(f"{name} must be {kind}, got {text!r}: use hardmine.{maker}({text!r})")
    raise InputError(f"{name} must be {kind}, got {value!r:.200}: use hardmine.{maker}")
