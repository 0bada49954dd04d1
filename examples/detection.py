"""A small detector and its data, shared by the examples. Nothing here is about mining."""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.transforms.functional import to_tensor

import hardmine
from hardmine.detections import average_precision_from_matches, match_detections
from hardmine.scenes import write_scenes


def parse_arguments(description):
    """Parse the options that all examples share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("work/example"), help="output folder")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="a few images, for the tests")
    args = parser.parse_args()
    if args.quick:
        args.images, args.epochs = 12, 2
    return args


def load_scenes(folder, num_images):
    """Generated images with labels, train and val; written by the first call."""
    if not (folder / "annotations").exists():
        write_scenes(folder, num_images=num_images, seed=0)
    return tuple(hardmine.load_images(folder, split=split) for split in ("train", "val"))


class DetectionDataset(Dataset):
    """Images and boxes of an image set, in the form of torchvision's detectors."""

    def __init__(self, images):
        self.images = images
        self.starts = np.searchsorted(images.instances.image_rows, np.arange(len(images) + 1))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        own = slice(self.starts[row], self.starts[row + 1])
        boxes = torch.from_numpy(self.images.instances.boxes[own]).reshape(-1, 4)
        labels = torch.from_numpy(self.images.instances.class_rows[own].astype(np.int64)) + 1
        image = to_tensor(self.images.open(row))
        return image, {"boxes": boxes, "labels": labels}


def make_loader(images, sampler, batch_size=4):
    """A plain DataLoader with hardmine's sampler."""
    return DataLoader(DetectionDataset(images), batch_size, sampler=sampler, collate_fn=list)


def make_detector(num_classes):
    """A small detector with random weights, so that nothing is downloaded."""
    torch.manual_seed(0)
    size = {"min_size": 192, "max_size": 192, "box_batch_size_per_image": 64}
    return fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=num_classes + 1, **size
    )


def train(model, batches, optimizer):
    """Train on batches, one step each."""
    model.train()
    for batch in batches:
        images, targets = map(list, zip(*batch, strict=True))
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def detect(model, images):
    """Detect on all images; returns COCO's results format."""
    model.eval()
    results = []
    for row, (image, _) in enumerate(DetectionDataset(images)):
        (found,) = model([image])
        for box, label, score in zip(found["boxes"], found["labels"], found["scores"], strict=True):
            left, top, right, bottom = box.tolist()
            result = {"image_id": images.ids[row].item(), "score": score.item()}
            result["category_id"] = images.class_ids[label - 1].item()
            result["bbox"] = [left, top, right - left, bottom - top]
            results.append(result)
    return results


def evaluate(images, results):
    """AP by class name; NaN for a class without objects. The miner reads other forms too."""
    ap = average_precision_from_matches(match_detections(images, results))
    return dict(zip(images.class_names, ap.tolist(), strict=True))
