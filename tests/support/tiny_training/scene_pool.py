"""Training images of the tiny CLIP: scenes on disk, views cut from them, the claims each shows."""

from __future__ import annotations

import itertools
import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from hardmine.scenes.captions import Caption, Claim, Mention
from hardmine.scenes.compose import generate_scene
from hardmine.scenes.contexts import CONTEXTS
from hardmine.scenes.kinds import KINDS, NAMES
from hardmine.scenes.places import PLACES
from hardmine.scenes.scene import size_name
from tiny_training.recipe import POOL_TAIL, Phase

SCENE_SIDE = 224
CLAIMS: tuple[Claim, ...] = (
    *(("kind", kind) for kind in NAMES),
    *(("color", kind.name, color) for kind in KINDS for color in kind.colors),
    *(("pattern", kind.name, name) for kind in KINDS for name in ("striped", "spotted")),
    *(("size", kind.name, name) for kind in KINDS for name in ("small", "large")),
    *(("place", place) for place in PLACES),
    *(("context", context) for context in CONTEXTS),
)
_CLAIM_ROWS = {claim: row for row, claim in enumerate(CLAIMS)}


class View(NamedTuple):
    """An image with the claims that are surely true of it and those that are surely false.

    Attributes:
        image: (side, side, 3) uint8.
        mentions: Objects that are surely visible.
        place: The scene's place, or "" where too little of the scene is visible.
        context: The scene's context.
        present: (F,) bool, in the order of ``CLAIMS``.
        absent: (F,) bool; a claim that is neither present nor absent is unknown.
    """

    image: npt.NDArray[np.uint8]
    mentions: tuple[Mention, ...]
    place: str
    context: str
    present: npt.NDArray[np.bool_]
    absent: npt.NDArray[np.bool_]


def _write_share(work: str, seed: int, first: int, last: int) -> None:
    images = np.lib.format.open_memmap(Path(work) / "images.npy", mode="r+")
    with (Path(work) / f"facts-{first:07d}.jsonl").open("w") as facts:
        for index in range(first, last):
            scene = generate_scene(seed, index, size=SCENE_SIDE, tail=POOL_TAIL)
            images[index] = scene.image
            things = [
                [thing.kind, thing.color, thing.pattern, *thing.box] for thing in scene.objects
            ]
            facts.write(json.dumps([scene.place, scene.context, things]) + "\n")
    images.flush()


class ScenePool:
    """Scenes on disk, from which views are cut: a whole scene, a part of one, or one object.

    Args:
        work: Folder of the pool; created and filled if it does not exist.
        seed: Seed of the scenes.
        count: Number of scenes.
        processes: Number of processes that draw the scenes.
    """

    def __init__(self, work: Path, *, seed: int, count: int, processes: int = 2) -> None:
        if not (work / "done").exists():
            self._fill(work, seed, count, processes)
        self._images = np.load(work / "images.npy", mmap_mode="r")
        self._facts: list[Any] = []
        for path in sorted(work.glob("facts-*.jsonl")):
            self._facts += [json.loads(line) for line in path.read_text().splitlines()]
        assert len(self._facts) == len(self._images)

    @staticmethod
    def _fill(work: Path, seed: int, count: int, processes: int) -> None:
        work.mkdir(parents=True, exist_ok=True)
        shape = (count, SCENE_SIDE, SCENE_SIDE, 3)
        np.lib.format.open_memmap(work / "images.npy", "w+", np.uint8, shape)
        edges = np.linspace(0, count, processes + 1).astype(int).tolist()
        shares = [(str(work), seed, first, last) for first, last in itertools.pairwise(edges)]
        if processes == 1:
            _write_share(*shares[0])
        else:
            with multiprocessing.get_context("spawn").Pool(processes) as pool:
                pool.starmap(_write_share, shares)
        (work / "done").touch()

    def __len__(self) -> int:
        return len(self._facts)

    def view(self, row: int, phase: Phase, rng: np.random.Generator) -> View:
        """Cut a square view from a scene and resize it to the phase's size."""
        place, context, things = self._facts[row]
        boxes = np.array([thing[3:] for thing in things], np.float64).reshape(-1, 4)
        window = _choose_window(boxes, phase, rng)
        # Read only the rows and columns that the view needs, typically a tenth of the bytes.
        left, top = np.floor(window[:2]).astype(int)
        right, bottom = np.ceil(window[2:]).astype(int)
        cut = Image.fromarray(np.ascontiguousarray(self._images[row, top:bottom, left:right]))
        within = window - (left, top, left, top)
        pixels = cut.resize(
            (phase.side, phase.side), Image.Resampling.BILINEAR, box=tuple(within.tolist())
        )
        return _make_view(np.asarray(pixels), window, boxes, things, place, context)


def _choose_window(
    boxes: npt.NDArray[np.float64], phase: Phase, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Box of a view (xyxy): the whole scene, a random part of it, or one object's surroundings."""
    drawn = rng.random()
    if drawn < phase.whole:
        return np.array([0.0, 0.0, SCENE_SIDE, SCENE_SIDE])
    if drawn < phase.whole + phase.part or not len(boxes):
        side = float(np.exp(rng.uniform(np.log(80), np.log(SCENE_SIDE))))
        center = rng.uniform(side / 2, SCENE_SIDE - side / 2, 2)
    else:
        box = boxes[int(rng.integers(len(boxes)))]
        extent = float(max(box[2] - box[0], box[3] - box[1]))
        side = float(
            np.clip(extent * np.exp(rng.uniform(np.log(1.1), np.log(phase.reach))), 36, SCENE_SIDE)
        )
        slack = max(side - extent, 0) / 2
        center = (box[:2] + box[2:]) / 2 + rng.uniform(-slack, slack, 2)
        center = center.clip(side / 2, SCENE_SIDE - side / 2)
    return np.concatenate([center - side / 2, center + side / 2])


def _make_view(
    image: npt.NDArray[np.uint8],
    window: npt.NDArray[np.float64],
    boxes: npt.NDArray[np.float64],
    things: list[Any],
    place: str,
    context: str,
) -> View:
    """Derive the claims of a window of a scene from the objects in it."""
    width = float(window[2] - window[0])
    corner = np.minimum(boxes[:, 2:], window[2:]) - np.maximum(boxes[:, :2], window[:2])
    overlap = corner.clip(0)
    share = overlap.prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)
    extent = overlap.max(1, initial=0) / width
    seen = (share > 0.5) & (extent * len(image) >= 10)
    hidden = share < 0.12
    present, maybe = np.zeros(len(CLAIMS), bool), np.zeros(len(CLAIMS), bool)
    mentions = []
    for row in np.flatnonzero(~hidden).tolist():
        kind, color, pattern = things[row][:3]
        mention = Mention(kind, color, pattern, size_name(float(extent[row])))
        claims = _claims_of(mention)
        (present if seen[row] else maybe)[claims] = True
        if seen[row]:
            mentions.append(mention)
            # Of a medium object, neither "small" nor "large" is surely false.
            if mention.size == "medium":
                maybe[[_CLAIM_ROWS["size", kind, size] for size in ("small", "large")]] = True
    present[_CLAIM_ROWS["context", context]] = True
    wide = width > 0.55 * SCENE_SIDE
    if wide:
        present[_CLAIM_ROWS["place", place]] = True
    else:
        maybe[[_CLAIM_ROWS["place", name] for name in PLACES]] = True
    shown = place if wide else ""
    return View(image, tuple(mentions), shown, context, present, ~present & ~maybe)


def _claims_of(mention: Mention) -> list[int]:
    kind = mention.kind
    rows = [_CLAIM_ROWS["kind", kind], _CLAIM_ROWS["color", kind, mention.color]]
    if mention.pattern != "plain":
        rows.append(_CLAIM_ROWS["pattern", kind, mention.pattern])
    if mention.size != "medium":
        size = "small" if mention.size == "tiny" else mention.size
        rows.append(_CLAIM_ROWS["size", kind, size])
    return rows


def truth_table(
    captions: Sequence[Caption], views: Sequence[View]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which captions are surely true and surely false of which views: two (T, B) bool arrays.

    A caption is true of every view that shows all its claims, not only of the view it was written
    for: many views of a batch show the same things, and treating them as negatives would be wrong.
    """
    if not captions:
        empty = np.zeros((0, len(views)), bool)
        return empty, empty
    asserts = np.zeros((len(captions), len(CLAIMS)), np.float32)
    for row, caption in enumerate(captions):
        asserts[row, [_CLAIM_ROWS[claim] for claim in caption.claims]] = 1
    present = np.stack([view.present for view in views]).astype(np.float32)
    absent = np.stack([view.absent for view in views]).astype(np.float32)
    return asserts @ present.T == asserts.sum(1, keepdims=True), asserts @ absent.T > 0
