"""The records of a generated scene: image, objects (the truth) and labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image

from hardmine.scenes.kinds import NAMES

SCENE_COMMENT = "hardmine scene"  # comment in the image file, which tells scenes from photos


@dataclass(frozen=True)
class SceneObject:
    """One object as drawn.

    Attributes:
        kind: A name of ``NAMES``.
        color: A key of ``COLORS``.
        pattern: "plain", "striped" or "spotted".
        box: xyxy in pixels, around the visible part.
        area: Number of visible pixels.
        visible: Share of the object that is visible, in (0, 1].
        extent: Longer side of the box, as a share of the image's side.
    """

    kind: str
    color: str
    pattern: str
    box: tuple[float, float, float, float]
    area: int
    visible: float
    extent: float

    @property
    def size(self) -> str:
        """Size in words: "tiny", "small", "medium" or "large"."""
        return size_name(self.extent)


def size_name(extent: float) -> str:
    """Size in words of an object whose longer side is this share of the image's side.

    >>> [size_name(extent) for extent in (0.03, 0.1, 0.25, 0.5)]
    ['tiny', 'small', 'medium', 'large']
    """
    limits = (0.07, 0.16, 0.34)
    return ("tiny", "small", "medium", "large")[sum(extent > limit for limit in limits)]


@dataclass(frozen=True)
class Scene:
    """A generated image with its true objects, and labels that may have errors.

    Attributes:
        image: (S, S, 3) uint8.
        objects: The M visible objects, from the farthest to the nearest.
        place: A key of ``PLACES``.
        context: A key of ``CONTEXTS``.
        captions: A few true sentences about the scene.
        label_rows: (M,) int32, the label of each object: a position in ``NAMES``, wrong for the
            requested share of objects, or -1 where the label is missing.
    """

    image: npt.NDArray[np.uint8]
    objects: tuple[SceneObject, ...]
    place: str
    context: str
    captions: tuple[str, ...]
    label_rows: npt.NDArray[np.int32] = field(repr=False)

    @property
    def picture(self) -> Image.Image:
        """The image as a Pillow image, with the comment that marks scenes."""
        picture = Image.fromarray(self.image)
        picture.info["comment"] = SCENE_COMMENT
        return picture

    @cached_property
    def boxes(self) -> npt.NDArray[np.float32]:
        """(M, 4) xyxy in pixels, around the visible part of each object."""
        return np.array([thing.box for thing in self.objects], np.float32).reshape(-1, 4)

    @cached_property
    def class_rows(self) -> npt.NDArray[np.int32]:
        """(M,) true position of each object in ``NAMES``."""
        return np.array([NAMES.index(thing.kind) for thing in self.objects], np.int32)

    @cached_property
    def areas(self) -> npt.NDArray[np.float32]:
        """(M,) number of visible pixels of each object."""
        return np.array([thing.area for thing in self.objects], np.float32)

    @cached_property
    def visible(self) -> npt.NDArray[np.float32]:
        """(M,) share of each object that is visible."""
        return np.array([thing.visible for thing in self.objects], np.float32)
