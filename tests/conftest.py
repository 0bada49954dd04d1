"""What several test folders share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from photo_encoder import PhotoEncoder

    from hardmine.encoders.base import DenseFeatures
    from hardmine.records import ImageSet

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "photos"


@pytest.fixture(scope="session")
def photos() -> Path:
    """Folder of real photos with boxes, captions and detections; skips where it is absent."""
    if not (PHOTOS / "instances.json").is_file():
        pytest.skip("the real photos (../shared/photos beside the repository) are not here")
    return PHOTOS


@pytest.fixture(scope="session")
def photo_images(photos: Path) -> ImageSet:
    """The photos as an image set: 730 images, 80 classes, 6,682 boxes."""
    from hardmine.datasets import load_images

    return load_images(photos / "images", annotations=photos / "instances.json")


@pytest.fixture(scope="session")
def photo_encoder(photos: Path) -> PhotoEncoder:
    """A real encoder for the photos; its texts are class names."""
    from photo_encoder import PhotoEncoder

    return PhotoEncoder(photos)


@pytest.fixture(scope="session")
def photo_features(
    photo_images: ImageSet, photo_encoder: PhotoEncoder, pytestconfig: pytest.Config
) -> DenseFeatures:
    """All photos embedded: patches (730, 13, 13, 512) float32 and whole (730, 512).

    Takes half a minute the first time; kept in pytest's cache folder after that.
    """
    import torch

    from hardmine.datasets import open_image
    from hardmine.encoders.base import DenseFeatures

    cache = pytestconfig.cache
    assert cache is not None
    file = cache.mkdir("photo_features") / f"{photo_encoder.fingerprint[:16]}.npz"
    if not file.exists():
        batches = []
        for start in range(0, len(photo_images), 10):
            rows = range(start, min(start + 10, len(photo_images)))
            batch = [photo_encoder.preprocess(open_image(photo_images.path(row))) for row in rows]
            batches.append(photo_encoder.encode_images(torch.stack(batch)))
        part = file.with_suffix(f".{os.getpid()}.part.npz")  # two test processes may get here
        np.savez(
            part,
            patches=torch.cat([features.patches for features in batches]).half().numpy(),
            whole=torch.cat([features.whole for features in batches]).numpy(),
        )
        part.replace(file)
    with np.load(file) as stored:
        patches = torch.from_numpy(stored["patches"]).float()
        return DenseFeatures(
            patches=torch.nn.functional.normalize(patches, dim=-1),
            whole=torch.from_numpy(stored["whole"]),
        )
