"""HardMiner on an index in memory, with a real encoder and the real sampler."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from toy_world import NAMES, WordEncoder, World, make_world

from hardmine import HardMiner, HardMiningSampler

METRICS = {"car": 0.6, "fork": 0.2, "zebra": 0.45}


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


def test_a_weak_class_is_drawn_more_and_the_epoch_stays_as_long(world: World) -> None:
    sampler = HardMiningSampler(len(world.images), seed=3)
    miner = HardMiner(world.index, sampler, encoder=WordEncoder(), images=world.images)
    has_fork = world.present[:, NAMES.index("fork")]
    before = has_fork[list(sampler)].sum()
    done = miner.step(METRICS)
    draws = list(sampler)
    assert done.weak == ["fork"]
    assert len(draws) == len(world.images)
    assert has_fork[draws].sum() > 1.5 * before
    assert np.array_equal(sampler.weights, done.weights)
    assert done.weights[has_fork].min() > np.median(done.weights)
