"""One process alone counts as rank 0; two gloo ranks are tested in integration/test_index_build."""

from __future__ import annotations

import pytest

from hardmine.distributed import broadcast_from_rank_zero, is_rank_zero, rank_and_world_size


def test_a_process_alone_is_rank_zero_of_one() -> None:
    assert rank_and_world_size() == (0, 1)
    assert is_rank_zero()


def test_a_process_alone_gets_its_own_value_and_its_own_error() -> None:
    assert broadcast_from_rank_zero(lambda: "value") == "value"
    with pytest.raises(KeyError, match="missing"):
        broadcast_from_rank_zero(lambda: {}["missing"])
