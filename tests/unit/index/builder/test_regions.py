"""Regions of a batch: boxes from the encoder, and box proposals from a file."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_device import FakeDevice
from pixel_images import PixelEncoder, write_images

from hardmine.encoders.base import DenseFeatures
from hardmine.errors import IndexMismatch, InputError
from hardmine.index import build_index, update_index
from hardmine.index.builder.proposals import read_proposals
from hardmine.index.builder.regions import on_cpu, regions_of_batch
from hardmine.index.builder.side_stream import SideStream, event_after


def detector_features(batch: int) -> DenseFeatures:
    """2×3 vectors per image, each with a random box."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(batch, 2, 3, 2, 2, generator=generator).sort(dim=3).values
    patches = F.normalize(torch.randn(batch, 2, 3, 5, generator=generator), dim=-1)
    boxes = corners.flatten(3)
    return DenseFeatures(patches, F.normalize(patches.mean(dim=(1, 2)), dim=-1), boxes)


@pytest.mark.parametrize("clusters", ["none", "none+whole", "kmeans:2+whole", "kmeans:3"])
def test_a_region_spans_the_boxes_of_its_patches(clusters: str) -> None:
    features = detector_features(4)
    regions = regions_of_batch(features, clusters, seed=0, names=list("abcd"))
    assert features.boxes is not None
    assert regions.labels is not None
    for image in range(4):
        region_boxes = regions.boxes[regions.image_rows == image]
        labels, boxes = regions.labels[image].flatten(), features.boxes[image].flatten(0, 1)
        for region, box in enumerate(region_boxes):
            members = boxes[labels == region]
            if len(members):
                assert box.tolist() == [
                    *members[:, :2].amin(0).tolist(),
                    *members[:, 2:].amax(0).tolist(),
                ]
            else:
                assert box.tolist() == [0, 0, 1, 1]
        assert ("+whole" in clusters) == (len(region_boxes) > labels.max() + 1)


def test_a_gpu_is_waited_for_four_times_a_batch() -> None:
    generator = torch.Generator().manual_seed(2)
    patches = F.normalize(torch.randn(32, 5, 5, 16, generator=generator), dim=-1)
    features = DenseFeatures(patches, F.normalize(patches.mean(dim=(1, 2)), dim=-1))
    spec, names = "kmeans:10,context=0.4+whole", [""] * 32
    expected = regions_of_batch(features, spec, seed=0, names=names)
    with FakeDevice() as device:
        sent = DenseFeatures(patches.to(device.device), features.whole.to(device.device))
        for _ in range(2):  # the first sends the random numbers
            device.reset()
            found = on_cpu(regions_of_batch(sent, spec, seed=0, names=names))
        assert len(device.waits) == 4, device.waits
    for name in ("vectors", "image_rows", "boxes", "mass"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_a_batch_is_clustered_beside_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    encoding, clustering = MagicMock(), MagicMock()
    encoding.record_event.return_value = "encoded"
    clustering.wait_event.side_effect = calls.append
    context = MagicMock()
    context.__enter__.side_effect = lambda: calls.append("enter")
    context.__exit__.side_effect = lambda *_: calls.append("exit")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: encoding)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: clustering)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: {clustering: context}[stream])
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    with SideStream().after(gpu, event_after(gpu)):
        calls.append("cluster")
    assert calls == ["enter", "encoded", "cluster", "exit"]
    with SideStream().after(cpu, event_after(cpu)):
        pass
    assert len(calls) == 4


def test_proposals_become_regions_and_are_required(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 4, broken=[1])
    file = tmp_path / "boxes.json"
    rows = [
        {"image_id": 0, "bbox": [0, 0, 16, 24], "score": 0.5, "category_id": 3},
        {"image_id": 20, "bbox": [8, 6, 8, 12]},
        {"image_id": 0, "bbox": [16, 12, 16, 12]},
        {"image_id": 777, "bbox": [0, 0, 1, 1]},
    ]
    file.write_text(json.dumps(rows))
    # The images are 24 high and 32 wide; the set lacks the sizes, so they are read from the files.
    images = images.subset([0, 2, 3, 1])
    (tmp_path / "images" / "1.jpg").unlink()
    proposals = read_proposals(file, images)
    out = tmp_path / "out"
    with pytest.raises(InputError, match="'boxes' needs proposals"):
        build_index(images, PixelEncoder(), out, clusters="boxes")
    with pytest.raises(InputError, match="takes no proposals"):
        build_index(images, PixelEncoder(), out, clusters="none", proposals=proposals)
    index = build_index(
        images, PixelEncoder(), out, clusters="boxes", batch_size=2, proposals=proposals
    )
    query = PixelEncoder().encode_texts(["a"])
    scores = index.scores(query)[0]
    # An image without boxes has no region, so no search finds it.
    assert np.isfinite(scores).tolist() == [True, True, False]
    hits = index.search(query, 3)
    boxes = {
        int(row): box.tolist() for row, box in zip(hits.image_rows[0], hits.boxes[0], strict=True)
    }
    assert boxes[1] == [0.25, 0.25, 0.5, 0.75]
    assert boxes[0] in ([0, 0, 0.5, 1], [0.5, 0.5, 1, 1])
    with pytest.raises(InputError, match="needs proposals"):
        update_index(out, images, PixelEncoder())
    assert len(update_index(out, images.subset([1]), PixelEncoder(), proposals=proposals)) == 1


def test_an_unfinished_build_is_not_continued_with_other_proposals(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 2)

    def stop(progress: object) -> None:
        raise KeyboardInterrupt

    for proposals in ({0: [[0, 0, 1, 1]]}, {0: [[0, 0, 1, 0.5]]}):
        with pytest.raises((KeyboardInterrupt, IndexMismatch)) as caught:
            build_index(
                images,
                PixelEncoder(),
                tmp_path / "out",
                clusters="boxes",
                proposals=proposals,
                progress=stop,
            )
    assert "proposals was" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Input data was truncated"),
        ('{"image_id": 1}', "Expected `array`"),
        ('[{"image_id": 1, "bbox": [1, 2, 3]}]', "of length 4"),
        ('[{"image_id": 1, "bbox": [1, 2, 3, 4]}]', "none of its boxes belongs to an image"),
    ],
)
def test_an_invalid_file_of_boxes_is_refused(tmp_path: Path, content: str, message: str) -> None:
    images = write_images(tmp_path / "images", 1)
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(InputError, match=rf"boxes\.json: .*{message}"):
        read_proposals(tmp_path / "boxes.json", images)
    with pytest.raises(InputError, match="No such file"):
        read_proposals(tmp_path / "none.json", images)
