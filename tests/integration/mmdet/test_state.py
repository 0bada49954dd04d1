"""The files of the hook's state."""

from __future__ import annotations

import torch

from hardmine_mmdet.state import StateFolder


def test_equal_tensors_are_written_once(tmp_path) -> None:
    """All ranks draw by the same weights, and each rank's state holds them."""
    folder = StateFolder(tmp_path / "states")
    assert folder.load(1) is None
    weights = torch.rand(10_000, dtype=torch.float64)
    folder.save(1, {"samplers": [{"weights": weights}]})
    states = [{"weights": weights.clone(), "begun": [weights.clone()]} for _ in range(8)]
    states[7] = {"weights": weights.float(), "begun": [weights + 1]}
    folder.save(2, {"samplers": states, "number": 3, "nothing": None})
    once, all_ranks = ((folder.folder / f"iter_{number}.pth").stat().st_size for number in (1, 2))
    assert once > 80_000
    # One more in single precision, and one that differs.
    assert all_ranks < 2.7 * once
    loaded = folder.load(2)
    assert loaded is not None
    assert (loaded["number"], loaded["nothing"]) == (3, None)
    for state, again in zip(states, loaded["samplers"], strict=True):
        assert again["weights"].dtype == state["weights"].dtype
        assert torch.equal(again["weights"], state["weights"])
        assert torch.equal(again["begun"][0], state["begun"][0])
