"""The encoder seam: what hardmine asks of anything that embeds images and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import PIL.Image
    import torch


@dataclass(frozen=True)
class DenseFeatures:
    """Embeddings of a batch of images; unit vectors, float32.

    Attributes:
        patches: (B, H, W, D), one vector a patch.
        whole: (B, D), one vector an image.
        boxes: (B, H, W, 4), normalised xyxy, what each patch vector stands for; None where that
            is its cell of the grid.
    """

    patches: torch.Tensor
    whole: torch.Tensor
    boxes: torch.Tensor | None = None


@runtime_checkable
class Encoder(Protocol):
    """Images and texts to unit vectors of one space.

    An encoder that ``load_encoder`` made also has ``spec``: the dict of arguments that makes it
    again, which an index keeps in its manifest. An encoder without ``spec`` works everywhere,
    but an index built with it is searched from Python only.
    """

    dim: int
    fingerprint: str  # changes when any vector could

    def preprocess(self, image: PIL.Image.Image) -> torch.Tensor:
        """Turn an image into the (3, height, width) tensor that ``encode_images`` stacks."""
        ...

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        """Embed (B, 3, height, width) on whatever device the encoder lives on."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed T texts as they are (no template) into (T, D), float32, on the CPU."""
        ...
