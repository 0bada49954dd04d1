"""Numbers as reports print them."""

from __future__ import annotations

import math


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
