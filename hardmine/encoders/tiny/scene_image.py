"""Preprocessing that says so when an image is none of the scenes the tiny CLIP knows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache

import PIL.Image
import torch

from hardmine.encoders.preprocess import WholeImage
from hardmine.scenes.scene import MARK

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SceneImage(WholeImage):
    """``WholeImage`` that warns, once a process, of the first image that is no generated scene.

    Scenes are known by the comment in their files. The tensor is the same either way.
    """

    def __call__(self, image: PIL.Image.Image) -> torch.Tensor:
        """Turn an image into (3, height, width) float32."""
        if image.info.get("comment") not in (MARK, MARK.encode()):
            warn_of_photos()
        return super().__call__(image)


@lru_cache(maxsize=1)
def warn_of_photos() -> None:
    """Say once that the encoder does not fit the images."""
    _log.warning(
        "the encoder 'tiny' knows generated scenes only, and here is an image that is none: what "
        "it finds among photos means nothing; for photos use a pretrained encoder, such as "
        "'ViT-B-16/openai' or 'RN50x64/openai'"
    )
