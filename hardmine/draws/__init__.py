"""The draws of an epoch: a pure function of weights, seed and epoch, and how far it is drawn."""

from __future__ import annotations

from hardmine.draws.streams import draw_counts, epoch_stream

__all__ = ["draw_counts", "epoch_stream"]
