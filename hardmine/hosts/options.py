"""What a user sets for mining in a trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hardmine.config import IndexConfig, miner_arguments
from hardmine.errors import InputError


@dataclass(frozen=True)
class MiningOptions:
    """Settings of mining that mean the same in every trainer.

    Attributes:
        encoder: A name for ``hardmine.load_encoder``, a mapping of its arguments, or an encoder.
        index: Folder of the index; ``index.hmx`` in hardmine's work folder if None. It may hold
            more images than the trainer draws, and in another order.
        clusters: How to cluster the images if the index has to be built; one that was clustered
            in another way is refused.
        device: Device that embeds images; that of the model if None.
        batch_size: Images embedded at once.
        workers: Threads that decode images for the index; chosen by the number of cores if None.
        val_index: Folder of the index of the validation images, which is built where their
            predicted boxes are known; ``val-index.hmx`` in hardmine's work folder if None.
        measure: Whether to use the boxes predicted in validation, where they are known. They show
            where objects are missed, which classes are confused and, if the miner has ``contexts``,
            which class is weak in which context.
        interval: Validations from one round to the next.
        begin: Validations before the first round that are not mined.
        miner: More arguments of ``HardMiner``: contexts, and need, targets and weights, which may
            be mappings, such as ``{"need": {"patience": 5}}``.
        strict: Whether a round that fails ends the training.
    """

    encoder: Any = "RN50x64/openai"
    index: str | Path | None = None
    clusters: str = IndexConfig.clusters
    device: str | None = None
    batch_size: int = 32
    workers: int | None = None
    val_index: str | Path | None = None
    measure: bool = True
    interval: int = 1
    begin: int = 0
    miner: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise InputError(f"interval must be at least 1 validation, got {self.interval}")
        if self.begin < 0 or self.begin % 1:
            raise InputError(
                f"begin must be a number of validations, got {self.begin}; to mine in the last "
                'quarter of the training alone, set miner={"weights": {"max_passes": 0}}'
            )
        object.__setattr__(self, "miner", miner_arguments(self.miner))
