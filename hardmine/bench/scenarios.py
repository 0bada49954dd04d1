"""Data sets with one weakness each, made of generated scenes, with their indexes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.datasets import load_images
from hardmine.encoders.base import Encoder
from hardmine.index import build_index
from hardmine.index.base import Index
from hardmine.records import ImageSet
from hardmine.scenes import write_split

CLUSTERS = "agglomerative:k=50+whole"
SPLITS = ("train", "val", "test")
_RACED = ("uniform", "inverse-ap", "hardmine")
_FEW_NIGHTS = {"tail": 1.0, "contexts": {"day": 0.78, "night": 0.02, "rain": 0.1, "fog": 0.1}}
_MANY_NIGHTS = {"contexts": {"day": 0.4, "night": 0.34, "rain": 0.13, "fog": 0.13}}
_LIGHTS = ("at night", "in the rain", "in fog")


@dataclass(frozen=True)
class Weakness:
    """A way in which a training set leaves a detector weak.

    Attributes:
        about: What is weak and why, for people.
        train: How train's scenes look; arguments of ``write_split``.
        check: The same for val and test, where every class is met equally often.
        share: Of the training images that other scenarios have; draws stay as many.
        contexts: Conditions that mining may ask about, as a user would list them.
        fine: Kinds of which one colour is a class of its own, e.g. "cup": "red".
        weak_condition: Where the weakness is a condition: which one.
        strategies: Ways of drawing worth comparing here; keys of ``STRATEGIES``.
        seeds: How many seeds tell them apart; more where the weak part is a handful of objects.
    """

    about: str
    train: Mapping[str, Any] = field(default_factory=dict)
    check: Mapping[str, Any] = field(default_factory=dict)
    share: float = 1.0
    contexts: tuple[str, ...] = ()
    fine: Mapping[str, str] = field(default_factory=dict)
    weak_condition: str | None = None
    strategies: tuple[str, ...] = _RACED
    seeds: int = 5

    def images_of(self, most: int) -> int:
        """Training images, where other scenarios have so many."""
        return round(self.share * most)

    def scenes(self) -> dict[str, Any]:
        """What makes the data; with another value it is another data set."""
        return {
            "train": dict(self.train),
            "check": dict(self.check),
            "share": self.share,
            "fine": dict(self.fine),
        }


SCENARIOS: dict[str, Weakness] = {
    "long-tail": Weakness(
        "rare classes: the first is met 100 times as often as the last",
        {"tail": 100.0},
        strategies=(
            *_RACED,
            "class-aware",
            "repeat",
            "no-trust",
            "no-confusers",
            "no-taken",
            "no-budget",
            "whole",
            "class-aware-50",
            "inverse-ap-50",
            "inverse-ap-80",
            "hardmine-50",
            "hardmine-80",
        ),
    ),
    "condition": Weakness(
        "night: 2 % of train, a third of what the detector meets",
        _FEW_NIGHTS,
        _MANY_NIGHTS,
        contexts=_LIGHTS,
        weak_condition="night",
        strategies=(*_RACED, "class-aware", "no-contexts", "no-budget"),
    ),
    "confusable": Weakness(
        "one colour of eight kinds is a class of its own, easily taken for the rest of its kind",
        {"tail": 4.0},
        fine={
            "car": "red",
            "cup": "blue",
            "bird": "yellow",
            "flower": "white",
            "bicycle": "green",
            "house": "purple",
            "person": "orange",
            "umbrella": "pink",
        },
        strategies=(*_RACED, "class-aware", "told-classes", "no-confusers", "no-taken"),
        seeds=10,
    ),
    "missing-labels": Weakness(
        "40 % of train's objects have no label, and the tail is long",
        {"tail": 100.0, "missing": 0.4},
        strategies=(*_RACED, "class-aware", "told", "no-completeness", "no-taken"),
    ),
    "long-tail-small": Weakness(
        "the same long tail in a fifth of the images, each seen five times as often",
        {"tail": 100.0},
        share=0.2,
        strategies=(*_RACED, "class-aware"),
    ),
    "condition-small": Weakness(
        "night as rare, in a fifth of the images, each seen five times as often",
        _FEW_NIGHTS,
        _MANY_NIGHTS,
        share=0.2,
        contexts=_LIGHTS,
        weak_condition="night",
        strategies=(*_RACED, "class-aware"),
    ),
}


@dataclass(frozen=True)
class Scenario:
    """A weakness made real.

    Attributes:
        name: Of the weakness.
        weakness: What is weak.
        train: N labelled images, with whatever faults the labels have.
        val: What mining may look at between epochs.
        test: What nobody looks at until the end.
        conditions: (images of test,) the light and weather of each.
        index: Of train.
        val_index: Of val.
        whole_index: Of train, one vector an image; None where it was not asked for.
        told: (images of train,) factors by which one who knew the weakness might draw: how much of
            what each shows has a label, twice as much where it shows a fine class.
    """

    name: str
    weakness: Weakness
    train: ImageSet
    val: ImageSet
    test: ImageSet
    conditions: npt.NDArray[np.str_]
    index: Index
    val_index: Index
    whole_index: Index | None
    told: npt.NDArray[np.float64]


def make_scenario(
    name: str,
    folder: Path,
    encoder: Encoder,
    *,
    sizes: tuple[int, int, int] = (3000, 500, 1500),
    seed: int = 0,
    whole: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Scenario:
    """Write the scenes and build the indexes, or take those that are there.

    Args:
        name: A key of ``SCENARIOS``.
        folder: Where everything of this scenario lies.
        encoder: For the indexes.
        sizes: Images of train, val and test, where the scenario has all of them.
        seed: Names the series of scenes.
        whole: Whether to build the index of one vector an image as well.
        progress: Called with what is being made, how much is done and how much there is.
    """
    weakness = SCENARIOS[name]
    sizes = (weakness.images_of(sizes[0]), *sizes[1:])
    data = folder / "scenes"
    note = data / "scenario.json"
    settings = {"sizes": list(sizes), "seed": seed, "scenes": weakness.scenes()}
    if not (note.is_file() and json.loads(note.read_text()) == settings):
        shutil.rmtree(folder, ignore_errors=True)
        _write_scenes(data, weakness, sizes, seed, progress)
        note.write_text(json.dumps(settings))
    sets = {split: load_images(data, split=split) for split in SPLITS}
    indexes = {
        (split, clusters): build_index(
            sets[split],
            encoder,
            folder / f"{split}-{clusters.split(':')[0]}.hmx",
            clusters=clusters,
            progress=lambda state: progress("index", state.done, state.total),
        )
        for split, clusters in (
            ("train", CLUSTERS),
            ("val", CLUSTERS),
            *([("train", "whole")] if whole else []),
        )
    }
    truth = json.loads((data / "truth" / "test.json").read_text())
    light = {image["id"]: image["context"] for image in truth["images"]}
    return Scenario(
        name=name,
        weakness=weakness,
        **sets,
        conditions=np.array([light[image_id] for image_id in sets["test"].ids.tolist()]),
        index=indexes["train", CLUSTERS],
        val_index=indexes["val", CLUSTERS],
        whole_index=indexes.get(("train", "whole")),
        told=_labelled_share(data, sets["train"]) * (1 + _shows_fine(sets["train"], weakness)),
    )


def _labelled_share(data: Path, labelled: ImageSet) -> npt.NDArray[np.float64]:
    truth = load_images(data, annotations=data / "truth" / "train.json")
    shown, told = (
        np.asarray(images.class_counts.sum(axis=1)).ravel()
        for images in (truth.subset(truth.rows_of(labelled.ids)), labelled)
    )
    return np.where(shown > 0, told / np.maximum(shown, 1), 1.0)


def _shows_fine(labelled: ImageSet, weakness: Weakness) -> npt.NDArray[np.bool_]:
    first = len(labelled.class_names) - len(weakness.fine)
    return np.asarray(labelled.class_counts[:, first:].sum(axis=1)).ravel() > 0


def _write_scenes(
    data: Path,
    weakness: Weakness,
    sizes: tuple[int, int, int],
    seed: int,
    progress: Callable[[str, int, int], None],
) -> None:
    ends = np.cumsum(sizes).tolist()
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        progress("scenes", done, ends[-1])

    for split, end, count in zip(SPLITS, ends, sizes, strict=True):
        look = weakness.train if split == "train" else {"tail": 1.0, **weakness.check}
        written = write_split(
            data, split, range(end - count, end), seed=seed, on_image=one_more, **look
        )
        for path in {written.annotations, written.truth}:
            _split_kinds(path, weakness.fine)


def _split_kinds(path: Path, fine: Mapping[str, str]) -> None:
    """Make one colour of some kinds a class of its own, e.g. "red car" beside "car"."""
    content = json.loads(path.read_text())
    categories = content["categories"]
    first = len(categories) + 1
    rows = {entry["name"]: entry["id"] for entry in categories}
    own = {(rows[kind], color): first + place for place, (kind, color) in enumerate(fine.items())}
    for (kind_id, color), category_id in own.items():
        kind = categories[kind_id - 1]
        names = [f"{color} {name}" for name in kind["synonyms"]]
        categories.append({"id": category_id, "name": names[0], "synonyms": names})
    for label in content["annotations"]:
        look = (label["category_id"], label["attributes"]["color"])
        label["category_id"] = own.get(look, look[0])
    path.write_text(json.dumps(content))
