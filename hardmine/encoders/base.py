"""The interface of an encoder, which embeds images and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from hardmine.errors import InputError

if TYPE_CHECKING:
    import PIL.Image
    import torch


@dataclass(frozen=True)
class DenseFeatures:
    """Embeddings of a batch of images; unit vectors, float32.

    Attributes:
        patches: (B, H, W, D), one vector for each patch.
        whole: (B, D), one vector for each image.
        boxes: (B, H, W, 4), normalised xyxy, the box that each patch vector describes; None if
            that is the patch's cell of the grid.
    """

    patches: torch.Tensor
    whole: torch.Tensor
    boxes: torch.Tensor | None = None


@runtime_checkable
class Encoder(Protocol):
    """Embeds images and texts as unit vectors of one space.

    An encoder from ``load_encoder`` also has ``spec``, a dict of the arguments that load it again;
    an index keeps it in its manifest. An encoder without ``spec`` works everywhere, but an index
    built with it can be searched from Python only, not from the command line.
    """

    dim: int
    fingerprint: str  # must change whenever any vector could change

    def preprocess(self, image: PIL.Image.Image) -> torch.Tensor:
        """Turn an image into a (3, height, width) tensor; batches are stacks of these."""
        ...

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        """Embed (B, 3, height, width) on the encoder's device."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed T texts, without a template, into (T, D) float32 on the CPU."""
        ...


def require_list(texts: Sequence[str]) -> None:
    """Refuse a single text where a list is expected: its letters would be taken for texts."""
    if isinstance(texts, str):
        raise InputError(f"texts must be a list of texts, got one text; use [{texts!r}]")
