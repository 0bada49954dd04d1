"""The scenarios: data sets of generated scenes with one weakness each, and their indexes."""

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
from hardmine.encoders import Encoder
from hardmine.index import build_index
from hardmine.index.base import Index
from hardmine.records import ImageSet
from hardmine.scenes import write_split

CLUSTERS = "agglomerative:k=50+whole"
SPLITS = ("train", "val", "test")
_EVERYWHERE = ("uniform", "inverse-ap", "hardmine", "hardmine-class-aware")
_LATE = (*_EVERYWHERE, "hardmine-late", "no-look", "class-aware")
_AT_NIGHT = (*_LATE, "class-aware-late")
# By default mining is in the last quarter alone where images are seen often.
_OFTEN = (
    *("uniform", "inverse-ap", "class-aware", "class-aware-late"),
    *("hardmine", "hardmine-throughout", "no-look"),
)
_RARE_NIGHT = {"tail": 1.0, "contexts": {"day": 0.78, "night": 0.02, "rain": 0.1, "fog": 0.1}}
_COMMON_NIGHT = {"contexts": {"day": 0.4, "night": 0.34, "rain": 0.13, "fog": 0.13}}
_CONTEXTS = ("at night", "in the rain", "in fog")


@dataclass(frozen=True)
class ScenarioSpec:
    """What a scenario's data look like, and what to compare on them.

    Attributes:
        about: What is weak and why, for people.
        train: How the training scenes look; arguments of ``write_split``.
        evaluation: The same for val and test. There all classes are equally frequent by default.
        train_share: Training images as a share of those of the other scenarios. The number of
            draws stays the same.
        times_epochs: How many times as many epochs each strategy gets as in other scenarios.
        contexts: The contexts that a user would give to ``HardMiner``.
        fine_classes: Object kinds of which one colour is a class of its own, e.g. "cup": "blue".
        weak_context: The light or weather that is weak; None if classes are weak instead.
        strategies: Strategies to compare by default; keys of ``STRATEGIES``.
        seeds: Seeds by default. More where the weak part has few objects.
    """

    about: str
    train: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    train_share: float = 1.0
    times_epochs: int = 1
    contexts: tuple[str, ...] = ()
    fine_classes: Mapping[str, str] = field(default_factory=dict)
    weak_context: str | None = None
    strategies: tuple[str, ...] = _EVERYWHERE
    seeds: int = 5

    def num_train(self, full: int) -> int:
        """Number of training images, given that of the other scenarios."""
        return round(self.train_share * full)

    def data_settings(self) -> dict[str, Any]:
        """Settings that the data depend on, as plain values."""
        return {
            "train": dict(self.train),
            "evaluation": dict(self.evaluation),
            "train_share": self.train_share,
            "fine_classes": dict(self.fine_classes),
        }


SCENARIOS: dict[str, ScenarioSpec] = {
    "long-tail": ScenarioSpec(
        "rare classes: the most frequent has 100 times as many objects as the rarest",
        {"tail": 100.0},
        strategies=(
            *_LATE,
            "repeat",
            "no-mistaken",
            "whole-image",
            "class-aware-50",
            "inverse-ap-50",
            "inverse-ap-80",
            "hardmine-50",
            "hardmine-80",
        ),
    ),
    "night": ScenarioSpec(
        "dark images: 2 % of the training images, a third of val and test",
        _RARE_NIGHT,
        _COMMON_NIGHT,
        contexts=_CONTEXTS,
        weak_context="night",
        strategies=(*_AT_NIGHT, "auto", "no-contexts"),
    ),
    "confusable": ScenarioSpec(
        "fine classes: one colour of eight kinds is a class of its own, easily mistaken for the "
        "rest of its kind",
        {"tail": 4.0},
        fine_classes={
            "car": "red",
            "cup": "blue",
            "bird": "yellow",
            "flower": "white",
            "bicycle": "green",
            "house": "purple",
            "person": "orange",
            "umbrella": "pink",
        },
        strategies=(*_EVERYWHERE, "class-aware", "oracle-classes", "no-mistaken"),
        seeds=10,
    ),
    "missing-labels": ScenarioSpec(
        "40 % of the training objects have no label, and the tail is long",
        {"tail": 100.0, "missing": 0.4},
        strategies=(
            *_EVERYWHERE,
            "class-aware",
            "oracle-labels",
            "no-mistaken",
        ),
    ),
    "long-tail-small": ScenarioSpec(
        "the same long tail in a fifth of the images, each drawn five times as often",
        {"tail": 100.0},
        train_share=0.2,
        strategies=_OFTEN,
    ),
    "night-small": ScenarioSpec(
        "night as rare, in a fifth of the images, each drawn five times as often",
        _RARE_NIGHT,
        _COMMON_NIGHT,
        train_share=0.2,
        contexts=_CONTEXTS,
        weak_context="night",
        strategies=_OFTEN,
    ),
    "long-tail-long": ScenarioSpec(
        "a long schedule: the same long tail in a tenth of the images, each seen 57 times",
        {"tail": 100.0},
        train_share=0.1,
        times_epochs=3,
        strategies=_OFTEN,
    ),
    "night-long": ScenarioSpec(
        "a long schedule: night as rare, in a tenth of the images, each seen 57 times",
        _RARE_NIGHT,
        _COMMON_NIGHT,
        train_share=0.1,
        times_epochs=3,
        contexts=_CONTEXTS,
        weak_context="night",
        strategies=_OFTEN,
    ),
}


@dataclass(frozen=True)
class Scenario:
    """The data of a scenario.

    Attributes:
        name: A key of ``SCENARIOS``.
        spec: What the data look like.
        train: N labelled images, with all faults that the labels have.
        val: Images that strategies may be validated on between epochs.
        test: Images that are used once, at the end.
        test_contexts: (images of test,) light and weather of each.
        index: Index of train.
        val_index: Index of val.
        whole_image_index: Index of train with one vector an image; None unless it was asked for.
        whole_image_val_index: The same of val.
        oracle_factors: (N,) weight factors that use knowledge which no sampler has. An image gets
            the share of its objects that have a label, and twice that if it shows a fine class.
    """

    name: str
    spec: ScenarioSpec
    train: ImageSet
    val: ImageSet
    test: ImageSet
    test_contexts: npt.NDArray[np.str_]
    index: Index
    val_index: Index
    whole_image_index: Index | None
    whole_image_val_index: Index | None
    oracle_factors: npt.NDArray[np.float64]


def make_scenario(
    name: str,
    folder: Path,
    encoder: Encoder,
    *,
    sizes: tuple[int, int, int] = (3000, 500, 1500),
    seed: int = 0,
    whole_image: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Scenario:
    """Write the scenes and build the indexes, or load those that an earlier call made.

    Args:
        name: A key of ``SCENARIOS``.
        folder: Of this scenario alone. Emptied if it holds scenes with other settings.
        encoder: Embeds the images.
        sizes: Images of train, val and test; see ``ScenarioSpec.train_share``.
        seed: Of the scenes.
        whole_image: Whether to build the index with one vector an image as well.
        progress: Called with "scenes" or "index", the number done and the total.
    """
    spec = SCENARIOS[name]
    sizes = (spec.num_train(sizes[0]), *sizes[1:])
    data = folder / "scenes"
    settings_file = data / "scenario.json"
    settings = {"sizes": list(sizes), "seed": seed, "data": spec.data_settings()}
    if not (settings_file.is_file() and json.loads(settings_file.read_text()) == settings):
        shutil.rmtree(folder, ignore_errors=True)
        _write_scenes(data, spec, sizes, seed, progress)
        settings_file.write_text(json.dumps(settings))
    sets = {split: load_images(data, split=split) for split in SPLITS}

    def index_of(split: str, clusters: str) -> Index:
        return build_index(
            sets[split],
            encoder,
            folder / f"{split}-{clusters.split(':')[0]}.hmx",
            clusters=clusters,
            progress=lambda state: progress("index", state.done, state.total),
        )

    truth = json.loads((data / "truth" / "test.json").read_text())
    context = {image["id"]: image["context"] for image in truth["images"]}
    labelled, fine = _labelled_share(data, sets["train"]), _shows_fine_class(sets["train"], spec)
    return Scenario(
        name=name,
        spec=spec,
        **sets,
        test_contexts=np.array([context[image_id] for image_id in sets["test"].ids.tolist()]),
        index=index_of("train", CLUSTERS),
        val_index=index_of("val", CLUSTERS),
        whole_image_index=index_of("train", "whole") if whole_image else None,
        whole_image_val_index=index_of("val", "whole") if whole_image else None,
        oracle_factors=labelled * (1 + fine),
    )


def _labelled_share(data: Path, images: ImageSet) -> npt.NDArray[np.float64]:
    """(N,) share of each image's objects that have a label; 1 where it shows none."""
    truth = load_images(data, annotations=data / "truth" / "train.json")
    shown, labelled = (
        np.asarray(image_set.class_counts.sum(axis=1)).ravel()
        for image_set in (truth.subset(truth.rows_of(images.ids)), images)
    )
    return np.where(shown > 0, labelled / np.maximum(shown, 1), 1.0)


def _shows_fine_class(images: ImageSet, spec: ScenarioSpec) -> npt.NDArray[np.bool_]:
    """(N,) whether an image has a label of a fine class; these come last."""
    first = len(images.class_names) - len(spec.fine_classes)
    return np.asarray(images.class_counts[:, first:].sum(axis=1)).ravel() > 0


def _write_scenes(
    data: Path,
    spec: ScenarioSpec,
    sizes: tuple[int, int, int],
    seed: int,
    progress: Callable[[str, int, int], None],
) -> None:
    ends = np.cumsum(sizes).tolist()
    done = 0

    def count_image() -> None:
        nonlocal done
        done += 1
        progress("scenes", done, ends[-1])

    for split, end, count in zip(SPLITS, ends, sizes, strict=True):
        options = spec.train if split == "train" else {"tail": 1.0, **spec.evaluation}
        written = write_split(
            data, split, range(end - count, end), seed=seed, on_image=count_image, **options
        )
        for path in {written.annotations, written.truth}:
            _add_fine_classes(path, spec.fine_classes)


def _add_fine_classes(path: Path, fine_classes: Mapping[str, str]) -> None:
    """Make one colour of some kinds a class of its own, e.g. "red car" beside "car"."""
    content = json.loads(path.read_text())
    categories = content["categories"]
    first = len(categories) + 1
    kind_ids = {entry["name"]: entry["id"] for entry in categories}
    fine_ids = {
        (kind_ids[kind], color): first + place
        for place, (kind, color) in enumerate(fine_classes.items())
    }
    for (kind_id, color), category_id in fine_ids.items():
        kind = categories[kind_id - 1]
        names = [f"{color} {name}" for name in kind["synonyms"]]
        categories.append({"id": category_id, "name": names[0], "synonyms": names})
    for annotation in content["annotations"]:
        kind_and_color = (annotation["category_id"], annotation["attributes"]["color"])
        annotation["category_id"] = fine_ids.get(kind_and_color, kind_and_color[0])
    path.write_text(json.dumps(content))
