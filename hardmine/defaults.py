"""Choices that several ways in share; here because they must be known before torch is imported."""

from __future__ import annotations

CLUSTERS = "kmeans:10,context=0.4+whole"
