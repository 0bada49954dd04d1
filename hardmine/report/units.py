"""Numbers as reports print them, and as JSON holds them."""

from __future__ import annotations

import math
from typing import Any


def points(value: float) -> str:
    """A difference of AP in points, signed; a dash where unknown.

    >>> points(0.0123)
    '+1.2'
    """
    return "–" if math.isnan(value) else f"{100 * value:+.1f}".replace("-", "−")


def percent(value: float, digits: int = 1) -> str:
    """A share in percent; a dash where unknown.

    >>> percent(0.0123)
    '1.2'
    """
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}"


def count(number: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "image"), count(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def plain(value: Any) -> Any:
    """Nested values as JSON holds them: arrays as lists, unknown numbers as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
