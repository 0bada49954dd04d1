"""Defaults shared by the Python API and the command line; importing this loads no torch."""

from __future__ import annotations

CLUSTERS = "kmeans:10,context=0.4+whole"
