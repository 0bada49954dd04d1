"""``hardmine eval`` as a user runs it, on scenes with the tiny encoder."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

import hardmine
from hardmine.cli.main import main
from hardmine.encoders.templates import embed_prompts
from hardmine.evaluation.classes import evaluate_classes
from hardmine.scenes import write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("eval")
    write_scenes(root / "scenes", num_images=40, seed=3, size=128)
    return root


@pytest.fixture
def arguments(scenes, monkeypatch):
    monkeypatch.chdir(scenes)
    return ["--ann", "scenes/annotations/train.json", "--images", "scenes", "--templates", "short"]


def run(capsys, *words) -> str:
    assert main(["eval", *words]) == 0
    return capsys.readouterr().out


def test_builds_an_index_and_gives_the_metrics_of_the_library(arguments, capsys, scenes) -> None:
    output = json.loads(run(capsys, *arguments, "--clusters", "kmeans:4+whole", "--json"))
    images = hardmine.load_images(scenes / "scenes", split="train")
    encoder = hardmine.load_encoder("tiny")
    [folder] = (scenes / "hardmine-eval").glob("*kmeans*")
    index = hardmine.open_index(folder, encoder=encoder, images=images)
    texts = embed_prompts(encoder, images.class_names, templates="short")
    expected = evaluate_classes(index, images, texts)
    assert output["schema"] == "hardmine-eval/1"
    assert output["mean"]["all"]["map_at_k"] == pytest.approx(expected.all_sizes.mean())
    assert output["mean"]["all"]["map_at_k"] > 0.4
    for row, ap in zip(output["classes"], expected.all_sizes.ap, strict=True):
        assert (row["ap"] is None) if math.isnan(ap) else row["ap"] == pytest.approx(ap)


def test_an_existing_index_is_evaluated_without_its_images(arguments, capsys, scenes) -> None:
    built = json.loads(run(capsys, *arguments, "--clusters", "whole", "--json"))
    [folder] = (scenes / "hardmine-eval").glob("*_whole.hmx")
    (scenes / "away").mkdir()
    labels = (scenes / "scenes" / "annotations" / "train.json").read_text()
    (scenes / "away" / "train.json").write_text(labels)
    words = [str(folder), "--ann", "away/train.json", "--templates", "short"]
    assert json.loads(run(capsys, *words, "--json")) == built
    table = run(
        capsys, *words, "--bootstrap", "20", "--rare-below", "5", "--csv", "new/classes.csv"
    )
    assert "rare" in table
    assert "÷ found: by those among the first 50; ÷ relevant: by all" in " ".join(table.split())
    assert f"{100 * built['mean']['all']['map_at_k']:.1f}" in table
    with (scenes / "new" / "classes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == [row["class"] for row in built["classes"]]


def test_queries_with_their_images(arguments, capsys, scenes) -> None:
    images = hardmine.load_images(scenes / "scenes", split="train")
    shown = np.flatnonzero(images.class_counts[:, 0].toarray().ravel())
    queries = [{"text": "a person", "images": images.ids[shown].tolist()}]
    (scenes / "queries.json").write_text(json.dumps(queries))
    output = json.loads(run(capsys, *arguments, "--queries", "queries.json", "--json"))
    [row] = output["queries"]
    assert row["num_images"] == len(shown)
    assert row["ap"] > len(shown) / len(images)


def test_a_table_runs_what_it_can_and_gives_reasons_for_the_rest(arguments, capsys, scenes) -> None:
    (scenes / "table.yaml").write_text("name: scenes\npublished: coco\nsystems: systems.yaml\n")
    (scenes / "systems.yaml").write_text(
        """
- {system: CLIP, backbone: RN50, resolution: 224, encoder: tiny, clusters: whole}
- {system: PCME, backbone: "", resolution: 224, encoder: "precomputed:no.npz", clusters: none}
- {system: VSRN, backbone: COCO-Caption, resolution: 600, encoder: "precomputed:no.npz",
   clusters: none}
"""
    )
    assert main(["eval", *arguments, "--table", "table.yaml", "--markdown"]) == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert "(56.7)" in lines[2]
    assert "– (69.7)" in lines[3]
    assert output.err.count("did not run") == 1
    assert "did not run: PCME 224, VSRN COCO-Caption 600" in " ".join(output.err.split())


def test_bad_arguments(arguments, capsys, scenes) -> None:
    assert main(["eval", *arguments, "--json", "--markdown"]) == 2
    assert main(["eval", *arguments, "--clusters", "kmeans:ten"]) == 2
    assert main(["eval", "nothing.hmx", *arguments]) == 2
    assert "nothing.hmx" in capsys.readouterr().err
