"""Mosaic and MixUp draw their partners by weight: the loaded images are counted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmdet_case import coco
from torch.utils.data import DataLoader

from hardmine_mmdet.partners import install_partners

MIXES = {
    "mosaic": ({"type": "Mosaic", "img_scale": (96, 96), "pad_val": 114.0}, 3),
    "mixup": ({"type": "MixUp", "img_scale": (96, 96)}, 1),
}


def mixed(folder, transform, **more):
    """A mixing data set over images that are only loaded."""
    inner = coco(folder, train=True)
    inner["pipeline"] = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True},
    ]
    dataset = DATASETS.build(
        {"type": "MultiImageMixDataset", "dataset": inner, "pipeline": [transform], **more}
    )
    dataset.full_init()
    return dataset


class PartnerRows(torch.utils.data.Dataset):
    """The partners that a mix draws for each position."""

    def __init__(self, mix, num_partners) -> None:
        self.mix, self.num_partners = mix, num_partners

    def __len__(self) -> int:
        return len(self.mix)

    def __getitem__(self, position):
        transform = self.mix.pipeline[0]
        drawn = transform.get_indexes(self.mix.dataset)
        drawn = drawn if isinstance(drawn, list) else [drawn]
        assert len(drawn) == self.num_partners
        return torch.tensor(drawn)


@pytest.mark.parametrize("name", MIXES)
def test_partners_are_drawn_by_weight(scenes, name) -> None:
    transform, num_partners = MIXES[name]
    mix = mixed(scenes[0], transform)
    table = install_partners(mix, seed=3)
    assert table is not None
    weights = np.ones(24)
    weights[1] = 24.0
    table.set_weights(weights)
    partners = PartnerRows(mix, num_partners)
    empty = [len(mix.dataset[position]["gt_bboxes"]) == 0 for position in range(24)]
    assert any(empty)
    assert not empty[1]
    np.random.seed(0)
    drawn = torch.cat([partners[position % 24] for position in range(600)])
    share = (drawn == 1).float().mean().item()
    # MixUp draws again, up to 15 times, if a partner has no boxes.
    possible = weights.sum() - (sum(empty) if name == "mixup" else 0)
    # Three standard deviations of 600 draws are 0.06.
    assert share == pytest.approx(24 / possible, abs=0.06)


def test_equal_weights_leave_the_draws_uniform(scenes) -> None:
    mix = mixed(scenes[0], MIXES["mosaic"][0])
    assert install_partners(mix) is not None
    np.random.seed(0)
    with_table = [mix.pipeline[0].get_indexes(mix.dataset) for _ in range(50)]
    plain = mixed(scenes[0], MIXES["mosaic"][0])
    np.random.seed(0)
    assert with_table == [plain.pipeline[0].get_indexes(plain.dataset) for _ in range(50)]


def test_persistent_workers_see_new_weights(scenes) -> None:
    mix = mixed(scenes[0], MIXES["mosaic"][0])
    table = install_partners(mix)
    assert table is not None
    loader = DataLoader(PartnerRows(mix, 3), batch_size=8, num_workers=2, persistent_workers=True)
    before = Counter(torch.cat([batch.flatten() for batch in loader]).tolist())
    only = np.full(24, 1e-9)
    only[5] = 1.0
    table.set_weights(only)
    after = Counter(torch.cat([batch.flatten() for batch in loader]).tolist())
    assert len(before) > 5
    assert set(after) == {5}


def test_a_mix_loads_the_partners_that_were_drawn(scenes) -> None:
    mix = mixed(scenes[0], MIXES["mosaic"][0])
    table = install_partners(mix)
    assert table is not None
    only = np.full(24, 1e-9)
    only[5] = 1.0
    table.set_weights(only)
    inner, loaded = mix.dataset, []

    class Recording:
        def __len__(self):
            return len(inner)

        def __getitem__(self, position):
            loaded.append(position)
            return inner[position]

    mix.dataset = Recording()
    assert mix[2] is not None
    assert loaded == [2, 5, 5, 5]


def test_a_data_set_without_mixes_gets_no_table(scenes) -> None:
    assert install_partners(DATASETS.build(coco(scenes[0], train=True))) is None
