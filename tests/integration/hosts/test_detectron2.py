"""What only detectron2 does: wrapped loaders, groups of wide and high images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from host_detectron2 import build_detection_train_loader, dicts_of, train
from host_scenes import BATCH_SIZE, NUM_IMAGES, load_scenes

from hardmine.errors import InputError
from hardmine_detectron2.hook import _batch_size
from hardmine_detectron2.labels import read_dicts


def loader(**more):
    rows = list(range(NUM_IMAGES))
    sampler = torch.utils.data.SequentialSampler(rows)
    return build_detection_train_loader(
        rows, mapper=None, sampler=sampler, total_batch_size=BATCH_SIZE, **more
    )


@pytest.mark.parametrize("grouped", [True, False])
def test_the_batch_size_is_found_and_lasting_workers_are_refused(grouped) -> None:
    assert _batch_size(loader(aspect_ratio_grouping=grouped)) == BATCH_SIZE
    lasting = loader(aspect_ratio_grouping=grouped, num_workers=1, persistent_workers=True)
    with pytest.raises(InputError, match="persistent_workers=True keeps workers"):
        _batch_size(lasting)


def test_dicts_are_read_in_both_forms_of_boxes(scenes) -> None:
    images, _ = load_scenes(scenes)
    dicts = dicts_of(images)
    read, rows = read_dicts([*dicts, dicts[0]], images.class_names)
    assert rows.tolist() == [*range(NUM_IMAGES), 0]
    assert read.ids.tolist() == images.ids.tolist()
    assert read.instances.class_rows.tolist() == images.instances.class_rows.tolist()
    assert read.instances.boxes == pytest.approx(images.instances.boxes, abs=1e-3)
    del dicts[1]["image_id"]
    with pytest.raises(InputError, match="dict of image 1 lacks 'image_id'"):
        read_dicts(dicts, images.class_names)


def test_new_weights_reach_a_loader_that_groups_wide_and_high_images(scenes, tmp_path) -> None:
    more = {"workers": 2, "weights": {"look_from": 1.0}}
    trained = train(scenes, tmp_path, aspect_ratio_grouping=True, **more)
    assert all(len({row % 2 for row in batch}) == 1 for batch in trained.batches)
    state = torch.load(tmp_path / "epochs" / "6.pth", weights_only=True)
    weights = state["hooks"]["HardMining"]["miner"]["weights"].numpy()
    expected = NUM_IMAGES * weights / weights.sum()
    by_weight = (expected**2).sum() / expected.sum()
    assert by_weight > 1.2
    # The mean image has the value 1: what equal weights show on average.
    first, second = trained.epochs()
    assert len(set(first)) >= NUM_IMAGES - 2 * (BATCH_SIZE - 1)
    assert np.mean(expected[second]) > (1 + by_weight) / 2
