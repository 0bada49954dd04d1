"""A small detector and its data, shared by the examples; nothing here is about mining."""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.transforms.functional import to_tensor

import hardmine
from hardmine.datasets import open_image
from hardmine.detections import average_precision_from_matches, match_detections
from hardmine.scenes import write_scenes


def arguments(about):
    """--quick is what the tests run: a handful of images, seconds."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--out", type=Path, default=Path("work/example"), help="working folder")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.images, args.epochs = 12, 2
    return args


def scenes(folder, num_images):
    """Generated, labelled pictures: train and val, written once."""
    if not (folder / "annotations").exists():
        write_scenes(folder, num_images=num_images, seed=0)
    return tuple(hardmine.load_images(folder, split=split) for split in ("train", "val"))


class Detection(Dataset):
    """Pictures and boxes of an image set, as torchvision's detectors take them."""

    def __init__(self, images):
        self.images = images
        self.starts = np.searchsorted(images.instances.image_rows, np.arange(len(images) + 1))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        mine = slice(self.starts[row], self.starts[row + 1])
        boxes = torch.from_numpy(self.images.instances.boxes[mine]).reshape(-1, 4)
        labels = torch.from_numpy(self.images.instances.class_rows[mine].astype(np.int64)) + 1
        picture = to_tensor(open_image(self.images.path(row)))
        return picture, {"boxes": boxes, "labels": labels}


def loader(images, sampler, batch_size=4):
    """The sampler decides what is drawn; the rest of the loader stays as it was."""
    return DataLoader(Detection(images), batch_size, sampler=sampler, collate_fn=list)


def detector(num_classes):
    """Small and untrained: no download."""
    torch.manual_seed(0)
    return fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=num_classes + 1, min_size=192, max_size=192
    )


def train(model, batches, optimizer):
    """One pass over the batches."""
    model.train()
    for batch in batches:
        pictures, targets = map(list, zip(*batch, strict=True))
        loss = sum(model(pictures, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def detect(model, images):
    """What the detector finds, in COCO's results format."""
    model.eval()
    results = []
    for row, (picture, _) in enumerate(Detection(images)):
        (found,) = model([picture])
        for box, label, score in zip(found["boxes"], found["labels"], found["scores"], strict=True):
            left, top, right, bottom = box.tolist()
            result = {"image_id": images.ids[row].item(), "score": score.item()}
            result["category_id"] = images.class_ids[label - 1].item()
            result["bbox"] = [left, top, right - left, bottom - top]
            results.append(result)
    return results


def judge(images, results):
    """AP of each class by name, NaN where the images show none; any metric form would do."""
    ap = average_precision_from_matches(match_detections(images, results))
    return dict(zip(images.class_names, ap.tolist(), strict=True))
