"""New indexes are made of fast pixels; those of earlier versions go on with exact ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pixel_images import PixelEncoder, list_images

from hardmine.encoders.base import DenseFeatures
from hardmine.encoders.preprocess import WholeImage
from hardmine.errors import InputError
from hardmine.index import build_index, compact_index, read_manifest, update_index
from hardmine.index.builder.pipeline import Progress
from hardmine.records import ImageSet

RESIZE = WholeImage((16, 16))
QUERIES = PixelEncoder().encode_texts(["a", "b", "night"])


class WholeImageEncoder(PixelEncoder):
    """Resizes as hardmine's own encoders do.

    With ``earlier``, its preprocess is not known to be a ``WholeImage``, so that an index is built
    as by a version that had no fast pixels.
    """

    def __init__(self, *, earlier: bool = False) -> None:
        super().__init__()
        self.preprocess = RESIZE.__call__ if earlier else RESIZE  # type: ignore[method-assign]

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        return super().encode_images(RESIZE.normalise(batch))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Six JPEGs of soft blotches, large enough to be decoded at half their size."""
    root = tmp_path_factory.mktemp("blotches")
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (7, 9, 3), dtype=np.uint8)
        blotches = Image.fromarray(noise).resize((90, 70), Image.Resampling.BICUBIC)
        blotches.save(root / f"{number}.jpg")
    return list_images(root, range(6))


def test_a_new_index_is_made_of_fast_pixels(tmp_path: Path, images: ImageSet) -> None:
    encoder = WholeImageEncoder()
    index = build_index(images, encoder, tmp_path / "fast", clusters="none")
    manifest = read_manifest(tmp_path / "fast")
    assert (manifest.format, manifest.pixels) == (2, "fast")
    assert index.sizes.tolist() == [[70, 90]] * 6
    exact = build_index(
        images, WholeImageEncoder(earlier=True), tmp_path / "exact", clusters="none"
    )
    earlier = read_manifest(tmp_path / "exact")
    assert (earlier.format, earlier.pixels) == (1, "exact")
    assert b'"pixels":' not in (tmp_path / "exact" / "manifest.json").read_bytes()
    difference = np.abs(index.scores(QUERIES) - exact.scores(QUERIES))
    assert 0 < difference.max() < 0.02
    build_index(images.subset([0]), encoder, tmp_path / "one", clusters="none")
    with pytest.raises(InputError, match=r"expected their preprocess \(WholeImage\), got method"):
        update_index(tmp_path / "one", images, WholeImageEncoder(earlier=True))


@pytest.mark.parametrize("earlier", [True, False])
def test_an_update_and_a_compaction_go_on_with_the_pixels_of_the_index(
    tmp_path: Path, images: ImageSet, earlier: bool
) -> None:
    begun, now = WholeImageEncoder(earlier=earlier), WholeImageEncoder()
    out = tmp_path / "out"
    build_index(images.subset([0, 1, 2, 3]), begun, out, clusters="none")
    updated = update_index(out, images.subset([1, 2, 4, 5]), now)
    expected = build_index(images.subset([1, 2, 4, 5]), begun, tmp_path / "new", clusters="none")
    np.testing.assert_array_equal(updated.scores(QUERIES), expected.scores(QUERIES))
    manifest = compact_index(out)
    assert manifest.pixels == read_manifest(tmp_path / "new").pixels
    build_index(images.subset([1, 2, 4, 5]), now, out, clusters="none")  # opens the finished index


def test_an_unfinished_build_goes_on_with_its_pixels(tmp_path: Path, images: ImageSet) -> None:
    def stop(progress: Progress) -> None:
        if progress.done == 4:
            raise KeyboardInterrupt

    earlier, out = WholeImageEncoder(earlier=True), tmp_path / "out"
    options = {"clusters": "none", "shard_size": 2, "batch_size": 2}
    with pytest.raises(KeyboardInterrupt):
        build_index(images, earlier, out, progress=stop, **options)  # type: ignore[arg-type]
    index = build_index(images, WholeImageEncoder(), out, **options)  # type: ignore[arg-type]
    expected = build_index(images, earlier, tmp_path / "new", **options)  # type: ignore[arg-type]
    assert read_manifest(out).pixels == "exact"
    np.testing.assert_array_equal(index.scores(QUERIES), expected.scores(QUERIES))
