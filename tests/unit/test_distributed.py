"""One process alone counts as rank 0; two gloo ranks are tested in integration/test_index_build."""

from __future__ import annotations

import pytest

from hardmine.distributed import RankGroup, rank_and_world_size


def test_a_process_alone_is_rank_zero_of_one() -> None:
    assert rank_and_world_size() == (0, 1)


def test_a_process_alone_gets_its_own_value_and_its_own_error() -> None:
    with RankGroup() as ranks:
        assert ranks.on_rank_zero(lambda: "value") == "value"
        ranks.require_same({"anything": 3}, "it")
        with pytest.raises(KeyError, match="missing"):
            ranks.on_rank_zero(lambda: {}["missing"])
        with pytest.raises(ZeroDivisionError):
            ranks.on_every_rank(lambda: 1 // 0)
