"""Can retrieval find labels that are missing? Labels are taken away and looked for again.

Of all (image, class) labels a share is hidden at random; suspects are what the rest of the labels
and the similarities make of it. Precision: suspects that were hidden labels. Recall: hidden labels
that are suspects. Beside it what guessing by similarity alone gives: as many images, the most
alike of each class that lack its label, in proportion to the class's labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse
import torch

from hardmine.labels import Labels
from hardmine.targets import CONFUSER, SUSPECT, TargetRules
from hardmine.trust import measure_trust, split_targets

HIDDEN = (0.05, 0.1, 0.2)


def hide(present: npt.NDArray[np.bool_], share: float, seed: int) -> Labels:
    """Labels with a share of them gone."""
    kept = present & (np.random.default_rng(seed).random(present.shape) >= share)
    nothing = scipy.sparse.csc_matrix(present.shape, dtype=bool)
    return Labels(scipy.sparse.csc_matrix(kept), None, nothing, np.ones(len(present), bool))


def look(
    scores: npt.NDArray[np.float32], present: npt.NDArray[np.bool_], share: float, seed: int
) -> dict[str, Any]:
    """Hide, split, and count."""
    labels = hide(present, share, seed)
    classes = np.arange(len(scores))
    trust = measure_trust(scores, classes, labels)
    targets = split_targets(scores, classes, labels, trust, rules=TargetRules())
    kept = labels.present.toarray()
    hidden = present & ~kept
    suspects = targets.take(targets.kinds == SUSPECT)
    confusers = targets.take(targets.kinds == CONFUSER)
    right = hidden[suspects.image_rows, suspects.query_rows]
    # Similarity alone: the same number of guesses, spread over classes as their labels are.
    quota = np.round(kept.sum(0) / max(kept.sum(), 1) * len(suspects)).astype(int)
    guesses = [
        np.argsort(-np.where(kept[:, row], -np.inf, scores[row]))[: quota[row]] for row in classes
    ]
    guessed = sum(int(hidden[rows, row].sum()) for row, rows in zip(classes, guesses, strict=True))
    return {
        "hidden": int(hidden.sum()),
        "suspects": len(suspects),
        "precision": right.mean() if len(right) else np.nan,
        "recall": right.sum() / max(hidden.sum(), 1),
        "alone": guessed / max(quota.sum(), 1),
        "base": hidden.sum() / max((~kept).sum(), 1),
        "confusers": len(confusers),
        "tainted": hidden[confusers.image_rows, confusers.query_rows].mean(),
        "trust": float(np.nanmean(trust.precision)),
    }


def show(title: str, scores: npt.NDArray[np.float32], present: npt.NDArray[np.bool_]) -> float:
    """Print the table; the mean lift of precision over chance."""
    print(f"\n{title}: {present.shape[0]} images, {present.shape[1]} classes")
    print("hidden %  labels  suspects  precision  recall  similarity alone  chance  confusers")
    lifts = []
    for share in HIDDEN:
        runs = [look(scores, present, share, seed) for seed in range(5)]
        mean = {key: float(np.nanmean([run[key] for run in runs])) for key in runs[0]}
        lifts.append(mean["precision"] / mean["base"])
        print(
            f"{100 * share:7.0f}  {mean['hidden']:7.0f}  {mean['suspects']:8.0f}"
            f"  {mean['precision']:9.2f}  {mean['recall']:6.2f}  {mean['alone']:16.2f}"
            f"  {mean['base']:6.3f}  {mean['confusers']:5.0f} ({mean['tainted']:.2f} hidden)"
        )
    return float(np.mean(lifts))


@pytest.mark.benchmark
def test_suspects_on_photos(photo_images: Any, photo_encoder: Any, photo_features: Any) -> None:
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
    present = photo_images.class_counts.toarray() > 0
    assert show("photos", index.scores(texts), present) > 3


@pytest.mark.benchmark
def test_suspects_on_scenes(tmp_path: Path) -> None:
    from hardmine import build_index, load_encoder, load_images
    from hardmine.cli.main import main
    from hardmine.encoders.templates import embed_prompts

    assert main(["scenes", str(tmp_path), "--images", "1000", "--seed", "11"]) == 0
    images = load_images(
        tmp_path / "train" / "images", annotations=tmp_path / "annotations" / "train.json"
    )
    encoder = load_encoder("tiny")
    index = build_index(images, encoder, tmp_path / "scenes.hmx")
    scores = index.scores(embed_prompts(encoder, images.class_names))
    present = images.class_counts.toarray() > 0
    assert show("scenes", scores, present) > 3
