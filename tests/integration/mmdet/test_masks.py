"""AP by class of the masks and of the boxes of one detector, whatever the metric reports."""

from __future__ import annotations

import json

import mmdet_noisy  # noqa: F401 - registers NoisyDetector
import numpy as np
import pytest
from mmdet_case import CLASSES, coco, config, make_runner, mask_rcnn, with_masks
from PIL import Image
from pixel_images import PixelEncoder

from hardmine.errors import InputError
from hardmine.history import read_rounds
from hardmine_mmdet import HardMiningHook


def train(settings, **hook):
    """Train with mining; returns the scalars logged last and the last round."""
    for loader in (settings.train_dataloader, settings.val_dataloader):
        loader.dataset.pipeline = with_masks(loader.dataset.pipeline)
    settings.custom_hooks = []
    runner = make_runner(settings)
    miner = {"need": {"policy": "below:0.99"}}
    runner.register_hook(
        HardMiningHook(encoder=PixelEncoder(), clusters="kmeans:4+whole", miner=miner, **hook)
    )
    runner.train()
    scalars = runner.message_hub.log_scalars
    logged = {name: history.current() for name, history in scalars.items()}
    return logged, read_rounds(runner.work_dir + "/hardmine/rounds.jsonl")[-1]


@pytest.mark.parametrize(
    ("iou_type", "order"), [("bbox", ["bbox", "segm"]), ("segm", ["segm", "bbox"])]
)
def test_what_the_metric_overwrites_is_evaluated(scenes, tmp_path, iou_type, order) -> None:
    """A metric reports boxes and masks under one name; two separate metrics are the reference."""
    metric = {"type": "CocoMetric", "ann_file": str(scenes[1] / "labels.json"), "classwise": True}
    evaluators = [
        {**metric, "metric": order, "prefix": "both"},
        {**metric, "metric": "bbox", "prefix": "bbox"},
        {**metric, "metric": "segm", "prefix": "segm"},
    ]
    settings = config(
        *scenes, tmp_path, model={"type": "NoisyDetector"}, epochs=1, val_evaluator=evaluators
    )
    logged, last = train(settings, metric="both", iou_type=iou_type)
    assert not last.error
    expected = [logged[f"val/{iou_type}/{name}_precision"] for name in CLASSES]
    other = [logged[f"val/{order[-1]}/{name}_precision"] for name in CLASSES]
    assert not np.allclose(expected, other, atol=0.01, equal_nan=True)
    # The metric rounds to three digits.
    got = [last.ap[last.class_names.index(name)] for name in CLASSES]
    np.testing.assert_allclose(got, expected, atol=5.1e-4)


def test_mask_rcnn_is_mined_by_its_masks(scenes, tmp_path) -> None:
    """The predictions of a real detector can be read."""
    evaluator = {
        "type": "CocoMetric",
        "ann_file": str(scenes[1] / "labels.json"),
        "metric": ["segm", "bbox"],
    }
    settings = config(*scenes, tmp_path, model=mask_rcnn(), epochs=1, val_evaluator=evaluator)
    _, last = train(settings, iou_type="segm")
    assert not last.error
    assert np.nanmax(last.ap) >= 0
    assert last.weak


def test_masks_need_labels_with_masks(scenes, tmp_path) -> None:
    folder = tmp_path / "boxes"
    folder.mkdir()
    labels = json.loads((scenes[1] / "labels.json").read_text())
    for annotation in labels["annotations"]:
        del annotation["segmentation"]
    (folder / "labels.json").write_text(json.dumps(labels))
    (folder / "images").symlink_to(scenes[1] / "images")
    settings = config(scenes[0], folder, tmp_path / "work", val_evaluator={"type": "VOCMetric"})
    settings.custom_hooks = [{"type": "HardMiningHook", "encoder": "tiny", "iou_type": "segm"}]
    with pytest.raises(InputError, match="needs masks in the validation set"):
        make_runner(settings).train()


STREET = ("person", "car", "bicycle")


def write_street(root) -> None:
    """Four images in the layout of Cityscapes, and their labels in COCO's format."""
    from cityscapesscripts.helpers.labels import name2label

    images, annotations = [], []
    for number in range(4):
        name = f"a/a_{number:06}_000019"
        for folder in ("leftImg8bit/a", "gtFine/a"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((64, 64, 3), np.uint8)
        instances = np.zeros((64, 64), np.uint16)
        for row, kind in enumerate(STREET):
            x1, y1, x2, y2 = 4 + number, 2 + 20 * row, 44 + number, 18 + 20 * row
            pixels[y1:y2, x1:x2, row] = 255
            instances[y1:y2, x1:x2] = 1000 * name2label[kind].id
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": row,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
                    "iscrowd": 0,
                }
            )
        Image.fromarray(pixels).save(root / "leftImg8bit" / f"{name}_leftImg8bit.png")
        Image.fromarray(instances).save(root / "gtFine" / f"{name}_gtFine_instanceIds.png")
        images.append(
            {"id": number, "file_name": f"{name}_leftImg8bit.png", "width": 64, "height": 64}
        )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": row, "name": name} for row, name in enumerate(STREET)],
    }
    (root / "labels.json").write_text(json.dumps(content))


def test_cityscapes_metric(tmp_path) -> None:
    """It reports the mean AP alone; the AP by class computed here has the same mean."""
    pytest.importorskip("cityscapesscripts", reason="pip install cityscapesscripts")
    if not hasattr(np, "in1d"):
        pytest.skip("cityscapesscripts 2.3 needs np.in1d, gone from NumPy 2.4")
    write_street(tmp_path / "street")
    street = [
        coco(
            tmp_path / "street",
            train=train,
            data_prefix={"img": "leftImg8bit/"},
            metainfo={"classes": STREET},
        )
        for train in (True, False)
    ]
    # Shifted by 8 of 40 pixels, a mask has an IoU of 2/3 with its label: right at 4 of 10 IoUs.
    model = {"type": "NoisyDetector", "box_shifts": [0, 0, None], "mask_shifts": [8, 0, None]}
    settings = config(
        tmp_path / "street",
        tmp_path / "street",
        tmp_path / "work",
        model=model,
        epochs=1,
        val_evaluator={
            "type": "CityScapesMetric",
            "outfile_prefix": str(tmp_path / "masks"),
            "seg_prefix": str(tmp_path / "street" / "gtFine"),
        },
        **{"train_dataloader.dataset": street[0], "val_dataloader.dataset": street[1]},
    )
    logged, last = train(settings, iou_type="segm")
    assert not last.error
    ap = dict(zip(last.class_names, last.ap, strict=True))
    assert ap == pytest.approx({"person": 0.4, "car": 1.0, "bicycle": 0.0}, abs=1e-6)
    assert logged["val/cityscapes/mAP"] == pytest.approx(sum(ap.values()) / 3, abs=1e-3)
