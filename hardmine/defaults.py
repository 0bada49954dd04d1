"""Defaults that the command line shows without importing torch."""

from __future__ import annotations

CLUSTERS = "kmeans:10,context=0.4+whole"
