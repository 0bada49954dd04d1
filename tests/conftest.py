"""What several test folders share."""

from __future__ import annotations

from pathlib import Path

import pytest

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "photos"


@pytest.fixture(scope="session")
def photos() -> Path:
    """Folder of real photos with boxes, captions and detections; skips where it is absent."""
    if not (PHOTOS / "instances.json").is_file():
        pytest.skip(f"real photos are not on this machine (looked in {PHOTOS})")
    return PHOTOS
