"""The record of a round: why every weight is what it is, in memory and as one line of JSON."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.mining.queries import Queries
from hardmine.mining.targets import KINDS, Targets
from hardmine.mining.weights import WeightReport

if TYPE_CHECKING:
    from hardmine.mining.mine import MiningResult

FORMAT = 1


@dataclass(frozen=True)
class QueryRecord:
    """One query of a round and what came of it.

    Attributes:
        names: The phrases asked.
        class_name: Whose weakness it is about.
        condition: ``""`` for the class itself.
        need: In [0, 1].
        precision: Share of its best hits that the labels confirm; NaN without labels.
        factor: How far it was believed.
        counts: Images of each kind.
    """

    names: tuple[str, ...]
    class_name: str
    condition: str
    need: float
    precision: float
    factor: float
    counts: dict[str, int]


@dataclass(frozen=True)
class Round:
    """What one round saw, asked and did.

    Attributes:
        number: From 1.
        when: UTC time of its end, ISO 8601.
        seconds: What it took.
        class_names: C names.
        ap: (C,) as validation measured it; NaN is unknown.
        need: (C,) in [0, 1], after patience.
        patience: (C,) what patience left of each class's need.
        asked: The queries.
        drawn: What the weights will do; None if the round failed.
        settings: All else that replaying the weights needs.
        digest: Of the wanted weights; a replay must meet it.
        notes: What people should know, one line each.
        applied: Whether the sampler got the weights (not in a dry run, not after a failure).
        error: Why the round failed; empty if it did not.
        weights: (N,) what the sampler got, in the order of its rows: the wanted ones, faded by how
            often each image has been drawn. Not in the line of JSON, nor filled in by a replay.
        wanted: (N,) weights by what was asked and how rare images are; not in the line of JSON.
        lead: (N,) draws that each image was ahead of the mean one; None where all had as many. Not
            in the line of JSON, nor filled in by a replay.
        targets: Which image answers which query; not in the line of JSON.
        evened: (N,) factors, how often each image would be drawn if nothing were asked; not in the
            line of JSON.
        labelled: (N,) how much of what each image shows probably has a label; not in the line of
            JSON.
    """

    number: int
    when: str
    seconds: float
    class_names: tuple[str, ...]
    ap: npt.NDArray[np.float64]
    need: npt.NDArray[np.float64]
    patience: npt.NDArray[np.float64]
    asked: tuple[QueryRecord, ...] = ()
    drawn: WeightReport | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    notes: tuple[str, ...] = ()
    applied: bool = False
    error: str = ""
    weights: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    wanted: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    lead: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    targets: Targets | None = field(default=None, repr=False)
    evened: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    labelled: npt.NDArray[np.float64] | None = field(default=None, repr=False)

    @property
    def weak(self) -> list[str]:
        """Classes in need, the weakest first."""
        order = np.argsort(-self.need, kind="stable").tolist()
        return [self.class_names[row] for row in order if self.need[row] > 0]

    def counts(self) -> dict[str, int]:
        """Pairs of query and image by kind."""
        return {kind: sum(asked.counts[kind] for asked in self.asked) for kind in KINDS}

    def suspects(self) -> list[tuple[int, str, float]]:
        """Images whose label is probably missing: (sampler row, class, score), most alike first."""
        if self.targets is None:
            return []
        chosen = self.targets.take(self.targets.kinds == KINDS.index("suspect"))
        order = np.argsort(-chosen.scores, kind="stable").tolist()
        return [
            (
                int(chosen.image_rows[place]),
                self.asked[chosen.query_rows[place]].class_name,
                float(chosen.scores[place]),
            )
            for place in order
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values of all that is not one an image; unknown numbers are None."""
        large = ("weights", "wanted", "lead", "targets", "evened")
        record = {name: value for name, value in vars(self).items() if name not in large}
        record["asked"] = [asdict(asked) for asked in self.asked]
        record["drawn"] = None if self.drawn is None else asdict(self.drawn)
        plain = _plain(record)
        assert isinstance(plain, dict)
        return {"format": FORMAT, **plain}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Round:
        """What ``to_json`` wrote."""
        known = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        for name in ("ap", "need", "patience"):
            known[name] = _numbers(known[name])
        for name in ("class_names", "notes"):
            known[name] = tuple(known[name])
        known["asked"] = tuple(
            QueryRecord(
                **{
                    **{name: asked[name] for name in QueryRecord.__dataclass_fields__},
                    "names": tuple(asked["names"]),
                    "precision": np.nan if asked["precision"] is None else asked["precision"],
                }
            )
            for asked in record["asked"]
        )
        drawn = record["drawn"]
        if drawn is not None:
            draws = drawn["class_draws"]
            known["drawn"] = WeightReport(
                **{
                    **drawn,
                    "quantiles": tuple(drawn["quantiles"]),
                    "class_draws": None if draws is None else _numbers(draws),
                }
            )
        return cls(**known)


def query_records(
    queries: Queries, aim: MiningResult, class_names: Sequence[str]
) -> tuple[QueryRecord, ...]:
    """Put together what each query asked and what came of it."""
    trust, counts = aim.trust, aim.targets.counts(len(queries)).tolist()
    return tuple(
        QueryRecord(
            names=queries.names[row],
            class_name=class_names[queries.class_rows[row]],
            condition=queries.conditions[row],
            need=float(queries.need[row]),
            precision=float(trust.precision[row]),
            factor=float(trust.factor[row]),
            counts=dict(zip(KINDS, counts[row], strict=True)),
        )
        for row in range(len(queries))
    )


def failed_round(
    number: int,
    class_names: tuple[str, ...],
    weights: npt.NDArray[np.float64] | None,
    error: Exception,
) -> Round:
    """A round that left the weights as they were."""
    return Round(
        number=number,
        when="",
        seconds=0.0,
        class_names=class_names,
        ap=np.full(len(class_names), np.nan),
        need=np.zeros(len(class_names)),
        patience=np.ones(len(class_names)),
        error=f"{type(error).__name__}: {error}",
        weights=weights,
    )


def weights_digest(weights: npt.NDArray[np.float64]) -> str:
    """Change with any weight, but not with the last bits that another machine may differ in."""
    return hashlib.sha256(np.round(weights, 6).astype("<f8").tobytes()).hexdigest()


def append_round(path: str | Path, done: Round) -> None:
    """Add one line to a rounds file, durably: one write, then a sync.

    A line that a crash left torn is cut off first.
    """
    line = json.dumps(done.to_json(), allow_nan=False, ensure_ascii=False) + "\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            os.ftruncate(handle, path.read_bytes().rfind(b"\n") + 1)
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def read_rounds(path: str | Path) -> list[Round]:
    """Read a rounds file: one Round a number, in order.

    Where training was resumed from an earlier checkpoint, rounds that were then done again count
    once, as they were done last. A torn last line is left out.

    Raises:
        InputError: If the file is missing, or a line before the last is not a round.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(
            f"cannot read rounds from {path}: {error.strerror}; give the file named as "
            "HardMiner(rounds=...)"
        ) from None
    rounds: list[Round] = []
    for place, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            done = Round.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            if place == len(lines) - 1:
                break
            raise InputError(
                f"{path}, line {place + 1} is not a round: {type(error).__name__}: {error}"
            ) from None
        rounds = [before for before in rounds if before.number < done.number]
        rounds.append(done)
    return rounds


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value


def _numbers(values: Sequence[float | None]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], np.float64)
