"""Scenes of any seed are valid."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hardmine.scenes import NAMES, generate_scene
from hardmine.scenes.contexts import CONTEXTS

numbers = st.integers(0, 2**31)


@settings(max_examples=60, deadline=None)
@given(
    seed=numbers,
    index=numbers,
    size=st.integers(32, 200),
    tail=st.floats(1, 1e4),
    missing=st.floats(0, 0.5),
    wrong=st.floats(0, 0.5),
)
def test_any_scene_is_valid(seed, index, size, tail, missing, wrong) -> None:
    scene = generate_scene(seed, index, size=size, tail=tail, missing=missing, wrong=wrong)
    assert scene.image.shape == (size, size, 3)
    assert scene.image.dtype == np.uint8
    assert scene.context in CONTEXTS
    count = len(scene.objects)
    assert scene.boxes.shape == (count, 4)
    assert scene.label_rows.shape == scene.class_rows.shape == scene.areas.shape == (count,)
    assert ((scene.boxes >= 0) & (scene.boxes <= size)).all()
    assert (scene.boxes[:, 2:] > scene.boxes[:, :2]).all()
    assert ((scene.visible > 0) & (scene.visible <= 1)).all()
    assert ((scene.label_rows >= -1) & (scene.label_rows < len(NAMES))).all()
    assert [NAMES[row] for row in scene.class_rows] == [thing.kind for thing in scene.objects]
