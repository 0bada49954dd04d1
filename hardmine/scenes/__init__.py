"""Generated scenes: a long-tailed detection data set without a download.

A scene is a pure function of (seed, index). It has a place, a context (light and weather), objects
of 36 classes ("kinds") with a colour, a pattern, a size and a pose, which occlude each other, and
unnamed clutter. The *truth* is what is drawn: ``objects``, ``boxes``, ``class_rows``. The *labels*
are what an annotator would have written: ``label_rows``, equal to the truth except for label errors
that the caller requests.
"""

from __future__ import annotations

from hardmine.scenes.compose import generate_scene
from hardmine.scenes.kinds import NAMES
from hardmine.scenes.scene import SCENE_COMMENT, Scene, SceneObject
from hardmine.scenes.write import WrittenSplit, write_scenes, write_split

__all__ = [
    "NAMES",
    "SCENE_COMMENT",
    "Scene",
    "SceneObject",
    "WrittenSplit",
    "generate_scene",
    "write_scenes",
    "write_split",
]
