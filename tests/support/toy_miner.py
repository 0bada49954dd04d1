"""Miners on the toy data, and detectors with planted faults."""

from __future__ import annotations

from typing import Any

from toy_data import NAMES, ToyData, WordEncoder

from hardmine import HardMiner, HardMiningSampler, TargetRules

METRICS = {"car": 0.6, "fork": 0.2, "zebra": 0.45}
EQUAL = dict.fromkeys(NAMES, 0.6)  # no class is weaker than another
FORK, ZEBRA = NAMES.index("fork"), NAMES.index("zebra")
COMPLETE_LABELS = TargetRules(missing=0.0)


def make_miner(toy: ToyData, sampler: HardMiningSampler | None = None, **options: Any) -> HardMiner:
    """A miner of the toy data; options as of ``HardMiner``."""
    return HardMiner(toy.index, sampler, encoder=WordEncoder(), images=toy.images, **options)


def detections_of(
    toy: ToyData, *, miss_at_night: str = "", zebras_on_forks: bool = False
) -> list[dict[str, Any]]:
    """What a detector finds that finds every labelled box, except for the faults asked for."""
    instances = toy.images.instances
    assert instances is not None
    results = []
    for image, column in zip(
        instances.image_rows.tolist(), instances.class_rows.tolist(), strict=True
    ):
        result = {"image_id": int(toy.images.ids[image]), "bbox": [10, 10, 50, 50], "score": 0.9}
        if not (NAMES[column] == miss_at_night and toy.night[image]):
            results.append({**result, "category_id": column + 1})
        if zebras_on_forks and column == FORK and not toy.present[image, ZEBRA]:
            results.append({**result, "category_id": 3, "score": 0.8})
    return results
