"""The result of agglomerative clustering, and the partitions it can be cut into."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dendrogram:
    """The merges of the patches of B images.

    A cluster is identified by one of its patches. A merge absorbs one of two clusters into the
    other, so each patch except the last is absorbed exactly once.

    Attributes:
        parent: (B, P) int64, the patch into which each patch is absorbed; the last is its own.
        height: (B, P) distance at which each patch is absorbed; inf for the last. A later merge is
            never lower.
    """

    parent: Tensor
    height: Tensor

    def cut(self, k: int) -> Tensor:
        """Partition into min(k, P) clusters: (B, P) int64, the id of each patch's cluster."""
        return self._cluster_ids(self._rank() < k)

    def cut_at(self, threshold: float) -> Tensor:
        """Partition without the merges at or above a height: (B, P) int64 cluster ids."""
        # Undo as many of the last merges as are at or above the threshold.
        return self._cluster_ids(self._rank() < (self.height >= threshold).sum(1, keepdim=True))

    def _rank(self) -> Tensor:
        """(B, P): 0 for the last patch, 1 for the patch absorbed last, and so on."""
        last_first = self.height.argsort(dim=1, descending=True, stable=True)
        ranks = torch.arange(self.height.shape[1], device=self.height.device)
        return torch.empty_like(last_first).scatter_(1, last_first, ranks.expand_as(last_first))

    def _cluster_ids(self, roots: Tensor) -> Tensor:
        own = torch.arange(roots.shape[1], device=roots.device)
        ids = torch.where(roots, own, self.parent)
        # Pointer jumping: each pass doubles the distance to the ancestor.
        for _ in range(max(1, roots.shape[1] - 1).bit_length()):
            ids = ids.gather(1, ids)
        return ids
