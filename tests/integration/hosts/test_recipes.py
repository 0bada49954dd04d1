"""The lines of ``docs/hosts/loops.md`` are run, on generated scenes."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO
from faster_coco_eval.utils.pytorch import FasterCocoEvaluator
from host_scenes import BATCH_SIZE, Detector, SceneDataset, collate, load_scenes, miner_options
from pixel_images import PixelEncoder

import hardmine
from hardmine.config import miner_arguments
from hardmine.detections import load_detections

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs/hosts/loops.md").read_text(encoding="utf-8")


def block(title: str, number: int, names: dict[str, Any], **replaced: str) -> None:
    """Run a block of a section of the document."""
    section = DOCUMENT.partition(f"## {title}\n")[2].partition("\n## ")[0]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[number]
    for old, new in replaced.items():
        assert old in code
        code = code.replace(old, new)
    exec(compile(code, "loops.md", "exec"), names)  # the document is ours


@pytest.fixture(scope="module")
def names(scenes) -> dict[str, Any]:
    """What the blocks find: the first one's names, with a small encoder."""
    train, val = load_scenes(scenes)
    encoder = PixelEncoder()

    def index_of(images: Any, name: str) -> Any:
        return hardmine.build_index(images, encoder, scenes / name, clusters="none")

    def miner(*args: Any, **more: Any) -> Any:
        return hardmine.HardMiner(*args, **more, **miner_arguments(miner_options()))

    return {
        "hardmine": SimpleNamespace(HardMiner=miner, HardMiningSampler=hardmine.HardMiningSampler),
        "images": train,
        "encoder": encoder,
        "index": index_of(train, "recipe.hmx"),
        "validation": hardmine.ValidationSet(val, index_of(val, "recipe-val.hmx")),
        "dataset": SceneDataset(train),
        "collate": collate,
    }


def found_near_labels(images: Any) -> dict[Any, dict[str, torch.Tensor]]:
    """For each image id boxes near its labels, as torchvision's detectors return them."""
    rng = np.random.default_rng(0)
    instances = images.instances
    predictions = {}
    for row, image_id in enumerate(images.ids.tolist()):
        own = instances.image_rows == row
        boxes = instances.boxes[own] + rng.normal(0, 1, (own.sum(), 4))
        predictions[image_id] = {
            "boxes": torch.tensor(boxes).float(),
            "scores": torch.rand(len(boxes), generator=torch.Generator().manual_seed(row)),
            "labels": torch.tensor(images.class_ids[instances.class_rows[own]]),
        }
    return predictions


def test_accelerate(names) -> None:
    model = Detector(len(names["images"].class_names))
    results = [
        {"image_id": image_id, "category_id": int(label), "bbox": box.tolist(), "score": 0.5}
        for image_id, found in found_near_labels(names["validation"].images).items()
        for label, box in zip(found["labels"], found["boxes"], strict=True)
    ]
    steps: list[int] = []

    def train_step(model: Any, optimizer: Any, batch: Any) -> None:
        steps.append(len(batch["rows"]))

    used = names | {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=1e-3),
        "epochs": 2,
        "train_step": train_step,
        "validate": lambda model: (dict.fromkeys(names["images"].class_names, 0.1), results),
    }
    block("Accelerate", 0, used, **{"batch_size=16": f"batch_size={BATCH_SIZE}"})
    assert sum(steps) == 2 * len(names["images"])
    assert used["sampler"].weights.max() > 1.05
    done = used["miner"].last_round
    assert (done.number, done.inputs.weights.look_alone) == (2, True)


def test_torchvisions_reference_script(names, scenes) -> None:
    val = names["validation"].images
    used = dict(names)
    block("torchvision's reference script", 0, used)
    annotations = next(iter((scenes / "annotations").glob("*val*.json")))
    used |= {
        "CocoEvaluator": FasterCocoEvaluator,
        "coco": COCO(str(annotations)),
        "iou_types": ["bbox"],
        "epoch": 0,
        "args": SimpleNamespace(epochs=3),
    }
    block("torchvision's reference script", 1, used)
    predictions = found_near_labels(val)
    for image_id, found in predictions.items():
        used["coco_evaluator"].update({image_id: found})
    used["coco_evaluator"].synchronize_between_processes()
    used["coco_evaluator"].accumulate()
    kept = used["kept"]
    gathered: list[Any] = []
    used["kept"] = SimpleNamespace(gather=lambda: gathered.extend(kept.gather()) or gathered)
    block("torchvision's reference script", 2, used)
    assert used["train_sampler"].weights.max() > 1.2
    boxes = load_detections(gathered, val)
    expected = torch.cat([found["boxes"] for found in predictions.values()])
    assert boxes.boxes == pytest.approx(expected.numpy(), abs=1e-3)
    assert kept.gather() == []
