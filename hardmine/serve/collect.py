"""What to label next: images of an unlabelled pool for weak classes and conditions, diverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.exports import MinedImage
from hardmine.index.base import Index
from hardmine.mining.mine import match_data
from hardmine.mining.queries import Queries, embed_queries
from hardmine.mining.trust import measure_trust
from hardmine.serve.conditions import Answers, added
from hardmine.serve.workspace import Workspace

Floats = npt.NDArray[np.float64]

_MIN_FIT = 0.05  # an image that fits less is not worth a look
MAX_BUDGET = 500
ABOUT = (
    "Images to label, chosen by hardmine. A box is the region that matched: it shows where to "
    "look, and its class is a guess."
)
_BLOCK = 64  # classes that are searched for at once
_SPARE = 5  # candidates for each image that may be chosen
_MIN_CANDIDATES = 100
_PAIRS = 2000  # of images, whose median similarity counts as unlike


@dataclass(frozen=True)
class Wish:
    """A weak class or a condition that images are wanted of.

    Attributes:
        name: Of the class, or the condition's text.
        is_class: Whether it is a class.
        need: In [0, 1]; its share of the budget.
        vector: (D,) by which the matching region is found.
        rows: (K,) images of the pool that fit best, some more than the largest budget takes.
        fit: (K,) how well, in [0, 1]. Class: the probability that a person would label the image
            with it, calibrated on the labelled images. Condition: 0 where it is not answered, else
            0.5 to 1 by rank.
        num_labelled: Labelled images that show the class or answer the condition.
        precision: Share of the class's best hits that the labels confirm; NaN for a condition, or
            where nothing is labelled.
    """

    name: str
    is_class: bool
    need: float
    vector: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    fit: Floats
    num_labelled: int
    precision: float = float("nan")


@dataclass(frozen=True)
class Wishes:
    """What images are wanted of, and where the need of classes was taken from, in words."""

    wishes: tuple[Wish, ...]
    need_from: str


@dataclass(frozen=True)
class Pick:
    """A chosen image: its row, the place of the wish it is for, its fit, and how like the rest.

    ``closeness`` to the nearest image chosen before lies in [0, 1]: 0 as unlike as two images of
    the pool are, 1 the same.
    """

    row: int
    wish: int
    fit: float
    closeness: float


@dataclass(frozen=True)
class Collected:
    """What to label next, in order.

    Attributes:
        wanted: What for.
        picks: The images.
        mined: The same with the regions that matched, for labelling tools.
    """

    wanted: Wishes
    picks: tuple[Pick, ...]
    mined: tuple[MinedImage, ...]

    def to_json(self, space: Workspace) -> dict[str, Any]:
        """As JSON values.

        Args:
            space: Has the pool.
        """
        wishes, picks = self.wanted.wishes, self.picks
        return {
            "num_pool": len(space.unlabelled_pool),
            "num_labelled": int((~space.unlabelled_pool).sum()),
            "need_from": self.wanted.need_from,
            "wishes": [
                {
                    "name": wish.name,
                    "is_class": wish.is_class,
                    "need": round(wish.need, 3),
                    "num_labelled": wish.num_labelled,
                    "precision": wish.precision,
                    "num_chosen": sum(pick.wish == place for pick in picks),
                    "expected": sum(pick.fit for pick in picks if pick.wish == place)
                    if wish.is_class and wish.num_labelled
                    else None,
                }
                for place, wish in enumerate(wishes)
            ],
            "images": [
                {
                    **space.image(pick.row, "pool"),
                    "wish": wishes[pick.wish].name,
                    "fit": round(pick.fit, 3),
                    "closeness": round(pick.closeness, 3),
                    "box": mined.box,
                }
                for pick, mined in zip(picks, self.mined, strict=True)
            ],
        }


def make_wishes(
    space: Workspace, need: Mapping[str, float], conditions: Mapping[str, float]
) -> tuple[Wish, ...]:
    """Find out which images of the pool fit what is weak, but for those that have labels.

    Args:
        space: Has the pool and the labelled images.
        need: Of classes, in [0, 1]; those with 0 are left out.
        conditions: Their need.
    """
    pool, images = space.index_of("pool"), space.images
    if images is None:
        raise InputError("collecting needs labels to compare with: give them with --ann")
    names = [name for name in images.class_names if need.get(name, 0) > 0]
    total = sum(need[name] for name in names) + sum(conditions.values())

    def best(fit: Floats, value: float) -> tuple[npt.NDArray[np.int64], Floats]:
        """The candidates of a wish: rows and fits."""
        count = _MIN_CANDIDATES + int(_SPARE * MAX_BUDGET * value / total)
        fit = np.where(space.unlabelled_pool, fit, 0.0)
        rows = np.argsort(-fit, kind="stable")[:count].astype(np.int64)
        rows = rows[fit[rows] >= _MIN_FIT]
        return rows, fit[rows]

    wishes = []
    if names:
        data = match_data(space.index, space.encoder, images, class_names=names)
        ones = np.ones(len(names))
        queries = Queries(data.class_phrases, np.arange(len(names)), ("",) * len(names), ones)
        evidence = data.evidence.of(queries)
        precision = measure_trust(evidence).precision
        labelled = data.labels.num_present()
        vectors = embed_queries(space.encoder, data.class_phrases)
        blocks = (vectors[start : start + _BLOCK] for start in range(0, len(names), _BLOCK))
        scored = (scores for block in blocks for scores in pool.scores(block))
        for row, (name, scores) in enumerate(zip(names, scored, strict=True)):
            calibration = evidence[row].calibration
            # Without a labelled image of the class nothing is known of its probability.
            fit = _by_rank(scores) if calibration is None else calibration.presence(scores)
            found = best(fit, need[name])
            count = int(labelled[row])
            wishes.append(Wish(name, True, need[name], vectors[row], *found, count, precision[row]))
    for text, value in conditions.items():
        answers = Answers.to(space, text)
        fit = _by_rank(added(pool, answers.vector, answers.plain), answers.threshold)
        count = int((answers.values[space.label_rows >= 0] >= answers.threshold).sum())
        wishes.append(Wish(text, False, value, answers.vector, *best(fit, value), count))
    return tuple(wishes)


def collect(wanted: Wishes, pool: Index, budget: int) -> Collected:
    """Choose images to label, with the regions that matched.

    Args:
        wanted: What images are wanted of.
        pool: Has the images.
        budget: Most images.
    """
    picks = choose(wanted.wishes, pool, budget)
    return Collected(wanted, picks, _as_mined(picks, wanted.wishes, pool))


def choose(wishes: Sequence[Wish], pool: Index, budget: int) -> tuple[Pick, ...]:
    """Choose images to label, in the order in which to label them.

    1. Turns: the wish with the largest need / (images chosen for it + 1) is next, so each gets its
       share of the budget by need, and so does any part of it.
    2. In a turn: the image with the largest fit × (1 - closeness to the nearest image chosen so
       far), for whatever wish. Frames of one clip are close, so one of them is chosen.
    3. A wish that no image is left for gets no more turns.

    Args:
        wishes: What images are wanted of.
        pool: Has the images.
        budget: Most images. A smaller one is the beginning of the same list.
    """
    if not any(len(wish.rows) for wish in wishes):
        return ()
    rows = np.unique(np.concatenate([wish.rows for wish in wishes]))
    means = pool.mean_vectors()
    usual, vectors = _usual_similarity(means), means[rows].astype(np.float32)
    fits = np.zeros((len(wishes), len(rows)))
    for place, wish in enumerate(wishes):
        fits[place, np.searchsorted(rows, wish.rows)] = wish.fit
    closeness = np.zeros(len(rows))
    turns = np.array([wish.need for wish in wishes], np.float64)
    counts = np.zeros(len(wishes))
    picks: list[Pick] = []
    while len(picks) < budget and turns.max(initial=0) > 0:
        turn = int((turns / (counts + 1)).argmax())
        values = fits[turn] * (1 - closeness)
        best = int(values.argmax())
        if values[best] <= 0:
            turns[turn] = 0
            continue
        counts[turn] += 1
        picks.append(Pick(int(rows[best]), turn, float(fits[turn, best]), float(closeness[best])))
        fits[:, best] = 0
        like = (vectors @ vectors[best] - usual) / max(1 - usual, 1e-6)
        closeness = np.maximum(closeness, like.clip(0, 1))
    return tuple(picks)


def _as_mined(picks: Sequence[Pick], wishes: Sequence[Wish], pool: Index) -> tuple[MinedImage, ...]:
    """Chosen images with the region that matched, for labelling tools."""
    mined = []
    for pick in picks:
        wish = wishes[pick.wish]
        _, boxes = pool.best_regions(wish.vector[None], np.array([[pick.row]]))
        left, top, right, bottom = (round(float(edge), 4) for edge in boxes[0, 0])
        mined.append(
            MinedImage(
                image_id=pool.ids[pick.row].item(),
                path=pool.paths[pick.row],
                class_name=wish.name,
                kind="hit",
                score=round(pick.fit, 4),
                box=(left, top, right, bottom),
                size=(int(pool.sizes[pick.row, 0]), int(pool.sizes[pick.row, 1])),
                weight=float("nan"),
            )
        )
    return tuple(mined)


def _usual_similarity(means: npt.NDArray[np.float16]) -> float:
    """Median similarity of two images of the pool."""
    first, second = np.random.default_rng(0).integers(0, len(means), (2, _PAIRS))
    both = means[first].astype(np.float32), means[second].astype(np.float32)
    pairs = np.einsum("pd,pd->p", *both)[first != second]
    return float(np.median(pairs)) if len(pairs) else 0.0


def _by_rank(values: npt.NDArray[np.floating], threshold: float = -np.inf) -> Floats:
    """(N,) from 0.5 to 1 by rank among the values that reach a threshold; 0 below."""
    order = np.argsort(values, kind="stable")
    order = order[np.isfinite(values[order]) & (values[order] >= threshold)]
    fit = np.zeros(len(values))
    fit[order] = np.linspace(0.5, 1.0, len(order)) if len(order) > 1 else 1.0
    return fit
