"""Make the pictures of README and docs from generated scenes: ``make pictures``.

The scenes, the index, the hits and the weights are real. AP by class is assumed: low where training
shows few objects, as it usually is, and for bicycles; no detector is trained here.

The notebook is run too, and kept with what it printed and drew.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import numpy as np
import numpy.typing as npt
from nbclient import NotebookClient
from PIL import Image

import hardmine
from hardmine.clusters import cluster, parse_spec
from hardmine.datasets import open_image
from hardmine.history import Round
from hardmine.index.base import Index
from hardmine.mining.targets import CONFUSER, HARD, POSITIVE, SUSPECT
from hardmine.records import ImageSet
from hardmine.report.regions import draw_regions
from hardmine.scenes import write_scenes

mpl.use("agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parent / "images"
NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"
QUERY = "a bicycle at night"
REGIONS_QUERY = "a red car"
DARK, GREY, GREEN, AMBER = "#1d1d1b", "#b9b8b2", "#0b6e5e", "#d9822b"
SHOWN = 6


def main() -> None:
    """Write scenes to a scratch folder, mine once, draw."""
    FOLDER.mkdir(exist_ok=True)
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    with tempfile.TemporaryDirectory() as scratch:
        write_scenes(scratch, num_images=450, val_share=0.01, missing=0.15)
        images = hardmine.load_images(scratch, split="train")
        encoder = hardmine.load_encoder("tiny")
        index = hardmine.build_index(images, encoder, Path(scratch) / "scenes.hmx")
        miner = hardmine.HardMiner(
            index, None, encoder=encoder, images=images, contexts=["at night"], strict=True
        )
        counts = np.asarray(images.class_counts.sum(axis=0)).ravel()
        ap = 0.5 * counts / (counts + np.median(counts))
        ap[images.class_names.index("bicycle")] = 0.05
        done = miner.step(dict(zip(images.class_names, ap.tolist(), strict=True)))
        draw_overview(images, index, encoder, done)
        draw_need(images, done, counts)
        draw_trust(images, index, encoder, done)
        draw_targets(images, index, done, true_classes(images, Path(scratch)))
        draw_draws(images, done)
        draw_clusters(images, index, encoder)
    run_notebook()


def run_notebook() -> None:
    """Run the notebook from top to bottom, and keep what it printed and drew."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, kernel_name="python3", record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":  # warnings speak of this machine, not of the notebook
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    nbformat.write(notebook, NOTEBOOK)


def save(figure: Any, name: str) -> None:
    """Write a figure as a small JPEG."""
    figure.savefig(
        FOLDER / name, dpi=110, bbox_inches="tight", pil_kwargs={"quality": 82, "optimize": True}
    )
    plt.close(figure)


def relative_draws(done: Round) -> npt.NDArray[np.float64]:
    """(N,) how often each image is drawn, relative to uniform draws."""
    assert done.weights is not None
    return np.asarray(done.weights / done.weights.mean())


def show_image(axes: Any, path: Path, box: npt.NDArray[np.float32] | None, title: str) -> None:
    """Show an image with a box around the region that matched."""
    picture = open_image(path)
    axes.imshow(picture)
    axes.set_title(title, fontsize=10.5)
    axes.axis("off")
    if box is not None:
        left, top, right, bottom = box * np.array([picture.width, picture.height] * 2)
        frame = (right - left - 2, bottom - top - 2)
        axes.add_patch(plt.Rectangle((left + 1, top + 1), *frame, ec="#ffd84a", fill=False, lw=2.5))


def search(index: Index, encoder: Any, text: str) -> tuple[Any, Any]:
    """Rows and boxes of the best hits of one text."""
    hits = index.search(encoder.encode_texts([text]).numpy(), SHOWN)
    return hits.image_rows[0], hits.boxes[0]


def true_classes(images: ImageSet, scenes: Path) -> npt.NDArray[np.bool_]:
    """(N, C) which classes an image shows, labelled or not."""
    truth = json.loads((scenes / "truth" / "train.json").read_text())
    shows = np.zeros((len(images), len(images.class_names)), bool)
    for thing in truth["annotations"]:
        shows[images.rows_of([thing["image_id"]])[0], thing["category_id"] - 1] = True
    return shows


def draw_overview(images: ImageSet, index: Index, encoder: Any, done: Round) -> None:
    """The README's picture: a query's hits, and draws before and after."""
    figure = plt.figure(figsize=(14, 5.6))
    grid = figure.add_gridspec(2, SHOWN, height_ratios=(1.25, 1), hspace=0.28, wspace=0.06)
    drawn = relative_draws(done)
    rows, boxes = search(index, encoder, QUERY)
    sampler_rows = images.rows_of(index.ids[rows])
    for place, (row, box) in enumerate(zip(sampler_rows.tolist(), boxes, strict=True)):
        title = f"drawn 1.0 → {drawn[row]:.1f} times"
        show_image(figure.add_subplot(grid[0, place]), images.path(row), box, title)
    figure.text(0.125, 0.955, f"“{QUERY}”: the best hits and the region that matched", size=13)
    axes = figure.add_subplot(grid[1, :])
    assert done.draws is not None
    change = np.asarray(done.draws.class_draws)
    order = np.argsort(done.ap)
    names = [images.class_names[row] for row in order]
    axes.bar(names, change[order], color=[GREEN if v > 1 else GREY for v in change[order]])
    axes.axhline(1, color=DARK, lw=1)
    axes.set_ylabel("objects drawn,\nrelative to uniform")
    plt.setp(axes.get_xticklabels(), rotation=55, ha="right", rotation_mode="anchor")
    axes.margins(x=0.01)
    axes.set_title("classes, the weakest first", loc="left", fontsize=13)
    save(figure, "overview.jpg")


def draw_need(images: ImageSet, done: Round, counts: npt.NDArray[np.int64]) -> None:
    """AP by class and the need that follows."""
    order = np.argsort(done.ap)
    names = [f"{images.class_names[row]} ({counts[row]})" for row in order]
    figure, axes = plt.subplots(figsize=(12, 3.4))
    axes.bar(names, 100 * done.ap[order], color=GREY, label="AP")
    axes.axhline(100 * done.ap.mean(), color=DARK, lw=1, ls="--")
    axes.text(len(names) - 0.5, 100 * done.ap.mean() + 1, "mean AP", ha="right", va="bottom")
    axes.bar(names, 100 * done.need[order], width=0.35, color=AMBER, label="need × 100")
    plt.setp(axes.get_xticklabels(), rotation=55, ha="right", rotation_mode="anchor")
    axes.margins(x=0.01)
    axes.legend(frameon=False, ncols=2)
    axes.set_title("class (objects in training)", loc="left", fontsize=11)
    save(figure, "need.jpg")


def draw_trust(images: ImageSet, index: Index, encoder: Any, done: Round) -> None:
    """The hits of a query with high trust and of one with low trust."""
    own = [query for query in done.queries if not query.context and not np.isnan(query.precision)]
    chosen = [max(own, key=lambda query: query.trust), min(own, key=lambda query: query.trust)]
    figure, grid = plt.subplots(2, SHOWN, figsize=(13, 4.7))
    for line, query in zip(grid, chosen, strict=True):
        rows, boxes = search(index, encoder, f"a {query.phrases[0]}")
        class_row = images.class_names.index(query.class_name)
        labelled = np.asarray(images.class_counts[:, class_row].todense()).ravel() > 0
        for axes, row, box in zip(
            line, images.rows_of(index.ids[rows]).tolist(), boxes, strict=True
        ):
            verdict = "labelled" if labelled[row] else "not labelled"
            show_image(axes, images.path(row), box, verdict)
        line[0].text(
            *(-0.08, 0.5),
            f"{query.class_name}\nprecision {query.precision:.2f}\ntrust {query.trust:.2f}",
            transform=line[0].transAxes,
            **{"ha": "right", "va": "center"},
        )
    save(figure, "trust.jpg")


def draw_targets(images: ImageSet, index: Index, done: Round, shows: npt.NDArray[np.bool_]) -> None:
    """What images are to the query of one class: one row a kind, the most similar first.

    The class is the one for which the most confusers lack it and the most suspects show it.
    """
    assert done.result is not None
    targets = done.result.targets
    kinds = {
        POSITIVE: "typical\npositive",
        HARD: "hard\npositive",
        CONFUSER: "confuser",
        SUSPECT: "suspect",
    }
    own = [row for row, query in enumerate(done.queries) if not query.context]

    def found(query: int, kind: int) -> npt.NDArray[np.int64]:
        chosen = targets.take((targets.query_rows == query) & (targets.kinds == kind))
        order = np.argsort(-chosen.scores if kind != HARD else chosen.scores)
        return np.asarray(chosen.image_rows[order][: SHOWN - 2])

    def right(query: int) -> int:
        shown = shows[:, images.class_names.index(done.queries[query].class_name)]
        confusers, suspects = found(query, CONFUSER), found(query, SUSPECT)
        return min(int((~shown[confusers]).sum()), int(shown[suspects].sum()))

    query = max(own, key=lambda row: (right(row), len(found(row, HARD))))
    figure, grid = plt.subplots(len(kinds), SHOWN - 2, figsize=(9.4, 9.2))
    for line, (kind, name) in zip(grid, kinds.items(), strict=True):
        for axes in line:
            axes.axis("off")
        for axes, row in zip(line, found(query, kind).tolist(), strict=False):
            show_image(axes, images.path(row), None, "")
        line[0].text(-0.08, 0.5, name, transform=line[0].transAxes, ha="right", va="center")
    figure.suptitle(f"the query “{done.queries[query].class_name}”", y=0.92)
    save(figure, "targets.jpg")


def draw_draws(images: ImageSet, done: Round) -> None:
    """How often images are drawn, sorted."""
    assert done.draws is not None
    drawn = np.sort(relative_draws(done))[::-1]
    figure, axes = plt.subplots(figsize=(9, 3))
    axes.fill_between(np.arange(len(drawn)), drawn, color=GREEN, alpha=0.85, lw=0)
    axes.axhline(1, color=DARK, lw=1)
    axes.text(len(drawn), 1.04, "uniform", ha="right")
    axes.set_xlabel("training images, the most often drawn first")
    axes.set_ylabel("draws, relative to uniform")
    axes.margins(x=0)
    share = done.draws.effective_size / len(drawn)
    axes.set_title(
        f"{100 * done.draws.moved_share:.0f} % of the draws moved; effective sample size "
        f"{100 * share:.0f} %",
        **{"loc": "left", "fontsize": 11},
    )
    save(figure, "draws.jpg")


def draw_clusters(images: ImageSet, index: Index, encoder: Any) -> None:
    """The regions of an image by day, and their similarity to a text."""
    rows, _ = search(index, encoder, REGIONS_QUERY)
    image = open_image(images.path(int(images.rows_of(index.ids[rows[:1]])[0])))
    features = encoder.encode_images(encoder.preprocess(image)[None])
    spec = parse_spec("kmeans:10")
    regions = cluster(features.patches, spec, whole=features.whole, labels=True)
    scores = (regions.vectors @ encoder.encode_texts([REGIONS_QUERY])[0]).numpy()
    page = draw_regions(
        image,
        regions,
        title="regions of one image",
        subtitle=f"{spec}, {len(regions)} regions",
        scores=scores,
        query=REGIONS_QUERY,
    )
    page.thumbnail((1300, 1300), Image.Resampling.LANCZOS)
    page.save(FOLDER / "regions.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main()
