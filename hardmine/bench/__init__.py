"""Benchmark of training: does mining help a small detector more than label-only sampling does?

A *scenario* is a data set with one weakness. A *strategy* is a way of drawing training images:
mining, or a *baseline* that knows the labels alone. A *run* is one strategy in one scenario with
one seed. All strategies of a seed continue from the same warmed-up detector.
"""
