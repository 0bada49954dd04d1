"""Finds torchmetrics' MeanAveragePrecision on a module."""

from __future__ import annotations

from typing import Any

from torchmetrics.detection import MeanAveragePrecision

from hardmine.errors import InputError


def find_mean_average_precision(module: Any, name: str | None) -> Any:
    """Find the metric of a module's validation; None if the module has none.

    Args:
        module: A LightningModule.
        name: Dotted attribute that holds the metric; None if there is only one.

    Raises:
        InputError: If there are several and no name.
    """
    found = {
        place: each
        for place, each in module.named_modules()
        if isinstance(each, MeanAveragePrecision)
    }
    if name is not None:
        return found.get(name)
    if len(found) > 1:
        raise InputError(
            f"the module has several MeanAveragePrecision: {', '.join(found)}; name that of the "
            "validation with HardMining(metric=...)"
        )
    return next(iter(found.values()), None)
