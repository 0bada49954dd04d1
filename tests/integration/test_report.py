"""``hardmine report`` from files: scenes with simulated detections, bad input, real photos."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_data import NAMES, WordEncoder, make_toy_data
from toy_miner import detections_of

from hardmine.cli.main import main
from hardmine.datasets import load_images
from hardmine.encoders import load_encoder
from hardmine.errors import InputError
from hardmine.exports.files import to_coco
from hardmine.index import Index, build_index, index_from_regions
from hardmine.metrics import read_scores
from hardmine.report.gap_output import to_json
from hardmine.report.gap_page import gap_page
from hardmine.report.make import make_report
from hardmine.report.mining_preview import MiningPreview, preview_mining


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, and detections that find every second object and confuse some classes."""
    root = tmp_path_factory.mktemp("report")
    assert main(["scenes", str(root), "--images", "40", "--seed", "3"]) == 0
    labels = json.loads((root / "annotations" / "val.json").read_text())
    rng = np.random.default_rng(0)
    found = []
    for number, one in enumerate(labels["annotations"]):
        wrong = one["category_id"] % 5 == 0
        if number % 2 and not wrong:
            continue
        category = labels["categories"][0]["id"] if wrong else one["category_id"]
        score = float(rng.uniform(0.3, 1))
        found.append(
            {
                "image_id": one["image_id"],
                "category_id": category,
                "bbox": one["bbox"],
                "score": score,
            }
        )
    (root / "results.json").write_text(json.dumps(found))
    return root


@pytest.fixture(scope="module")
def index(scenes: Path) -> Path:
    images = load_images(
        scenes / "train" / "images", annotations=scenes / "annotations" / "train.json"
    )
    build_index(images, load_encoder("tiny"), scenes / "index", clusters="kmeans:4", workers=1)
    return scenes / "index"


def given(scenes: Path) -> list[str]:
    val = scenes / "annotations" / "val.json"
    return ["report", "--detections", str(scenes / "results.json"), "--val-ann", str(val)]


def reported(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert isinstance(answer, dict)
    return answer


def test_without_an_index(scenes: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table, page = tmp_path / "gaps.csv", tmp_path / "deep" / "page.html"
    output = reported(capsys, *given(scenes), "--csv", str(table), "--out", str(page))
    assert output["schema"] == "hardmine-report/1"
    assert output["mining"] is None
    names = [one["name"] for one in output["classes"]]
    labels = json.loads((scenes / "annotations" / "val.json").read_text())
    assert sorted(names) == sorted(one["name"] for one in labels["categories"])
    for one in output["classes"]:
        if one["val"]["instances"]:
            errors = one["errors"]
            shares = [errors[kind] for kind in ("found", "misplaced", "confused", "missed")]
            assert sum(shares) == pytest.approx(1)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == names
    assert float(rows[0]["ap"]) == pytest.approx(output["classes"][0]["ap"], abs=1e-6)
    assert names[0] in page.read_text()


def test_the_table_starts_with_the_weakest(
    scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weakest = reported(capsys, *given(scenes))["classes"][0]["name"]
    assert main([*given(scenes), "--classes", "1"]) == 0
    output = capsys.readouterr().out
    assert weakest in output
    assert "more classes: --classes" in output
    assert "In percent: AP, its 90 % interval" in output
    assert "Mean AP" in output


def test_metrics_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    metrics = tmp_path / "scalars.json"
    metrics.write_text('{"coco/cat_precision": 0.1, "coco/dog_precision": 0.5, "step": 3}\n')
    output = reported(capsys, "report", "--metrics", str(metrics))
    assert [(one["name"], one["ap"]) for one in output["classes"]] == [("cat", 0.1), ("dog", 0.5)]
    assert output["mean_ap"] == pytest.approx(0.3)
    assert output["classes"][0]["low"] is None


def test_with_an_index(scenes: Path, index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = scenes / "annotations" / "train.json"
    words = [*given(scenes), "--index", str(index), "--ann", str(train)]
    relabel = scenes / "relabel"
    pages = ["--out", str(scenes / "page.html")]
    assert main([*words, "--relabel", str(relabel), *pages, "--json"]) == 0
    shown = capsys.readouterr()
    assert "warning" not in shown.err
    output = json.loads(shown.out)
    mining = output["mining"]
    assert mining["num_images"] == len(json.loads(train.read_text())["images"])
    assert mining["num_raised"] > 0
    weak = {one["name"] for one in output["classes"] if one["need"] > 0}
    assert mining["examples"]
    assert {one["class_name"] for one in mining["examples"]} <= weak
    for one in output["classes"]:
        assert 0 <= one["retrieval"]["labelled"] <= one["retrieval"]["retrieved"]
    with (relabel / "suspects.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(mining["suspects"])
    proposals = json.loads((relabel / "proposals.json").read_text())
    assert len(proposals["annotations"]) == len(mining["suspects"])
    assert "data:image/jpeg" in (scenes / "page.html").read_text()
    assert main([*words, *pages, "--images", "gone"]) == 0
    assert "pictures cannot be shown; they were looked for in gone:" in capsys.readouterr().err


def test_missing_labels_of_strong_classes_are_suspected_too_after_those_of_weak_ones() -> None:
    faulty = make_toy_data(1000, missing=0.15, rates=(0.5, 0.3, 0.1))
    scores = read_scores({"car": 0.8, "fork": 0.2, "zebra": 0.8}, NAMES)
    preview = preview_mining(faulty.index, WordEncoder(), faulty.images, scores)
    classes = [one.class_name for one in preview.suspects]
    assert classes == sorted(classes, key=["fork", "car", "zebra"].index)
    for row, name in enumerate(NAMES):
        suspects = [one.image_id for one in preview.suspects if one.class_name == name]
        assert len(suspects) == preview.retrieval[name].suspects > 0
        assert faulty.present[faulty.images.rows_of(suspects), row].mean() > 0.7
        similar = [one.score for one in preview.suspects if one.class_name == name]
        assert similar == sorted(similar, reverse=True)
    assert {one.class_name for one in preview.examples} == {"fork"}


def test_as_many_confusers_are_counted_as_shown_of_strong_classes_too() -> None:
    noisy = make_toy_data(400, rates=(0.5, 0.3, 0.1), noise=3.0)
    scores = read_scores({"car": 0.6, "fork": 0.2, "zebra": 0.5}, NAMES)
    preview = preview_mining(noisy.index, WordEncoder(), noisy.images, scores)
    shown = Counter(one.class_name for one in preview.confusers)
    assert 0 < shown["zebra"] < 20  # fewer than the limit: all of them
    assert {name: one.confusers for name, one in preview.retrieval.items()} == {
        name: shown[name] for name in NAMES
    }


def test_over_many_epochs_the_preview_is_of_their_end() -> None:
    toy, val = make_toy_data(400, seed=2), make_toy_data(400, rates=(0.5, 0.4, 0.3), seed=5)
    found = detections_of(val, miss_at_night="fork")
    scores = read_scores({"car": 0.8, "fork": 0.2, "zebra": 0.8}, NAMES)

    def previewed(val_index: Index | None, epochs: float | None) -> MiningPreview:
        return preview_mining(
            toy.index,
            WordEncoder(),
            toy.images,
            scores,
            val=val.images,
            val_index=val_index,
            detections=found,
            epochs=epochs,
        )

    plain, short, long = (previewed(val.index, epochs) for epochs in (None, 12, 13))
    assert plain == short
    assert short.drawn_by == ""
    assert long.drawn_by == "draws follow only the look of what is missed"
    assert long.moved_share != pytest.approx(short.moved_share, rel=0.01)
    assert "what is missed could not be looked at" in previewed(None, 13).drawn_by


def test_slices(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = load_images(scenes / "val" / "images", annotations=scenes / "annotations" / "val.json")
    build_index(images, load_encoder("tiny"), scenes / "val_index", clusters="none", workers=1)
    words = ["--val-index", str(scenes / "val_index"), "--slice", "at night", "--suggest-slices"]
    page = scenes / "slices.html"
    output = reported(capsys, *given(scenes), *words, "--out", str(page))
    (one,) = [one for one in output["slices"] if not one["suggested"]]
    assert one["text"] == "at night"
    assert 1 <= one["num_images"] < len(images)
    assert len(one["images"]) == len(one["paths"]) <= one["num_images"]
    assert "at night" in page.read_text()
    assert main([*given(scenes), *words]) == 0
    assert "at night:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["report"], "either --detections FILE or --metrics FILE", id="nothing"),
        pytest.param(["report", "--detections", "{r}"], "give them with --val-ann", id="no labels"),
        pytest.param(
            ["report", "--detections", "{v}", "--val-ann", "{v}"], "an annotation file", id="labels"
        ),
        pytest.param(
            ["report", "--detections", "{bad}", "--val-ann", "{v}"], "cannot be read", id="not json"
        ),
        pytest.param(
            ["report", "--detections", "{no}", "--val-ann", "{v}"], "no detections", id="empty"
        ),
        pytest.param(
            ["report", "--detections", "{other}", "--val-ann", "{v}"],
            "not in the image set",
            id="other ids",
        ),
        pytest.param(
            ["report", "--metrics", "{csv}", "--val-ann", "{v}"], "name none of", id="other classes"
        ),
        pytest.param(
            ["report", "--metrics", "{csv}", "--slice", "night"], "give --detections", id="slice"
        ),
        pytest.param(
            ["report", "--metrics", "{csv}", "--index", "{i}"], "give them with --ann", id="no ann"
        ),
    ],
)
def test_bad_input(
    scenes: Path,
    tmp_path: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = {
        "r": scenes / "results.json",
        "v": scenes / "annotations" / "val.json",
        "i": scenes / "index",
        "bad": tmp_path / "bad.json",
        "no": tmp_path / "no.json",
        "other": tmp_path / "other.json",
        "csv": tmp_path / "other.csv",
    }
    files["bad"].write_text("[{")
    files["no"].write_text("[]")
    other = {"image_id": 987654, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}
    files["other"].write_text(json.dumps([other]))
    files["csv"].write_text("class,ap\nsofa,0.1\nlamp,0.2\n")
    assert main([word.format(**files) for word in words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_an_index_of_other_images(
    scenes: Path, index: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    labels = json.loads((scenes / "annotations" / "train.json").read_text())
    for one in labels["images"]:
        one["id"] += 100_000
    for one in labels["annotations"]:
        one["image_id"] += 100_000
    other = tmp_path / "other.json"
    other.write_text(json.dumps(labels))
    assert main([*given(scenes), "--index", str(index), "--ann", str(other)]) == 2
    assert "built from another data set or split?" in capsys.readouterr().err


class NameEncoder:
    """The photo encoder for any text: it embeds the class name that the text contains."""

    def __init__(self, encoder: Any, names: Sequence[str]) -> None:
        self._encoder, self._names = encoder, names
        self.dim, self.fingerprint = encoder.dim, encoder.fingerprint

    def encode_texts(self, texts: Sequence[str]) -> Any:
        """(T, D) of the longest name in each text."""
        return self._encoder.encode_texts(
            [max((name for name in self._names if name in text), key=len) for text in texts]
        )


def test_photos(photos: Path, photo_images: Any, photo_encoder: Any, tmp_path: Path) -> None:
    """The whole report on real detections; half of the labels of one class are removed.

    Half of the photos are in the index, with all that show that class; embedding all takes minutes.
    """
    chosen = photo_images.class_names.index("cup")
    instances = photo_images.instances
    shows = np.unique(instances.image_rows[instances.class_rows == chosen])
    indexed = photo_images.subset(np.union1d(shows, np.arange(len(photo_images) // 2)))
    index = build_index(indexed, photo_encoder, tmp_path / "photos.hmx", clusters="pyramid:6")
    hidden = (instances.class_rows == chosen) & (instances.image_rows % 2 == 0)
    true_ids = np.unique(photo_images.ids[instances.image_rows[hidden]])
    train = replace(photo_images, instances=instances.take(~hidden))
    report = make_report(
        title="yolox nano",
        detections=photos / "yolox_nano_results.json",
        val=photo_images,
        train=train,
        index=index,
        val_index=index,
        encoder=NameEncoder(photo_encoder, photo_images.class_names),
        slices=["traffic light", "person"],
    )
    output = to_json(report)
    assert output["mining"]["num_raised"] > 100
    cups = next(gap for gap in report.gaps if gap.name == "cup")
    assert cups.train is not None
    assert cups.val is not None
    assert cups.train.instances < cups.val.instances
    assert report.mining is not None
    suspects = [one for one in report.mining.suspects if one.class_name == "cup"]
    assert suspects
    # One in twenty-five images lacks the label.
    precision = np.mean([one.image_id in true_ids for one in suspects])
    assert precision > 0.3
    proposals = to_coco(suspects)
    for one in proposals["annotations"]:
        x, y, width, height = one["bbox"]
        assert x >= 0
        assert y >= 0
        assert width * height == pytest.approx(one["area"], abs=0.1)
    person = report.slices[1]
    assert person.classes == ("person",)
    assert person.low <= person.gap <= person.high
    page = gap_page(report, root=index.root, val_root=index.root)
    assert len(page) < 3_000_000
    assert page.count("data:image/jpeg") > 50


def test_slices_need_an_index_of_the_validation_images(
    photos: Path, photo_images: Any, photo_encoder: Any
) -> None:
    other = index_from_regions(
        np.eye(1, 512, dtype=np.float32), [0, 1], ids=[-5], encoder_fingerprint=""
    )
    with pytest.raises(InputError, match="give it with --val-index"):
        make_report(
            title="",
            detections=photos / "yolox_nano_results.json",
            val=photo_images,
            val_index=other,
            encoder=photo_encoder,
            slices=["person"],
        )
