"""The contexts of a scene, light and weather, applied to a finished image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw

_LAMP_GRID = 28


def _day(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    gain = rng.uniform(0.82, 1.12)
    warm = rng.uniform(-0.05, 0.05)
    return _tint(image, (gain * (1 + warm), gain, gain * (1 - warm)))


def _night(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Dark and bluish, with one to three round pools of lamp light."""
    dim = rng.uniform(0.32, 0.48)
    dark = _tint(image, (dim * 0.82, dim * 0.9, dim * 1.3), lift=6)
    grid = (np.arange(_LAMP_GRID) + 0.5) / _LAMP_GRID
    light = np.zeros((_LAMP_GRID, _LAMP_GRID))
    for x, y, reach in rng.random((int(rng.integers(1, 4)), 3)).tolist():
        fall = ((grid - x) ** 2 + ((grid - y) ** 2)[:, None]) / (0.08 + 0.16 * reach) ** 2
        light = np.maximum(light, np.exp(-fall))
    pools = Image.fromarray((light * 170).astype(np.uint8))
    lit = _tint(image, (0.85, 0.74, 0.5))
    return Image.composite(lit, dark, pools.resize(image.size, Image.Resampling.BILINEAR))


def _rain(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Pale and greyish, with slanted streaks of rain."""
    gray = _tint(image, (0.72, 0.76, 0.82), lift=14)
    gray = Image.blend(gray, gray.convert("L").convert("RGB"), 0.35)
    streaks = Image.new("L", image.size)
    brush = ImageDraw.Draw(streaks)
    side = image.width
    lean, length = rng.uniform(-0.35, 0.35), rng.uniform(0.04, 0.12) * side
    for x, y, fall in rng.random((int(rng.integers(60, 130)), 3)).tolist():
        reach = length * (0.5 + fall)
        start = (x * 1.2 - 0.1) * side, y * side
        end = start[0] + lean * reach, start[1] + reach
        brush.line((start, end), fill=int(90 + 90 * fall), width=1)
    gray.paste((216, 226, 238), mask=streaks)
    return gray


def _fog(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A pale veil, denser towards the top, where objects are farther away."""
    density, slope = rng.uniform(0.45, 0.68), rng.uniform(0.0, 0.25)
    column = np.linspace(density + slope, density - slope, 16) + rng.normal(0, 0.03, 16)
    veil = Image.fromarray((column.clip(0, 0.8) * 255).astype(np.uint8)[:, None])
    pale = int(rng.integers(196, 228))
    return Image.composite(
        Image.new("RGB", image.size, (pale, pale, min(pale + 6, 255))),
        image,
        veil.resize(image.size, Image.Resampling.BILINEAR),
    )


CONTEXTS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "day": _day,
    "night": _night,
    "rain": _rain,
    "fog": _fog,
}


def _tint(image: Image.Image, gains: tuple[float, float, float], lift: int = 0) -> Image.Image:
    levels = np.arange(256)[None] * np.array(gains)[:, None] + lift
    return image.point(levels.clip(0, 255).astype(np.uint8).ravel().tolist())


def apply_context(image: Image.Image, context: str, rng: np.random.Generator) -> Image.Image:
    """Apply a context, a key of ``CONTEXTS``, to an image, and add camera noise."""
    lit = CONTEXTS[context](image, rng)
    grain = 2 ** int(rng.integers(1, 5))
    shape = (image.height, image.width, 3)
    noise = np.frombuffer(rng.bytes(int(np.prod(shape))), np.uint8).reshape(shape) % (2 * grain)
    return ImageChops.add(lit, Image.fromarray(noise), offset=-grain)
