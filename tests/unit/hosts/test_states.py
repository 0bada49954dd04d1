"""The files of a state are small and are read back exactly."""

from __future__ import annotations

import torch

from hardmine.hosts import StateFolder


def test_a_state_of_another_run_does_not_count(tmp_path) -> None:
    folder = StateFolder(tmp_path)
    own, newer = ({"run": "a", "number": number} for number in (1, 2))
    assert folder.newest(7, own) == own
    folder.save(7, newer)
    assert folder.newest(7, own) == newer
    assert folder.newest(7, {"run": "b"}) == {"run": "b"}
    assert folder.newest(7, None) is None
    folder.clear()
    assert folder.load(7) is None


def test_equal_tensors_are_written_once(tmp_path) -> None:
    """The state of every rank holds the same weights."""
    folder = StateFolder(tmp_path / "states")
    assert folder.load(1) is None
    weights = torch.rand(10_000, dtype=torch.float64)
    folder.save(1, {"samplers": [{"weights": weights}]})
    states = [{"weights": weights.clone(), "begun": [weights.clone()]} for _ in range(8)]
    states[7] = {"weights": weights.float(), "begun": [weights + 1]}
    folder.save(2, {"samplers": states, "number": 3, "nothing": None})
    once, all_ranks = ((folder.folder / f"iter_{number}.pth").stat().st_size for number in (1, 2))
    assert once > 80_000
    # Besides the shared one: one in single precision and one with other values.
    assert all_ranks < 2.7 * once
    loaded = folder.load(2)
    assert loaded is not None
    assert (loaded["number"], loaded["nothing"]) == (3, None)
    for state, again in zip(states, loaded["samplers"], strict=True):
        assert again["weights"].dtype == state["weights"].dtype
        assert torch.equal(again["weights"], state["weights"])
        assert torch.equal(again["begun"][0], state["begun"][0])
