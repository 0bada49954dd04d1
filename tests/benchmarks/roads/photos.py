"""The road photos: labels, attributes, one index, and the decoded pixels, each made once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hardmine import build_index, load_images
from hardmine.datasets import open_image
from hardmine.index.base import Index
from hardmine.records import ImageSet
from tests.benchmarks.roads.encoder import RoadEncoder

ROADS = Path(__file__).resolve().parents[4] / "shared" / "roads"
FREQUENT = ("car", "person", "truck", "bus")
RARE = ("bicycle", "rider", "motorcycle")


@dataclass(frozen=True)
class RoadPhotos:
    """All photos with what was computed of them.

    Attributes:
        roads: Folder of the photos.
        work: Folder of what is computed once.
    """

    roads: Path
    work: Path

    @cached_property
    def images(self) -> ImageSet:
        """6,301 photos with labels."""
        return load_images(self.roads / "images", annotations=self.roads / "instances.json")

    @cached_property
    def attributes(self) -> dict[str, npt.NDArray[np.str_]]:
        """(N,) time of day and (N,) weather; only for splits, told strategies and judging."""
        content = json.loads((self.roads / "instances.json").read_text())
        of_id = {image["id"]: image for image in content["images"]}
        entries = [of_id[image_id] for image_id in self.images.ids.tolist()]
        return {
            name: np.array([entry[name] for entry in entries]) for name in ("timeofday", "weather")
        }

    @cached_property
    def encoder(self) -> RoadEncoder:
        """Embeds photos and texts."""
        return RoadEncoder(self.roads)

    @cached_property
    def index(self) -> Index:
        """Regions of all photos, by the default clustering; a miner uses those of its split."""
        self.work.mkdir(parents=True, exist_ok=True)
        return build_index(self.images, self.encoder, self.work / "index.hmx", shard_size=512)

    def pixels(self, height: int, width: int) -> torch.Tensor:
        """(N, H, W, 3) uint8 in RGB order, on disk and shared by all processes."""
        path = self.work / f"pixels-{width}x{height}.npy"
        if not path.exists():
            self._decode(path, height, width)
        return torch.from_numpy(np.load(path, mmap_mode="c"))

    def _decode(self, path: Path, height: int, width: int) -> None:
        from PIL import Image

        self.work.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        shape = (len(self.images), height, width, 3)
        pixels = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        for row in range(len(self.images)):
            image = open_image(self.images.path(row)).convert("RGB")
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            pixels[row] = np.asarray(image)
        pixels.flush()
        part.rename(path)


def require_photos(roads: Path) -> str:
    """Why the benchmark cannot run; empty if it can."""
    if not (roads / "instances.json").is_file():
        return f"the road photos ({roads}) are not here"
    return ""
