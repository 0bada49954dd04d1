"""Preprocessing of the tiny CLIP: warns when an image is not a generated scene."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache

import PIL.Image
import torch

from hardmine.encoders.preprocess import WholeImage
from hardmine.scenes.scene import SCENE_COMMENT

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SceneImage(WholeImage):
    """``WholeImage`` that warns, once in a process, of an image that is not a generated scene.

    Scenes carry a comment in their files. The tensor is the same with and without it.
    """

    def __call__(self, image: PIL.Image.Image) -> torch.Tensor:
        """Turn an image into (3, height, width) uint8."""
        if image.info.get("comment") not in (SCENE_COMMENT, SCENE_COMMENT.encode()):
            warn_of_photos()
        return super().__call__(image)


@lru_cache(maxsize=1)
def warn_of_photos() -> None:
    """Log one warning that the encoder does not fit the images."""
    _log.warning(
        "the encoder 'tiny' knows generated scenes only, and was given another image: its results "
        "on photos mean nothing; for photos use a pretrained encoder, such as 'ViT-B-16/openai' "
        "or 'RN50x64/openai'"
    )
