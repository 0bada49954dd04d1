"""A data set that tells its image ids must have the images in the order of the labels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from torch.utils.data import ConcatDataset, Dataset, Subset
from toy_data import make_toy_data
from toy_miner import make_miner

import hardmine
from hardmine.errors import InputError
from hardmine.mining.order import require_order


class SimpleData(Dataset):
    """A map-style data set that tells its ids, as torchvision's does."""

    def __init__(self, *ids: int) -> None:
        self.ids = list(ids)

    def __len__(self) -> int:
        return len(self.ids)


def test_a_data_set_in_another_order_is_refused() -> None:
    hf = pytest.importorskip("datasets")
    images = hardmine.images_from(["/set/a.jpg", "/set/b.jpg"], ids=[7, 9])
    rows = hf.Dataset.from_dict({"image_id": [7, 9]}).with_transform(lambda batch: 1 / 0)
    told = [SimpleNamespace(ids=[7, 9]), rows, Subset(SimpleNamespace(ids=[9, 7]), [1, 0])]
    untold = [SimpleNamespace(ids=[("root", "a"), ("root", "b")]), SimpleNamespace(ids=[9, 8]), [0]]
    told.append(ConcatDataset([SimpleData(7), SimpleData(9)]))
    for fitting in (*told, *untold):
        require_order(fitting, images)
    others = (SimpleNamespace(ids=[9, 7]), Subset(told[0], [1, 0]), rows.select([1, 0]))
    for other in (*others, ConcatDataset([SimpleData(9), SimpleData(7)])):
        with pytest.raises(InputError, match="at 0 has the id 9, which images has at 1; give"):
            require_order(other, images)


def test_a_miner_refuses_the_other_order_of_its_samplers_data_set() -> None:
    toy = make_toy_data(30)
    ids = toy.images.ids.tolist()
    make_miner(toy, hardmine.HardMiningSampler(SimpleData(*ids)))
    turned = hardmine.HardMiningSampler(SimpleData(*ids[::-1]))
    with pytest.raises(InputError, match="give dataset_ids, the image ids in the data set's order"):
        make_miner(toy, turned)
    miner = make_miner(toy, turned, dataset_ids=np.array(ids[::-1]))
    assert miner.data.ids.tolist() == ids[::-1]
