"""What agglomerative clustering leaves behind, and the partitions it is cut into."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dendrogram:
    """How the patches of B images merge, kept at the patch that gives way.

    A cluster goes by the name of one of its patches. When two merge, one of their two names gives
    way to the other, so each patch but the last gives way exactly once.

    Attributes:
        parent: (B, P) int64, the patch that each one gave way to; the last patch is its own.
        height: (B, P) distance at which it did; inf for the last patch.
        order: (B, P) when it did, larger is later; the height where merges only get higher.
    """

    parent: Tensor
    height: Tensor
    order: Tensor

    def cut(self, k: int) -> Tensor:
        """(B, P) int64: name of each patch's cluster when min(k, P) clusters are left."""
        return self._names(self._rank() < k)

    def cut_at(self, threshold: float) -> Tensor:
        """(B, P) int64: name of each patch's cluster before merges at or above a height."""
        # As many clusters as merges are undone; their order matters where heights do not rise.
        return self._names(self._rank() < (self.height >= threshold).sum(1, keepdim=True))

    def _rank(self) -> Tensor:
        """(B, P): 0 for the last patch, 1 for the one that gave way last, and so on."""
        last_first = self.order.argsort(dim=1, descending=True, stable=True)
        places = torch.arange(self.order.shape[1], device=self.order.device)
        return torch.empty_like(last_first).scatter_(1, last_first, places.expand_as(last_first))

    def _names(self, roots: Tensor) -> Tensor:
        own = torch.arange(roots.shape[1], device=roots.device)
        names = torch.where(roots, own, self.parent)
        # Each pass doubles how far up the tree a name looks.
        for _ in range(max(1, roots.shape[1] - 1).bit_length()):
            names = names.gather(1, names)
        return names
