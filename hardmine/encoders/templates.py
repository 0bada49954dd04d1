"""Prompt templates: the mean vector of several sentences with a class name is a better query."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.encoders.base import Encoder
from hardmine.encoders.clip80 import CLIP80
from hardmine.errors import InputError

TEMPLATES: dict[str, tuple[str, ...]] = {
    # The eighty templates of CLIP's ImageNet experiments; the slowest.
    "clip80": CLIP80,
    # For objects in scenes: various sizes, numbers and image quality.
    "short": (
        "a photo of a {}.",
        "a photo of the {} in a scene.",
        "a photo of a small {}.",
        "a photo of a large {}.",
        "a close-up photo of a {}.",
        "a photo of many {}.",
        "a blurry photo of a {}.",
    ),
    "plain": ("{}",),
}

# LVIS with eighty templates gives 96,000 prompts; embed this many at a time.
_PROMPTS_AT_ONCE = 4096

# One vector for each name, kept as long as the encoder exists.
_Cache = dict[tuple[str, tuple[str, ...], str], npt.NDArray[np.float32]]
_CACHES: weakref.WeakKeyDictionary[Any, _Cache] = weakref.WeakKeyDictionary()


def embed_prompts(
    encoder: Encoder, names: Sequence[str], templates: str | Sequence[str] = "short"
) -> npt.NDArray[np.float32]:
    """Embed C names in every template and average: (C, D) float32 unit vectors.

    Vectors are cached for each encoder, set of templates and name.

    Args:
        encoder: Embeds the prompts.
        names: C texts that replace ``{}``.
        templates: Name of a set in ``TEMPLATES``, or your own templates, each with a ``{}``.
    """
    if isinstance(names, str):
        raise InputError(f"names must be a list of names, got one text; use [{names!r}]")
    chosen = resolve_templates(templates)
    cache = _cache_of(encoder)
    keys = [(encoder.fingerprint, chosen, name) for name in names]
    missing = list(dict.fromkeys(key for key in keys if key not in cache))
    step = max(1, _PROMPTS_AT_ONCE // len(chosen))
    for start in range(0, len(missing), step):
        batch = missing[start : start + step]
        prompts = [template.replace("{}", name) for *_, name in batch for template in chosen]
        vectors = np.asarray(encoder.encode_texts(prompts), np.float64)
        means = vectors.reshape(len(batch), len(chosen), -1).mean(1)
        means /= np.linalg.norm(means, axis=1, keepdims=True).clip(min=1e-12)
        cache.update(zip(batch, means.astype(np.float32), strict=True))
    if not keys:
        return np.zeros((0, encoder.dim), np.float32)
    return np.stack([cache[key] for key in keys])


def resolve_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Look up a set of templates by name, or check given templates.

    Raises:
        InputError: If the set is unknown or empty, or a template has no ``{}``.
    """
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            raise InputError(
                f"templates must be one of {', '.join(TEMPLATES)}, or a list of templates, "
                f"got {templates!r}"
            )
        return TEMPLATES[templates]
    for template in templates:
        if "{}" not in template:
            raise InputError(f"a template must contain {{}} in place of the name, got {template!r}")
    if not templates:
        raise InputError("expected at least one template, got none; use ['{}'] for the name alone")
    return tuple(templates)


def _cache_of(encoder: Encoder) -> _Cache:
    try:
        return _CACHES.setdefault(encoder, {})
    except TypeError:  # a user's encoder may be unhashable or without weak references
        return {}
