"""Can retrieval find missing labels? A random share of the labels is hidden and searched for.

A label is an (image, class) pair. Suspects follow from the other labels and the similarities.
Precision is the share of suspects that are hidden labels, recall the share of hidden labels that
are suspects. The comparison is similarity alone: the same number of guesses, shared among the
classes in proportion to their labels, each class's most similar images without its label.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse
import torch
from given_scores import Case

from hardmine.mining.labels import Labels
from hardmine.mining.targets import CONFUSER, KINDS, SUSPECT
from hardmine.records import rows_of

HIDDEN = (0.05, 0.1, 0.2)


def hide(present: npt.NDArray[np.bool_], share: float, seed: int) -> Labels:
    """The labels without a random share of them."""
    kept = present & (np.random.default_rng(seed).random(present.shape) >= share)
    nothing = scipy.sparse.csc_matrix(present.shape, dtype=bool)
    return Labels(scipy.sparse.csc_matrix(kept), None, nothing, np.ones(len(present), bool))


def count(
    scores: npt.NDArray[np.float32], kept: npt.NDArray[np.bool_], hidden: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """Split targets by the kept labels and count the hidden labels among them."""
    labels = hide(kept, 0.0, 0)
    classes = np.arange(len(scores))
    case = Case(scores, classes, labels)
    trust = case.trust()
    targets = case.split(trust)
    suspects = targets.take(targets.kinds == SUSPECT)
    confusers = targets.take(targets.kinds == CONFUSER)
    right = hidden[suspects.image_rows, suspects.query_rows]
    # Similarity alone: the same number of guesses, in proportion to each class's labels.
    quota = np.round(kept.sum(0) / max(kept.sum(), 1) * len(suspects)).astype(int)
    guesses = [
        np.argsort(-np.where(kept[:, row], -np.inf, scores[row]))[: quota[row]] for row in classes
    ]
    right_guesses = sum(
        int(hidden[rows, row].sum()) for row, rows in zip(classes, guesses, strict=True)
    )
    return {
        "hidden": int(hidden.sum()),
        "suspects": len(suspects),
        "precision": right.mean() if len(right) else np.nan,
        "recall": right.sum() / max(hidden.sum(), 1),
        "similarity": right_guesses / max(quota.sum(), 1),
        "chance": hidden.sum() / max((~kept).sum(), 1),
        "confusers": len(confusers),
        "lacking": hidden[confusers.image_rows, confusers.query_rows].mean(),
        "trust": float(np.nanmean(trust.precision)),
    }


def show(title: str, scores: npt.NDArray[np.float32], present: npt.NDArray[np.bool_]) -> float:
    """Print the table and return the mean of precision / chance."""
    print(f"\n{title}: {present.shape[0]} images, {present.shape[1]} classes")
    print("hidden %  labels  suspects  precision  recall  similarity alone  chance  confusers")
    lifts = []
    for share in HIDDEN:
        runs = []
        for seed in range(5):
            kept = hide(present, share, seed).present.toarray()
            runs.append(count(scores, kept, present & ~kept))
        mean = {key: float(np.nanmean([run[key] for run in runs])) for key in runs[0]}
        lifts.append(mean["precision"] / mean["chance"])
        print(
            f"{100 * share:7.0f}  {mean['hidden']:7.0f}  {mean['suspects']:8.0f}"
            f"  {mean['precision']:9.2f}  {mean['recall']:6.2f}  {mean['similarity']:16.2f}"
            f"  {mean['chance']:6.3f}  {mean['confusers']:5.0f} ({mean['lacking']:.2f} hidden)"
        )
    return float(np.mean(lifts))


@pytest.fixture(scope="module")
def photo_scores(
    photo_images: Any, photo_encoder: Any, photo_features: Any
) -> npt.NDArray[np.float32]:
    """(80, 730) similarity of the class names, ten clusters an image and the whole."""
    from hardmine.clusters import cluster, parse_spec
    from hardmine.encoders.templates import embed_prompts
    from hardmine.index import index_from_regions

    spec = parse_spec("kmeans:10+whole")
    parts = [
        cluster(photo_features.patches[rows], spec, whole=photo_features.whole[rows])
        for rows in torch.arange(len(photo_images)).split(73)
    ]
    counts = torch.cat([torch.bincount(part.image_rows) for part in parts])
    index = index_from_regions(
        torch.cat([part.vectors for part in parts]).numpy(),
        np.concatenate([[0], np.cumsum(counts.numpy())]),
        ids=photo_images.ids,
    )
    texts = embed_prompts(photo_encoder, photo_images.class_names, "plain")
    return np.asarray(index.scores(texts))


@pytest.mark.benchmark
def test_suspects_on_photos(photo_images: Any, photo_scores: npt.NDArray[np.float32]) -> None:
    present = photo_images.class_counts.toarray() > 0
    assert show("photos", photo_scores, present) > 3


@pytest.mark.benchmark
def test_targets_predict_the_errors_of_a_real_detector(
    photos: Path, photo_images: Any, photo_scores: npt.NDArray[np.float32]
) -> None:
    """Hard positives and confusers come from labels and similarity, not from the detector."""
    images, classes = photo_images, np.arange(len(photo_images.class_names))
    present = images.class_counts.toarray() > 0
    results = json.loads((photos / "yolox_nano_results.json").read_text())
    best = np.zeros(present.shape)
    rows = images.rows_of([result["image_id"] for result in results])
    columns = rows_of(images.class_ids, [result["category_id"] for result in results])
    np.maximum.at(best, (rows, columns), [result["score"] for result in results])

    print(
        "\nmissed by YOLOX-nano: labelled images by similarity to their class, least similar first"
    )
    shares = [[] for _ in range(10)]
    for column in classes:
        labelled = np.flatnonzero(present[:, column])
        if len(labelled) >= 20:
            order = np.argsort(np.argsort(photo_scores[column, labelled]))
            for tenth in range(10):
                chosen = labelled[order * 10 // len(labelled) == tenth]
                shares[tenth].append((best[chosen, column] < 0.3).mean())
    missed = [float(np.mean(share)) for share in shares]
    print("tenth     " + "".join(f"{tenth + 1:6}" for tenth in range(10)))
    print("missed    " + "".join(f"{share:6.2f}" for share in missed))

    case = Case(photo_scores, classes, hide(present, 0.0, 0))
    targets = case.split(case.trust())
    false = (best >= 0.2) & ~present
    chance = false[~present].mean()
    print(f"\nimages without the class in which YOLOX-nano detects it: {100 * chance:.2f} %")
    for kind in (CONFUSER, SUSPECT):
        chosen = targets.take(targets.kinds == kind)
        share = false[chosen.image_rows, chosen.query_rows].mean()
        print(f"  {KINDS[kind]:10} {len(chosen):5}  {100 * share:5.1f} %  {share / chance:5.1f} ×")
        assert share > 5 * chance
    assert missed[0] > 2 * missed[-1]


@pytest.mark.benchmark
def test_suspects_on_scenes(tmp_path: Path) -> None:
    """The generator leaves out labels and writes the complete ones to a truth file."""
    from hardmine import build_index, load_encoder, load_images
    from hardmine.encoders.templates import embed_prompts
    from hardmine.scenes import write_scenes

    written = write_scenes(tmp_path / "scenes", num_images=1250, seed=11, missing=0.1)["train"]
    images, truth = (
        load_images(tmp_path / "scenes", annotations=file)
        for file in (written.annotations, written.truth)
    )
    encoder = load_encoder("tiny")
    index = build_index(images, encoder, tmp_path / "scenes.hmx")
    scores = index.scores(embed_prompts(encoder, images.class_names))
    kept, present = (image_set.class_counts.toarray() > 0 for image_set in (images, truth))
    print(f"\nscenes with 10 % of the labels left out: {len(images)} images")
    print("labels  suspects  precision  recall  similarity alone  chance")
    found = count(scores, kept, present & ~kept)
    print(
        f"{found['hidden']:6}  {found['suspects']:8}  {found['precision']:9.2f}"
        f"  {found['recall']:6.2f}  {found['similarity']:16.2f}  {found['chance']:6.3f}"
    )
    assert found["precision"] > 3 * found["chance"]
