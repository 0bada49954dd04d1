"""The whole flow on generated scenes, step by step; another part joins by adding to ``STEPS``."""

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
from hardmine.datasets.scenes import NAMES, write_scenes
from hardmine.encoders import Encoder, load_encoder
from hardmine.errors import InputError
from hardmine.index import build_index
from hardmine.index.base import Index
from hardmine.records import Hits, ImageSet
from hardmine.report.search import search_page

HITS = 12


class Question(NamedTuple):
    """A query and what makes a scene a right answer."""

    text: str
    kind: str
    color: str | None = None
    condition: str | None = None


QUESTIONS = (
    Question("a cat", "cat"),
    Question("a red car", "car", color="red"),
    Question("a bicycle at night", "bicycle", condition="night"),
    Question("an umbrella in the rain", "umbrella", condition="rain"),
    Question("a traffic light", "traffic light"),
    Question("a strawberry", "strawberry"),
)


@dataclass
class Demo:
    """What the steps hand on to each other.

    Attributes:
        folder: Where everything is written.
        num_images: Scenes, train and val together.
        seed: Of the scenes.
        progress: Called with what is done and how much there is, by steps that take a while.
    """

    folder: Path
    num_images: int = 1000
    seed: int = 0
    progress: Callable[[int, int], None] = lambda done, total: None
    images: ImageSet | None = field(default=None, init=False)
    encoder: Encoder | None = field(default=None, init=False)
    index: Index | None = field(default=None, init=False)
    hits: Hits | None = field(default=None, init=False)
    pages: list[Path] = field(default_factory=list, init=False)


class Step(NamedTuple):
    """One step: its title, and what does it and says in a line what came of it."""

    title: str
    run: Callable[[Demo], str]


def make_scenes(demo: Demo) -> str:
    """Write the scenes, or take those that an earlier demo wrote."""
    settings = {"images": demo.num_images, "seed": demo.seed}
    out, unfinished = demo.folder / "scenes", demo.folder / "scenes.part"
    note = out / "demo.json"
    if unfinished.exists():
        shutil.rmtree(unfinished)  # an earlier demo was broken off
    there = demo.folder.exists() and any(demo.folder.iterdir())
    if there and not (note.is_file() and json.loads(note.read_text()) == settings):
        raise InputError(
            f"{demo.folder} holds something else than this demo; remove it or give another "
            "folder with --out"
        )
    if not there:
        done = itertools.count(1)
        write_scenes(
            unfinished,
            num_images=demo.num_images,
            seed=demo.seed,
            on_image=lambda: demo.progress(next(done), demo.num_images),
        )
        (unfinished / note.name).write_text(json.dumps(settings) + "\n")
        unfinished.rename(out)
    demo.images = load_images(out, split="train")
    labels = 0 if demo.images.instances is None else len(demo.images.instances)
    return f"{len(demo.images)} training images, {labels} labelled objects of {len(NAMES)} kinds"


def make_index(demo: Demo) -> str:
    """Embed and cluster every training image with the tiny CLIP."""
    assert demo.images is not None
    demo.encoder = load_encoder("tiny")
    demo.index = build_index(
        demo.images,
        demo.encoder,
        demo.folder / "train.hmx",
        clusters="agglomerative:k=50+whole",
        progress=lambda state: demo.progress(state.done, state.total),
    )
    return f"{len(demo.index)} images, regions: {demo.index.clusters}"


def search(demo: Demo) -> str:
    """Ask the index, and count the answers that are right by the truth about the scenes."""
    assert demo.index is not None
    assert demo.encoder is not None
    vectors = demo.encoder.encode_texts([question.text for question in QUESTIONS])
    demo.hits = demo.index.search(vectors.numpy(), HITS)
    truth = json.loads((demo.folder / "scenes" / "truth" / "train.json").read_text())
    lines = []
    for place, question in enumerate(QUESTIONS):
        right = right_answers(question, truth)
        found = demo.hits.image_rows[place][demo.hits.found[place]]
        good = int(np.isin(demo.index.ids[found], right).sum())
        best = min(HITS, len(right))
        lines.append(f"{question.text}: {good} of {best}")
    return "; ".join(lines)


def right_answers(question: Question, truth: dict[str, Any]) -> npt.NDArray[np.int64]:
    """Ids of the images that show what a question asks for."""
    light = {entry["id"]: entry["condition"] for entry in truth["images"]}
    shown = {
        thing["image_id"]
        for thing in truth["annotations"]
        if NAMES[thing["category_id"] - 1] == question.kind
        and question.color in (None, thing["attributes"]["color"])
        and question.condition in (None, light[thing["image_id"]])
    }
    return np.array(sorted(shown), np.int64)


def write_page(demo: Demo) -> str:
    """Write a page with the answers and the region of each that matched."""
    assert demo.index is not None
    assert demo.hits is not None
    about = [("images", f"{len(demo.index):,}"), ("encoder", "tiny")]
    about.append(("regions", demo.index.clusters))
    page = demo.folder / "search.html"
    texts = [question.text for question in QUESTIONS]
    page.write_text(search_page(demo.index, texts, demo.hits, about=about), encoding="utf-8")
    demo.pages.append(page)
    return str(page)


STEPS: tuple[Step, ...] = (
    Step("draw scenes", make_scenes),
    Step("build the index", make_index),
    Step("search", search),
    Step("write a page", write_page),
)
