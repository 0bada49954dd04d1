"""The road benchmark's own parts; the photos themselves are needed by the last tests only."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hardmine.detections import Detections
from hardmine.records import ImageSet, Instances, numbers
from tests.benchmarks.roads import retrieval
from tests.benchmarks.roads.__main__ import parse_seeds
from tests.benchmarks.roads.detector import (
    STRIDES,
    RoadExamples,
    assign_boxes,
    grid_locations,
    make_examples,
    mirrored_locations,
)
from tests.benchmarks.roads.judge import judge
from tests.benchmarks.roads.photos import ROADS, require_photos
from tests.benchmarks.roads.setup import REGIMES
from tests.benchmarks.roads.splits import (
    SCENARIOS,
    Split,
    condition_rows,
    make_split,
    training_labels,
)
from tests.benchmarks.roads.strategies import told_factors
from tests.benchmarks.roads.table import build_report, part_means, to_markdown, write_table
from tests.benchmarks.roads.warmup import round_sampler

HEIGHT, WIDTH = 64, 96


def attributes(count: int = 6301) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "timeofday": rng.choice(["daytime", "night"], count, p=[0.61, 0.39]),
        "weather": rng.choice(["clear", "rainy", "snowy"], count, p=[0.84, 0.08, 0.08]),
    }


def image_set(boxes: np.ndarray, image_rows: np.ndarray, class_rows: np.ndarray) -> ImageSet:
    count = 1 + int(image_rows.max(initial=0))
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return ImageSet(
        root=Path(),
        ids=np.arange(count),
        paths=tuple(f"{row}.jpg" for row in range(count)),
        sizes=np.tile(np.array([[HEIGHT, WIDTH]], np.int32), (count, 1)),
        class_names=("car", "person"),
        class_ids=np.array([3, 7]),
        instances=Instances(
            image_rows.astype(np.int32),
            class_rows.astype(np.int32),
            boxes.astype(np.float32),
            areas.astype(np.float32),
            np.zeros(len(boxes), bool),
            np.arange(len(boxes)),
        ),
    )


def random_images(images: int = 40, objects: int = 120) -> ImageSet:
    rng = np.random.default_rng(1)
    corner = rng.integers(0, 40, (objects, 2)) * 1.0
    boxes = np.concatenate([corner, corner + rng.integers(6, 24, (objects, 2))], axis=1)
    image_rows = np.sort(np.concatenate([[images - 1], rng.integers(0, images, objects - 1)]))
    return image_set(boxes, image_rows, rng.integers(0, 2, objects))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_splits_share_no_photo_and_test_on_the_same_ones(scenario: str) -> None:
    told = attributes()
    split, plain = (make_split(SCENARIOS[name], 3, told) for name in (scenario, "as-it-comes"))
    parts = [split.train, split.val, split.test]
    assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts))
    assert len(split.train) == SCENARIOS[scenario].num_train
    np.testing.assert_array_equal(split.val, plain.val)
    np.testing.assert_array_equal(split.test, plain.test)


@pytest.mark.parametrize(
    ("scenario", "condition", "share"),
    [("night-is-coming", "night", 0.04), ("snow-is-coming", "snow", 0.01)],
)
def test_a_coming_condition_is_rare_in_training_alone(
    scenario: str, condition: str, share: float
) -> None:
    told = attributes()
    split = make_split(SCENARIOS[scenario], 0, told)
    shows = condition_rows(condition, told)
    assert shows[split.train].mean() == pytest.approx(share, abs=5e-4)
    assert shows[split.val].mean() == pytest.approx(shows.mean(), abs=0.04)


def test_few_labels_drops_a_third_of_the_boxes_of_known_photos() -> None:
    images = random_images(images=600, objects=6000)
    known = np.arange(600) % 2 == 0
    split = Split(np.arange(600), np.arange(0), np.arange(0), known, label_seed=5)
    assert images.instances is not None
    before = np.bincount(images.instances.image_rows, minlength=600)
    labels = training_labels(images, split).instances
    assert labels is not None
    after = np.bincount(labels.image_rows, minlength=600)
    np.testing.assert_array_equal(after[~known], before[~known])
    assert after[known].sum() / before[known].sum() == pytest.approx(2 / 3, abs=0.03)


def test_told_factors_draw_the_condition_as_often_as_validation_shows_it() -> None:
    train = np.arange(200) < 8
    weights = told_factors(train, np.arange(100) < 39)
    assert weights[train].sum() / weights.sum() == pytest.approx(0.39)
    np.testing.assert_array_equal(told_factors(np.arange(10) < 8, np.arange(10) < 3), np.ones(10))


def test_a_box_goes_to_the_locations_around_its_centre_on_the_level_of_its_size() -> None:
    boxes = torch.tensor([[10.0, 10, 22, 22], [0.0, 0, 60, 60]])
    assigned = assign_boxes(boxes, HEIGHT, WIDTH)
    locations, strides = grid_locations(HEIGHT, WIDTH)
    for number, stride in ((0, STRIDES[0]), (1, STRIDES[1])):
        own = assigned == number
        assert own.any()
        assert (strides[own] == stride).all()
        centre = (boxes[number, :2] + boxes[number, 2:]) / 2
        assert ((locations[own] - centre).abs() <= stride).all()
    assert (assign_boxes(boxes[:0], HEIGHT, WIDTH) == -1).all()


def test_a_flipped_batch_has_the_targets_of_flipped_labels() -> None:
    images = random_images()
    pixels = torch.randint(0, 255, (len(images), HEIGHT, WIDTH, 3), dtype=torch.uint8)
    rows = torch.arange(len(images))
    examples = make_examples(images, pixels, rows)
    inputs, targets = examples.batch(rows, torch.ones(len(rows), dtype=torch.bool))
    np.testing.assert_array_equal(inputs.permute(0, 2, 3, 1), pixels.flip(2))
    locations, _ = grid_locations(HEIGHT, WIDTH)
    mirrored = locations[mirrored_locations(HEIGHT, WIDTH)]
    np.testing.assert_allclose(WIDTH - mirrored[:, 0], locations[:, 0])
    foreground = targets.class_rows >= 0
    assert foreground.any()
    assert images.instances is not None
    for row in range(len(images)):
        own = images.instances.image_rows == row
        boxes = images.instances.boxes[own][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [WIDTH, 0, WIDTH, 0]
        expected = assign_boxes(torch.from_numpy(boxes.astype(np.float32)), HEIGHT, WIDTH)
        np.testing.assert_array_equal(expected >= 0, foreground[row])
        found = targets.boxes[row][foreground[row]]
        np.testing.assert_allclose(
            found, boxes[expected[expected >= 0].numpy()].reshape(-1, 4), atol=1e-4
        )


def test_photos_without_labels_are_background() -> None:
    images = image_set(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int))
    examples = make_examples(
        images, torch.zeros(1, HEIGHT, WIDTH, 3, dtype=torch.uint8), torch.arange(1)
    )
    assert isinstance(examples, RoadExamples)
    _, targets = examples.batch(torch.tensor([0]), torch.tensor([True]))
    assert (targets.class_rows == -1).all()


def test_ap_is_that_of_pycocotools_on_all_photos_and_on_a_group() -> None:
    images = random_images()
    rng = np.random.default_rng(2)
    labels = images.instances
    assert labels is not None
    chosen = rng.integers(0, len(labels), 400)
    found = Detections(
        labels.image_rows[chosen].astype(np.int64),
        labels.class_rows[chosen].astype(np.int64),
        (labels.boxes[chosen] + rng.normal(0, 2.5, (400, 4))).astype(np.float64),
        rng.permutation(400) / 400,
    )
    told = {"timeofday": np.where(np.arange(40) < 24, "night", "daytime")}
    judged = judge(images, found, told)
    assert "timeofday=daytime" not in judged  # 16 photos are too few
    for group, ids in (("all", range(40)), ("timeofday=night", range(24))):
        expected = coco_ap(images, found, list(ids))
        for metric, values in zip(("ap", "ap50"), expected, strict=True):
            np.testing.assert_allclose(numbers(judged[group][metric]), values, atol=1e-3)


def coco_ap(images: ImageSet, found: Detections, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(C,) AP and AP50 by pycocotools, from 0 to 100."""
    labels = images.instances
    assert labels is not None
    xywh = [np.concatenate([box[:2], box[2:] - box[:2]]).tolist() for box in labels.boxes]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": row} for row in range(len(images))],
            "categories": [{"id": int(class_id)} for class_id in images.class_ids],
            "annotations": [
                {
                    "id": row + 1,
                    "image_id": int(labels.image_rows[row]),
                    "category_id": int(images.class_ids[labels.class_rows[row]]),
                    "bbox": xywh[row],
                    "area": float(labels.areas[row]),
                    "iscrowd": 0,
                }
                for row in range(len(labels))
            ],
        }
        truth.createIndex()
        results = [
            {
                "image_id": int(found.image_rows[row]),
                "category_id": int(images.class_ids[found.class_rows[row]]),
                "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                "score": float(found.scores[row]),
            }
            for row, box in enumerate(found.boxes)
        ]
        evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluator.params.imgIds = ids
        evaluator.evaluate()
        evaluator.accumulate()
    precision = 100 * evaluator.eval["precision"][..., 0, 2]  # (thresholds, recalls, classes)
    return precision.mean(axis=(0, 1)), precision[0].mean(axis=0)


def run(strategy: str, seed: int, car: float, **more: float | None) -> dict[str, object]:
    names = ["bicycle", "bus", "car", "motorcycle", "person", "rider", "truck"]
    values = [more.get(name, car) for name in names]
    group = {"photos": 100, "ap": values, "ap50": values}
    shares = {"night": 0.1, "rain": 0.1, "snow": 0.1}
    return {
        "scenario": "night-is-coming",
        "passes": "usual",
        "seed": seed,
        "strategy": strategy,
        "class_names": names,
        "test": {"all": group, "timeofday=night": group},
        "draws": [shares, {**shares, "night": 0.3}],
        "undrawn_draws": shares,
        "cpu_seconds": 10.0,
        "mining_seconds": 1.0,
    }


def test_gains_are_paired_by_split_and_only_complete_splits_count() -> None:
    runs = [
        *(run("uniform", seed, value) for seed, value in ((0, 10.0), (1, 20.0), (2, 90.0))),
        *(run("told", seed, value) for seed, value in ((0, 11.0), (1, 23.0))),
    ]
    entry = build_report(runs)["night-is-coming"]["usual"]["choosing"]
    assert entry["seeds"] == [0, 1]
    told = entry["strategies"]["told"]
    cell = told["results"]["timeofday=night/frequent/ap50"]
    assert cell["by_seed"] == [11.0, 23.0]
    assert cell["gain"] == [2.0, 1.0]
    assert told["draws"]["night"] == pytest.approx(0.2)
    assert "+2.0 ± 1.0" in to_markdown(build_report(runs))


def test_the_tables_are_written(tmp_path: Path) -> None:
    runs = [run(name, seed, 10.0 + seed) for name in ("uniform", "told") for seed in (0, 1)]
    written = write_table(runs, tmp_path / "out")
    assert [path.suffix for path in written[:2]] == [".json", ".md"]
    assert json.loads(written[0].read_text()) == build_report(runs)
    assert all(path.stat().st_size for path in written)


def test_retrieval_compares_each_clustering_with_one_vector_a_photo() -> None:
    kinds = ["classes", "classes", "classes, small and medium", "class and condition"]
    kinds += ["class and condition"]
    results = {
        "whole": {"vectors": 1.0, "ap": [10.0, 20.0, 5.0, 5.0, None]},
        "kmeans:10": {"vectors": 10.0, "ap": [12.0, 26.0, 5.0, 8.0, None]},
    }
    texts = ["car", "bus", "car", "car at night", "bus at night"]
    report = {"texts": texts, "kinds": kinds, "clusters": results}
    text = retrieval.to_markdown(report)
    assert "| `kmeans:10` | 10 | 19.0 / +4.0 ± 2.0 |" in text
    assert "| `kmeans:10` | 12 | 26 |" in text


@pytest.mark.parametrize("passes", REGIMES)
def test_rounds_draw_the_same_whether_or_not_those_before_are_trained_anew(passes: str) -> None:
    setup = SimpleNamespace(regime=REGIMES[passes], train=range(10), seed=3)
    sampler = round_sampler(setup)
    draws = [list(sampler) for _ in range(REGIMES[passes].rounds)]
    last = len(draws) - 1
    assert list(round_sampler(setup, rounds=last)) == draws[last]
    assert draws[0] != draws[last]


def test_seeds_are_read_as_ranges_and_lists() -> None:
    assert parse_seeds("5-7,1") == [5, 6, 7, 1]


def test_runs_on_another_processor_are_paired_with_its_own_uniform_runs() -> None:
    first = [run("uniform", 0, 10.0), run("told", 0, 11.0), run("uniform", 1, 20.0)]
    second = [run("uniform", 0, 30.0), run("told", 0, 35.0), run("uniform", 1, 5.0)]
    second += [run("told", 1, 7.0), run("repeat", 0, 31.0), run("repeat", 1, 5.0)]
    runs = [{**one, "processor": 0} for one in first] + [{**one, "processor": 1} for one in second]
    found = build_report(runs)["night-is-coming"]["usual"]["choosing"]["strategies"]
    gains = {name: one["results"]["all/frequent/ap"].get("gain") for name, one in found.items()}
    assert gains == {"uniform": None, "repeat": [0.5, 0.5], "told": [2.5, 0.5]}
    assert found["uniform"]["results"]["all/frequent/ap"]["by_seed"] == [20.0, 12.5]
    assert [found[name]["runs"] for name in ("uniform", "repeat", "told")] == [4, 2, 3]


def test_the_mean_leaves_out_classes_without_objects() -> None:
    values = part_means(
        [run("uniform", 0, 10.0, bus=None, truck=40.0)], "all", ("bus", "car", "truck"), "ap"
    )
    np.testing.assert_allclose(values, [25.0])


@pytest.fixture(scope="module")
def roads() -> Path:
    reason = require_photos(ROADS)
    if reason:
        pytest.skip(reason)
    return ROADS


def test_folding_the_norms_leaves_the_trunk_as_it_was_trained(roads: Path) -> None:
    from tests.benchmarks.roads.trunk import Trunk, load_trunk

    file = roads / "detector" / "trunk.npz"
    plain = Trunk().eval()
    with np.load(file) as arrays:
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    plain.load_state_dict(state, strict=False)
    images = torch.rand(1, 3, HEIGHT, WIDTH)
    with torch.inference_mode():
        for ours, theirs in zip(load_trunk(file)(images), plain(images.flip(1)), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_encoder_tells_night_from_day(roads: Path) -> None:
    from hardmine.datasets import open_image
    from tests.benchmarks.roads.encoder import RoadEncoder

    encoder = RoadEncoder(roads)
    photos = json.loads((roads / "instances.json").read_text())["images"]
    texts = encoder.encode_texts(["at night", "by day"])
    scores = {}
    for name in ("night", "daytime"):
        chosen = [photo["file_name"] for photo in photos if photo["timeofday"] == name][:8]
        batch = torch.stack(
            [encoder.preprocess(open_image(roads / "images" / file)) for file in chosen]
        )
        features = encoder.encode_images(batch)
        assert features.patches.shape == (8, 9, 16, 512)
        whole = features.whole @ texts.T
        scores[name] = (whole[:, 0] - whole[:, 1]).numpy()
    assert scores["night"].min() > scores["daytime"].max() - 0.05
    assert scores["night"].mean() > scores["daytime"].mean() + 0.1
