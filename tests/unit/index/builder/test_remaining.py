"""What earlier runs have embedded stays embedded, whatever the images of the next run are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pixel_images import PixelEncoder, list_images, write_image, write_images

from hardmine.encoders.base import DenseFeatures
from hardmine.errors import HardmineError, IndexMismatch
from hardmine.index import (
    build_index,
    compact_index,
    read_manifest,
    update_index,
    verify_index,
)
from hardmine.index.builder.build_folder import BuildFolder


class CountingEncoder(PixelEncoder):
    """Counts the images that it encodes, and fails after a number of them."""

    def __init__(self, limit: int = 1000) -> None:
        super().__init__()
        self.count, self.limit = 0, limit

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        if self.count + len(batch) > self.limit:
            raise MemoryError("out of memory")
        self.count += len(batch)
        return super().encode_images(batch)


@pytest.mark.parametrize("scenario", ["build", "update"])
def test_what_is_embedded_stays_embedded_when_the_images_change(
    tmp_path: Path, scenario: str
) -> None:
    """Broken off twice, with one more image each time; one changes and one goes in between."""
    out, files = tmp_path / "out", tmp_path / "images"
    write_images(files, 14, broken=[3])
    options: dict[str, Any] = {"shard_size": 2, "batch_size": 1}
    if scenario == "build":
        start, plain = 0, {"clusters": "none", **options}
        work: Any = lambda images, encoder: build_index(images, encoder, out, **plain)  # noqa: E731
    else:
        start = 2
        build_index(list_images(files, range(2)), PixelEncoder(), out, clusters="none", **options)
        work = lambda images, encoder: update_index(out, images, encoder, **options)  # noqa: E731
    for count in (12, 13):
        with pytest.raises(MemoryError):
            work(list_images(files, range(count)), CountingEncoder(4))
    if scenario == "update":
        with pytest.raises(
            HardmineError, match=r"unfinished update, of which . images are encoded"
        ):
            compact_index(out)
        # The finished index is opened; the unfinished update is not removed.
        again = build_index(
            list_images(files, range(2)), PixelEncoder(), out, clusters="none", **options
        )
        assert len(again) == 2
    waiting = sum(len(one.facts) for one in BuildFolder(out).finished(range(99)))
    # One shard of two images each time at least; a second may have been under way.
    assert waiting >= 4
    os.utime(files / f"{start}.jpg", ns=(1, 1))
    write_image(files / f"{start + 1}.jpg", 77)
    last = [number for number in range(14) if number != start + 4]
    encoder = CountingEncoder()
    index = work(list_images(files, last), encoder)
    # Of the images that were waiting, one has changed and one may be gone.
    assert encoder.count <= len(last) - start - (waiting - 2)
    fresh = build_index(
        list_images(files, last), PixelEncoder(), tmp_path / "fresh", clusters="none"
    )
    assert index.ids.tolist() == fresh.ids.tolist()
    queries = PixelEncoder().encode_texts(["a", "night"])
    np.testing.assert_array_equal(index.scores(queries), fresh.scores(queries))
    assert verify_index(out) == ()
    assert not (out / ".build").exists()
    kept = {record.name for record in read_manifest(out).files}
    assert {path.name for path in (out / "shards").iterdir()} == {
        Path(name).name for name in kept if name.startswith("shards/")
    }


def test_other_images_do_not_replace_an_unfinished_build(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 12)
    with pytest.raises(MemoryError):
        build_index(
            images.subset(range(6)),
            CountingEncoder(4),
            tmp_path / "out",
            shard_size=2,
            batch_size=2,
        )
    with pytest.raises(IndexMismatch, match="an unfinished build with other settings: images was"):
        build_index(images.subset(range(6, 12)), PixelEncoder(), tmp_path / "out", shard_size=2)


def test_an_unfinished_build_without_a_finished_shard_loses_nothing(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 5)
    with pytest.raises(MemoryError):
        build_index(images.subset(range(4)), CountingEncoder(0), tmp_path / "out")
    with pytest.raises(IndexMismatch, match="seed was 0, is now 1"):
        build_index(images, PixelEncoder(), tmp_path / "out", seed=1)
    assert len(build_index(images, PixelEncoder(), tmp_path / "out")) == 5
