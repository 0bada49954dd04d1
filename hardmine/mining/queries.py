"""From weak classes and contexts to the texts that are searched for, and their vectors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.records import SIZES

if TYPE_CHECKING:
    from hardmine.encoders.base import Encoder

# Phrases for weak sizes. Medium objects are what the plain name finds.
SIZE_FORMS: dict[str, tuple[str, ...]] = {
    "small": ("small {}", "tiny {} far away"),
    "large": ("large {}", "{} close up"),
}
_QUALIFIER = re.compile(r"\s*\((.+)\)$")
_MAX_NAMES = 4  # of a class in a query
_JOINS = ("of ", "for ", "on ", "in ", "with ", "to ", "from ", "at ")


@dataclass(frozen=True)
class Queries:
    """Q text queries, sorted by class, the class itself before its contexts.

    Attributes:
        phrases: For each query the phrases that are embedded and averaged, e.g.
            ``("small fork", "tiny fork far away")``; templates are put around them.
        class_rows: (Q,) int64 position of the query's class.
        contexts: Q contexts: ``""`` for the class itself, else ``"small"``, ``"at night"`` ...
        need: (Q,) float64 in [0, 1], how weak the class is in that context.
    """

    phrases: tuple[tuple[str, ...], ...]
    class_rows: npt.NDArray[np.int64]
    contexts: tuple[str, ...]
    need: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.phrases)


def clean_name(name: str) -> str:
    """Turn a data set's class name into words.

    >>> clean_name("traffic_light")
    'traffic light'
    >>> clean_name("wheel_(of_a_car)")
    'wheel of a car'
    >>> clean_name("bow_(weapon)")
    'bow (weapon)'
    >>> clean_name("human.pedestrian.adult")
    'adult pedestrian'
    >>> clean_name("StopSign")
    'stop sign'
    """
    parts = [part for part in re.split(r"\.(?=\S)", name) if part]
    if len(parts) > 1:  # a path from coarse to fine (nuImages): the finest comes first
        name = " ".join([parts[-1], *parts[1:-1]])
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = words.replace("_", " ").replace("/", " or ")
    words = re.sub(r"\s+", " ", words).strip()
    words = " ".join(word if _is_acronym(word) else word.lower() for word in words.split(" "))
    qualifier = _QUALIFIER.search(words)
    if qualifier and qualifier[1].startswith(_JOINS):
        words = f"{words[: qualifier.start()]} {qualifier[1]}"
    return words


def _is_acronym(word: str) -> bool:
    """Whether a word is an acronym that should stay in capitals (TV, SUV)."""
    return word.isupper() and len(word) <= 4


def name_phrases(name: str, synonyms: Sequence[str] = (), *, form: str = "{}") -> tuple[str, ...]:
    """List the cleaned names of a class, its own name first, without repeats; four at most.

    >>> name_phrases("flip-flop_(sandal)", ["thong_(footwear)"], form="{} at night")
    ('flip-flop (sandal) at night', 'thong (footwear) at night')
    """
    cleaned = dict.fromkeys(clean_name(word) for word in (name, *synonyms))
    return tuple(fill(form, word) for word in list(cleaned)[:_MAX_NAMES])


def fill(form: str, word: str) -> str:
    """Put a word in place of ``{}``, or in front of a form that has none."""
    return form.replace("{}", word) if "{}" in form else f"{word} {form}"


def build_queries(
    class_names: Sequence[str],
    need: npt.ArrayLike,
    *,
    synonyms: Sequence[Sequence[str]] = (),
    contexts: Sequence[str] = (),
    context_need: Mapping[tuple[str, str], float] | None = None,
    sizes: npt.ArrayLike | None = None,
) -> Queries:
    """Build queries for every weak class, and for its weak sizes and contexts.

    Args:
        class_names: C names as the data set has them; they are cleaned here.
        need: (C,) in [0, 1]; a class with need 0 gets no query.
        synonyms: For each class its other names; empty for none.
        contexts: Contexts of every weak class, e.g. ``"at night"`` or ``"a wet {}"``, with the
            need in ``context_need`` where it is given, else the class's own.
        context_need: Need of (class name, context) where it was measured. A class that is strong
            as a whole gets a query for a weak context too.
        sizes: (C, 3) need of small, medium and large objects; NaN or 0 makes no query.

    Raises:
        InputError: If lengths do not fit or ``context_need`` names an unknown class.
    """
    needs = _checked_need(need, len(class_names))
    measured = _by_class(context_need or {}, class_names)
    size_need = None if sizes is None else np.nan_to_num(np.asarray(sizes, float))
    if size_need is not None and size_need.shape != (len(class_names), 3):
        raise InputError(
            f"sizes must be ({len(class_names)}, 3), one row a class, got {size_need.shape}"
        )
    if len(synonyms) not in (0, len(class_names)):
        raise InputError(
            f"synonyms must be empty or one tuple a class "
            f"(expected {len(class_names)}, got {len(synonyms)})"
        )
    queries: list[tuple[tuple[str, ...], int, str, float]] = []
    for row, name in enumerate(class_names):
        others = synonyms[row] if synonyms else ()
        forms: dict[str, tuple[tuple[str, ...], float]] = {"": (("{}",), float(needs[row]))}
        of_contexts = dict.fromkeys(contexts, float(needs[row])) | measured.get(row, {})
        for context, value in of_contexts.items():
            forms[context] = ((context,), value)
        if size_need is not None:
            for size, wordings in SIZE_FORMS.items():
                forms[size] = (wordings, float(size_need[row, SIZES.index(size)]))
        for context, (wordings, value) in forms.items():
            if value > 0:
                texts = tuple(
                    text
                    for wording in wordings
                    for text in name_phrases(name, others, form=wording)
                )
                queries.append((texts, row, context, value))
    return Queries(
        phrases=tuple(texts for texts, _, _, _ in queries),
        class_rows=np.array([row for _, row, _, _ in queries], np.int64),
        contexts=tuple(context for _, _, context, _ in queries),
        need=np.array([value for _, _, _, value in queries], np.float64),
    )


def _checked_need(need: npt.ArrayLike, num_classes: int) -> npt.NDArray[np.float64]:
    needs = np.asarray(need, dtype=np.float64)
    if needs.shape != (num_classes,):
        raise InputError(
            f"need must have one value per class (expected {num_classes}, got shape {needs.shape})"
        )
    if not bool(((needs >= 0) & (needs <= 1)).all()):
        raise InputError("need must lie in [0, 1]; give an unknown class need 0, not NaN")
    return needs


def _by_class(
    context_need: Mapping[tuple[str, str], float], class_names: Sequence[str]
) -> dict[int, dict[str, float]]:
    places = {name: row for row, name in enumerate(class_names)}
    measured: dict[int, dict[str, float]] = {}
    for (name, context), value in context_need.items():
        if name not in places:
            raise InputError(f"context_need names an unknown class: {name!r}")
        measured.setdefault(places[name], {})[context] = float(np.clip(value, 0, 1))
    return measured


def embed_queries(
    encoder: Encoder, phrases: Iterable[Sequence[str]], *, templates: str | Sequence[str] = "short"
) -> npt.NDArray[np.float32]:
    """Embed each query as the mean of its phrases, every phrase in every template: (Q, D)."""
    from hardmine.encoders.templates import embed_prompts

    queries = [tuple(texts) for texts in phrases]
    flat = list(dict.fromkeys(text for texts in queries for text in texts))
    if not flat:
        return np.zeros((0, encoder.dim), np.float32)
    place = {text: row for row, text in enumerate(flat)}
    vectors = np.asarray(embed_prompts(encoder, flat, templates), np.float32)
    means = np.stack([vectors[[place[text] for text in texts]].mean(axis=0) for texts in queries])
    means /= np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)
    return np.asarray(means, np.float32)
