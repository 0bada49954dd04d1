"""Is night found by itself where training knows little of it, and nothing where there is nothing?

The detectors are those of the runs after their warm-up. Each is validated on its own validation
photos, on random halves of them, and with the photos' vectors given to other photos, so that no
condition can explain what it misses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from hardmine.detections import Detections, Matches, match_detections
from hardmine.encoders import Encoder
from hardmine.index.base import Index
from hardmine.mining.conditions import Condition, ConditionFinder, vocabulary
from hardmine.mining.contexts import PLAIN, context_phrases
from hardmine.mining.queries import embed_queries
from hardmine.records import ImageSet
from tests.benchmarks.roads.photos import RoadPhotos
from tests.benchmarks.roads.setup import REGIMES
from tests.benchmarks.roads.splits import CONDITIONS, SCENARIOS, condition_rows, make_split

# What a person would take for another word for the condition.
SYNONYMS = {
    "night": ("at night", "in the dark", "in low light", "under street lights"),
    "rain": ("in the rain", "in heavy rain", "in drizzle", "on a wet road", "a wet {}"),
    "snow": ("in the snow", "in falling snow", "in a blizzard", "on snow", "covered with snow"),
}
_NEIGHBOURS = 20  # photos of similar object count among which vectors are exchanged


@dataclass(frozen=True)
class Validated:
    """A warmed-up detector and its validation photos.

    Attributes:
        name: Scenario, regime and seed.
        condition: A key of ``CONDITIONS``.
        images: The photos.
        found: Detections on them.
        shows: (N,) whether a photo shows the condition.
        train: Rows of the photos that it was trained on, among all.
    """

    name: str
    condition: str
    images: ImageSet
    found: Detections
    shows: npt.NDArray[np.bool_]
    train: npt.NDArray[np.int64]


class KeptTexts:
    """An encoder that embeds each text once."""

    def __init__(self, encoder: Encoder) -> None:
        self.dim, self.fingerprint = encoder.dim, encoder.fingerprint
        self._encoder = encoder
        self._known: dict[str, torch.Tensor] = {}

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """(T, D)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode_texts(new), strict=True))
        return torch.stack([self._known[text] for text in texts])


class ExchangedIndex:
    """An index in which images have the regions of other images.

    Args:
        index: The true one.
        ids: Of N images.
        order: (N,) positions in ``ids``: whose regions each image gets.
    """

    def __init__(self, index: Index, ids: npt.NDArray[Any], order: npt.NDArray[np.int64]) -> None:
        self._index = index
        self._ids, self._order = ids, order

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def rows_of(self, ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Rows of the images whose regions stand for these."""
        assert np.array_equal(self._ids, ids)
        return self._index.rows_of(self._ids[self._order])


def warmed_up_detectors(photos: RoadPhotos) -> Iterator[Validated]:
    """The detectors that the runs have warmed up, from the work folder."""
    for path in sorted((photos.work / "warmup").glob("*.pt")):
        scenario, passes, seed, _ = path.stem.rsplit("-", 3)
        spec = SCENARIOS[scenario]
        if spec.condition is None:
            continue
        num_train = min(spec.num_train, REGIMES[passes].max_train)
        split = make_split(spec, int(seed), photos.attributes, num_train=num_train)
        found = torch.load(path, weights_only=True)["found"]
        yield Validated(
            f"{scenario} {passes} {seed}",
            spec.condition,
            photos.images.subset(split.val),
            Detections(**{key: value.numpy() for key, value in found.items()}),
            condition_rows(spec.condition, photos.attributes)[split.val],
            split.train,
        )


def measure_named(photos: RoadPhotos, *, repeats: int) -> list[dict[str, Any]]:
    """One entry a detector: what was found on all photos, on halves, and after exchanges."""
    encoder, entries = KeptTexts(photos.encoder), []
    for one in warmed_up_detectors(photos):
        rng = np.random.default_rng(0)
        count = len(one.images)
        matches = match(one)
        everything = find(one, matches, photos.index, encoder)
        halves = []
        for _ in range(repeats):
            half = _on_some(one, np.sort(rng.permutation(count)[: count // 2]))
            halves.append(find(half, match(half), photos.index, encoder))
        objects = np.asarray(one.images.class_counts.sum(axis=1)).ravel()
        exchanged: dict[str, list[tuple[Condition, ...]]] = {"any photo": [], "similar count": []}
        for _ in range(repeats):
            for name, order in (
                ("any photo", rng.permutation(count)),
                ("similar count", _among_neighbours(objects, rng)),
            ):
                index = ExchangedIndex(photos.index, one.images.ids, order)
                exchanged[name].append(find(one, matches, index, encoder))
        entries.append(
            {
                "detector": one.name,
                "condition": one.condition,
                "found": [str(condition) for condition in everything],
                "auc": _auc(one, everything, photos.index, encoder),
                "halves": _counts(halves),
                "named_in_halves": sum(_names(one, found) for found in halves),
                "exchanged": {name: _counts(found) for name, found in exchanged.items()},
                "claims": {
                    name: sum(bool(found) for found in each) for name, each in exchanged.items()
                },
                "repeats": repeats,
            }
        )
    return entries


def named_table(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown; none without entries."""
    if not entries:
        return []
    repeats = entries[0]["repeats"]
    lines = [
        "",
        "## What words name",
        "",
        f"{len(vocabulary())} conditions tried on 1,000 validation photos. AUC: how well the "
        "surest condition tells the photos that show what training knows little of. Halves: of "
        f"{repeats} random halves of the validation photos, in how many the condition or a synonym "
        f"is found ({'; '.join(', '.join(words) for words in SYNONYMS.values())}). Exchanged: of "
        f"{repeats} validations in which each photo has the vectors of another, drawn among all or "
        f"among {_NEIGHBOURS} of similar object count, in how many anything is found. Photos of "
        "night show fewer objects, so that the second kind of exchange leaves some night in place.",
        "",
        "| detector | found, the surest first | AUC | halves | exchanged, any | similar count |",
        "|---|---|---:|---:|---:|---:|",
    ]
    return lines + [
        f"| {entry['detector']} | {'; '.join(entry['found']) or 'nothing'} | {entry['auc']:.2f} | "
        f"{entry['named_in_halves']} of {repeats} | {entry['claims']['any photo']} of {repeats} | "
        f"{entry['claims']['similar count']} of {repeats} |"
        for entry in entries
    ]


def _on_some(one: Validated, rows: npt.NDArray[np.int64]) -> Validated:
    """The same detector on some of its photos, in ascending order."""
    place = np.full(len(one.images), -1)
    place[rows] = np.arange(len(rows))
    own = one.found.take(place[one.found.image_rows] >= 0)
    return replace(
        one,
        images=one.images.subset(rows),
        found=replace(own, image_rows=place[own.image_rows]),
        shows=one.shows[rows],
    )


def match(one: Validated) -> Matches:
    """Its detections with the labels, at IoU 0.5."""
    return match_detections(one.images, one.found, iou_thresholds=[0.5])


def make_finder(
    one: Validated, index: Any, encoder: KeptTexts, conditions: Sequence[str]
) -> ConditionFinder:
    """A finder on its photos."""
    return ConditionFinder(
        one.images,
        index,
        encoder,  # type: ignore[arg-type]
        class_names=one.images.class_names,
        conditions=conditions,
    )


def find(one: Validated, matches: Matches, index: Any, encoder: KeptTexts) -> tuple[Condition, ...]:
    """The conditions found on its photos."""
    return make_finder(one, index, encoder, vocabulary()).find(matches)


def _among_neighbours(
    objects: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Whose vectors each photo gets, among photos of similar object count."""
    ranked = np.argsort(objects + rng.random(len(objects)))
    order = np.arange(len(objects))
    for group in np.array_split(ranked, max(1, len(ranked) // _NEIGHBOURS)):
        order[group] = rng.permutation(group)
    return order


def _auc(one: Validated, found: Sequence[Condition], index: Index, encoder: KeptTexts) -> float:
    """How well the surest condition tells the photos that show the true one; 0.5 if none is."""
    if not found:
        return 0.5
    texts = [context_phrases(found[0].text), PLAIN]
    vectors = embed_queries(encoder, texts, templates=["{}"])  # type: ignore[arg-type]
    means = index.mean_vectors()[index.rows_of(one.images.ids)].astype(np.float32)
    return float(roc_auc_score(one.shows, means @ (vectors[0] - vectors[1])))


def _names(one: Validated, found: Sequence[Condition]) -> bool:
    """Whether the true condition or a synonym was found."""
    assert one.condition in CONDITIONS
    return any(condition.text in SYNONYMS[one.condition] for condition in found)


def _counts(found: Sequence[Sequence[Condition]]) -> dict[str, int]:
    return dict(Counter(condition.text for each in found for condition in each).most_common())
