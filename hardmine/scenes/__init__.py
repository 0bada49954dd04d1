"""Generated scenes: a long-tailed detection data set that needs no download.

A scene is a pure function of (seed, index): place, light and weather, objects of 36 kinds with a
colour, a pattern, a size and a pose, hiding each other, among clutter that has no name. What is
drawn is the *truth*: ``objects``, ``boxes``, ``class_rows``. What an annotator would have written
are the *labels*: ``label_rows``, the same but for the faults that were asked for.
"""

from __future__ import annotations

from hardmine.scenes.compose import generate_scene
from hardmine.scenes.kinds import NAMES
from hardmine.scenes.scene import MARK, Scene, SceneObject
from hardmine.scenes.write import Written, write_scenes, write_split

__all__ = [
    "MARK",
    "NAMES",
    "Scene",
    "SceneObject",
    "Written",
    "generate_scene",
    "write_scenes",
    "write_split",
]
