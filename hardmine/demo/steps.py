"""The steps of the demo, in order; ``STEPS`` at the end lists them."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hardmine.datasets import load_images
from hardmine.demo.training import CONTEXTS, TrainingResult, train_with_mining
from hardmine.encoders import Encoder, load_encoder
from hardmine.errors import InputError
from hardmine.index import build_index
from hardmine.index.base import Index
from hardmine.records import Hits, ImageSet
from hardmine.report.gap_page import gap_page
from hardmine.report.make import make_report
from hardmine.report.rounds_page import rounds_page
from hardmine.report.run_summary import summarize_run
from hardmine.report.search_page import search_page
from hardmine.scenes import NAMES, write_scenes

NUM_HITS = 12


class Question(NamedTuple):
    """A query, and what a scene must show to be a right answer.

    Attributes:
        text: The query.
        kind: Kind of object, one of ``NAMES``.
        color: Of the object; None for any.
        context: Light or weather of the scene; None for any.
    """

    text: str
    kind: str
    color: str | None = None
    context: str | None = None


QUESTIONS = (
    Question("a cat", "cat"),
    Question("a red car", "car", color="red"),
    Question("a bicycle at night", "bicycle", context="night"),
    Question("an umbrella in the rain", "umbrella", context="rain"),
    Question("a traffic light", "traffic light"),
    Question("a strawberry", "strawberry"),
)


@dataclass
class Demo:
    """Settings of the demo, and what each step hands on to the next.

    Attributes:
        folder: Where everything is written.
        num_images: Scenes, train and val together.
        seed: Of the scenes and of the training.
        progress: Called by slow steps with the amount done and the total.
        images: Training images.
        val: Validation images.
        encoder: Embeds images and texts.
        index: Of the training images.
        val_index: Of the validation images.
        hits: Of each of ``QUESTIONS``.
        trained: Result of the training.
        pages: HTML files written so far.
    """

    folder: Path
    num_images: int = 3000
    seed: int = 0
    progress: Callable[[int, int], None] = lambda done, total: None
    images: ImageSet | None = field(default=None, init=False)
    val: ImageSet | None = field(default=None, init=False)
    encoder: Encoder | None = field(default=None, init=False)
    index: Index | None = field(default=None, init=False)
    val_index: Index | None = field(default=None, init=False)
    hits: Hits | None = field(default=None, init=False)
    trained: TrainingResult | None = field(default=None, init=False)
    pages: list[Path] = field(default_factory=list, init=False)


class Step(NamedTuple):
    """One step: its title, and a function that does it and returns its outcome as text."""

    title: str
    run: Callable[[Demo], str]


def make_scenes(demo: Demo) -> str:
    """Write the scenes, or load those that an earlier demo wrote."""
    settings = {"images": demo.num_images, "seed": demo.seed}
    scenes, unfinished = demo.folder / "scenes", demo.folder / "scenes.part"
    settings_file = scenes / "demo.json"
    if unfinished.exists():
        shutil.rmtree(unfinished)  # an earlier demo was interrupted
    occupied = demo.folder.exists() and any(demo.folder.iterdir())
    if not occupied:
        done = itertools.count(1)
        write_scenes(
            unfinished,
            num_images=demo.num_images,
            seed=demo.seed,
            on_image=lambda: demo.progress(next(done), demo.num_images),
        )
        (unfinished / settings_file.name).write_text(json.dumps(settings) + "\n")
        unfinished.rename(scenes)
    elif not (settings_file.is_file() and json.loads(settings_file.read_text()) == settings):
        raise InputError(
            f"{demo.folder} holds other files, or a demo with another number of images or seed; "
            "remove it or give another folder with --out"
        )
    demo.images, demo.val = load_images(scenes, split="train"), load_images(scenes, split="val")
    labels = 0 if demo.images.instances is None else len(demo.images.instances)
    return f"{len(demo.images)} training images, {labels} labelled objects of {len(NAMES)} kinds"


def make_index(demo: Demo) -> str:
    """Embed every image with the tiny CLIP and cluster it into regions."""
    assert demo.images is not None
    assert demo.val is not None
    encoder = demo.encoder = load_encoder("tiny")
    num_train, total = len(demo.images), len(demo.images) + len(demo.val)

    def build(images: ImageSet, name: str, num_before: int) -> Index:
        return build_index(
            images,
            encoder,
            demo.folder / name,
            clusters="agglomerative:k=50+whole",
            progress=lambda state: demo.progress(num_before + state.done, total),
        )

    demo.index = build(demo.images, "train.hmx", 0)
    demo.val_index = build(demo.val, "val.hmx", num_train)
    return f"{len(demo.index)} images, regions: {demo.index.clusters}"


def search(demo: Demo) -> str:
    """Search the index, and count the hits that are right by the true content of the scenes."""
    assert demo.index is not None
    assert demo.encoder is not None
    vectors = demo.encoder.encode_texts([question.text for question in QUESTIONS])
    demo.hits = demo.index.search(vectors.numpy(), NUM_HITS)
    truth = json.loads((demo.folder / "scenes" / "truth" / "train.json").read_text())
    outcomes = []
    for row, question in enumerate(QUESTIONS):
        right = right_answers(question, truth)
        found = demo.hits.image_rows[row][demo.hits.found[row]]
        num_right = int(np.isin(demo.index.ids[found], right).sum())
        outcomes.append(f"{question.text}: {num_right} of {min(NUM_HITS, len(right))}")
    return "; ".join(outcomes)


def right_answers(question: Question, truth: dict[str, Any]) -> npt.NDArray[np.int64]:
    """Ids of the images that show what a question asks for.

    Args:
        question: The query and its requirements.
        truth: Content of the scenes' truth file.
    """
    contexts = {entry["id"]: entry["context"] for entry in truth["images"]}
    right = {
        thing["image_id"]
        for thing in truth["annotations"]
        if NAMES[thing["category_id"] - 1] == question.kind
        and question.color in (None, thing["attributes"]["color"])
        and question.context in (None, contexts[thing["image_id"]])
    }
    return np.array(sorted(right), np.int64)


def write_search(demo: Demo) -> str:
    """Write a page with the hits and the region of each that matched."""
    assert demo.index is not None
    assert demo.hits is not None
    about = [("images", f"{len(demo.index):,}"), ("encoder", "tiny")]
    about.append(("regions", demo.index.clusters))
    texts = [question.text for question in QUESTIONS]
    return _write_page(demo, "search.html", search_page(demo.index, texts, demo.hits, about=about))


def train(demo: Demo) -> str:
    """Train a small detector with mining between epochs, and a twin without."""
    assert demo.images is not None
    assert demo.val is not None
    assert demo.index is not None
    assert demo.val_index is not None
    assert demo.encoder is not None
    demo.trained = train_with_mining(
        demo.images,
        demo.val,
        demo.index,
        demo.val_index,
        demo.encoder,
        rounds=demo.folder / "rounds.jsonl",
        seed=demo.seed,
        progress=demo.progress,
    )
    return "\n".join(summary(demo.trained))


def summary(trained: TrainingResult) -> list[str]:
    """One line each on what was weak, searched for, found and drawn, and on the gain in AP."""
    first, last = trained.rounds[0], trained.rounds[-1]
    names = np.array(first.class_names)
    weak = np.isin(names, first.weak)
    contexts = sorted({query.context for query in last.queries if query.context})
    counts = ", ".join(f"{count} {kind}" for kind, count in last.counts().items() if count)
    draws = last.draws
    assert draws is not None

    return [
        f"{len(trained.rounds)} rounds",
        f"   weak:    {len(first.weak)} of {len(names)} classes, "
        f"the weakest {', '.join(first.weak[:4])}",
        f"   queries: {len(last.queries)}"
        + (f", some of them for classes {', '.join(contexts)}" if contexts else ""),
        f"   found:   {counts}",
        f"   drawn:   {draws.num_raised} of {draws.num_images} images more often; "
        f"{100 * draws.moved_share:.0f} % of the draws moved",
        *_comparison(trained, weak),
    ]


def _comparison(trained: TrainingResult, weak: npt.NDArray[np.bool_]) -> list[str]:
    """The mean AP of the weak classes and of the others: before, without and with mining."""
    stages = {
        "before mining": trained.ap_before,
        "without mining": trained.ap_plain,
        "with mining": trained.ap_mined,
    }
    lines = ["   gain:    mean AP of the weak classes, and of the others"]
    for name, ap in stages.items():
        parts = [
            100 * float(np.nanmean(ap[classes])) if classes.any() else 0.0
            for classes in (weak, ~weak)
        ]
        bar = "█" * round(parts[0] / 2)
        lines.append(f"            {name:<15}{parts[0]:5.1f} {bar:<26}{parts[1]:5.1f}")
    return [
        *lines,
        "   this is one seed and minutes of training; `hardmine bench training` measures the gain",
    ]


def write_report(demo: Demo) -> str:
    """Write the report on the mined detector's classes."""
    assert demo.trained is not None
    made = make_report(
        title="the demo's detector",
        detections=demo.trained.detections,
        val=demo.val,
        train=demo.images,
        index=demo.index,
        val_index=demo.val_index,
        encoder=demo.encoder,
        slices=[f"a photo {context}" for context in CONTEXTS],
    )
    assert demo.index is not None
    assert demo.val_index is not None
    page = gap_page(made, root=demo.index.root, val_root=demo.val_index.root)
    return _write_page(demo, "report.html", page)


def write_rounds(demo: Demo) -> str:
    """Write the page on the rounds of mining."""
    assert demo.trained is not None
    return _write_page(demo, "rounds.html", rounds_page(summarize_run(demo.trained.rounds)))


def _write_page(demo: Demo, name: str, page: str) -> str:
    path = demo.folder / name
    path.write_text(page, encoding="utf-8")
    demo.pages.append(path)
    return str(path)


STEPS: tuple[Step, ...] = (
    Step("generate scenes", make_scenes),
    Step("build the index", make_index),
    Step("search", search),
    Step("write the search page", write_search),
    Step("train a detector", train),
    Step("write the report", write_report),
    Step("write the rounds", write_rounds),
)
