"""Prompt templates: a class name in several sentences makes a better text vector than alone."""

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
    # The eighty of CLIP's ImageNet experiments: best known, slowest.
    "clip80": CLIP80,
    # For objects in scenes: their sizes, their number, how well they are seen.
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

# LVIS in eighty templates is 96,000 prompts: their vectors need not all be there at once.
_PROMPTS_AT_ONCE = 4096

# One vector a name, kept as long as the encoder lives.
_Cache = dict[tuple[str, tuple[str, ...], str], npt.NDArray[np.float32]]
_CACHES: weakref.WeakKeyDictionary[Any, _Cache] = weakref.WeakKeyDictionary()


def embed_prompts(
    encoder: Encoder, names: Sequence[str], templates: str | Sequence[str] = "short"
) -> npt.NDArray[np.float32]:
    """Embed C names, each in every template, averaged and renormalised: (C, D) float32.

    A name is embedded once for an encoder and a set of templates; asking again, alone or among
    others, costs nothing.

    Args:
        encoder: Whose text side to use.
        names: C texts to put in place of ``{}``.
        templates: Name of a set in ``TEMPLATES``, or templates of one's own, each with a ``{}``.
    """
    if isinstance(names, str):
        raise InputError(f"names must be a list of names, got one text; use [{names!r}]")
    chosen = resolve_templates(templates)
    cache = _cache_of(encoder)
    keys = [(encoder.fingerprint, chosen, name) for name in names]
    missing = list(dict.fromkeys(key for key in keys if key not in cache))
    step = max(1, _PROMPTS_AT_ONCE // len(chosen))
    for start in range(0, len(missing), step):
        some = missing[start : start + step]
        prompts = [template.replace("{}", name) for *_, name in some for template in chosen]
        vectors = np.asarray(encoder.encode_texts(prompts), np.float64)
        means = vectors.reshape(len(some), len(chosen), -1).mean(1)
        means /= np.linalg.norm(means, axis=1, keepdims=True).clip(min=1e-12)
        cache.update(zip(some, means.astype(np.float32), strict=True))
    if not keys:
        return np.zeros((0, encoder.dim), np.float32)
    return np.stack([cache[key] for key in keys])


def resolve_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Look a named set up, or check templates of one's own.

    Raises:
        InputError: If the set is unknown, empty, or a template has no place for the name.
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
            raise InputError(f"a template must hold {{}} where the name goes, got {template!r}")
    if not templates:
        raise InputError("templates must hold at least one template, got none; '{}' is the name")
    return tuple(templates)


def _cache_of(encoder: Encoder) -> _Cache:
    try:
        return _CACHES.setdefault(encoder, {})
    except TypeError:  # neither hashable nor weakly referable: an encoder of one's own may be so
        return {}
