"""The record of a round, in memory and as one line of JSON."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.mining.assess import Assessment
from hardmine.mining.checked import CheckedLabels
from hardmine.mining.conditions import Condition
from hardmine.mining.density_ratio import DensityRatio
from hardmine.mining.labels import Labels
from hardmine.mining.mine import MiningResult, Ratios, RoundInputs
from hardmine.mining.queries import Queries
from hardmine.mining.targets import KINDS, SUSPECT, TargetRules
from hardmine.mining.weights import WeightReport, WeightRules, report_weights
from hardmine.records import names_to_rows, numbers, plain_values

FORMAT = 7
_TORN = json.JSONDecodeError, UnicodeDecodeError  # of a line that a crash left incomplete
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class QueryRecord:
    """One query of a round and its outcome.

    Attributes:
        phrases: The texts searched for.
        class_name: The class that is weak.
        context: ``""`` for the class itself.
        need: In [0, 1].
        precision: Share of its best hits that the labels confirm; NaN without labels.
        trust: In [0, 1], how far its hits were used.
        counts: Images of each kind.
    """

    phrases: tuple[str, ...]
    class_name: str
    context: str
    need: float
    precision: float
    trust: float
    counts: dict[str, int]


@dataclass(frozen=True)
class Round:
    """What one round saw, searched for and did.

    Attributes:
        number: From 1.
        time: UTC time of its end, ISO 8601.
        seconds: Duration.
        class_names: C names.
        inputs: All that the weights depend on, besides the data; None if the round failed.
        patience: (C,) the share of its need that patience left each class.
        queries: The queries and their outcome.
        draws: What the weights do to an epoch; None if the round failed.
        digest: Of the weights; a replay must reproduce it.
        conditions: In which the detector fails more often, the surest first, where they were looked
            for.
        notes: What people should know, one line each.
        error: Why the round failed; empty if it did not.
        weights: (N,) the sampling weights, in the order of the sampler's rows. Not in the JSON.
        result: Targets and all values of one an image. Not in the JSON.
    """

    number: int
    time: str
    seconds: float
    class_names: tuple[str, ...]
    inputs: RoundInputs | None
    patience: Floats
    queries: tuple[QueryRecord, ...] = ()
    draws: WeightReport | None = None
    digest: str = ""
    conditions: tuple[Condition, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""
    weights: Floats | None = field(default=None, repr=False)
    result: MiningResult | None = field(default=None, repr=False)

    def __str__(self) -> str:
        if self.draws is None:
            return f"round {self.number} failed: {self.error}"
        return (
            f"round {self.number}: {len(self.weak)} weak classes{self.found}, "
            f"{self.draws.num_raised} images raised, mean weight {self.draws.mean:.2f}, "
            f"{self.seconds:.1f} s"
        )

    @property
    def failed(self) -> bool:
        """Whether the round left the weights as they were."""
        return bool(self.error)

    @property
    def ap(self) -> Floats:
        """(C,) as validation measured it; NaN is unknown."""
        return np.full(len(self.class_names), np.nan) if self.inputs is None else self.inputs.ap

    @property
    def need(self) -> Floats:
        """(C,) in [0, 1], after patience."""
        return np.zeros(len(self.class_names)) if self.inputs is None else self.inputs.need

    @property
    def weak(self) -> list[str]:
        """Classes in need, the weakest first."""
        order = np.argsort(-self.need, kind="stable").tolist()
        return [self.class_names[row] for row in order if self.need[row] > 0]

    @property
    def boosted(self) -> npt.NDArray[np.bool_]:
        """(C,) which classes were drawn more often for their need, contexts apart."""
        rules = None if self.inputs is None else self.inputs.weights
        return (self.need > 0) & (rules is None or rules.cap > 1)

    @property
    def drawn_by(self) -> str:
        """What draws follow, where that is neither classes nor queries; empty if it is."""
        rules = None if self.inputs is None else self.inputs.weights
        return "" if rules is None else rules.drawn_by

    @property
    def found(self) -> str:
        """Weak conditions, and what draws follow, as the end of a clause."""
        parts = [f"weak {condition}" for condition in self.conditions]
        return "".join(f"; {part}" for part in (*parts, self.drawn_by) if part)

    def counts(self) -> dict[str, int]:
        """Number of (query, image) pairs of each kind."""
        return {kind: sum(query.counts[kind] for query in self.queries) for kind in KINDS}

    def suspects(self) -> list[tuple[int, str, float]]:
        """Images whose label is probably missing: (sampler row, class, score), best score first."""
        if self.result is None:
            return []
        targets = self.result.targets
        chosen = targets.take(targets.kinds == SUSPECT)
        order = np.argsort(-chosen.scores, kind="stable").tolist()
        return [
            (
                int(chosen.image_rows[place]),
                self.queries[chosen.query_rows[place]].class_name,
                float(chosen.scores[place]),
            )
            for place in order
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values of everything but the arrays of one value an image; NaN becomes None."""
        record = {name: getattr(self, name) for name in self.__dataclass_fields__}
        del record["weights"], record["result"]
        if self.inputs is not None:
            inputs = {name: getattr(self.inputs, name) for name in RoundInputs.__dataclass_fields__}
            del inputs["queries"]  # the query records hold them
            record["inputs"] = inputs
        return {"format": FORMAT, **plain_values(record)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Round:
        """Read what ``to_json`` wrote."""
        if record["format"] != FORMAT:
            raise InputError(
                f"the round has format {record['format']!r}, this version reads {FORMAT}; "
                "read the file with the version of hardmine that wrote it"
            )
        queries = tuple(_query_record(query) for query in record["queries"])
        class_names = tuple(record["class_names"])
        draws, inputs = record["draws"], record["inputs"]
        return cls(
            number=record["number"],
            time=record["time"],
            seconds=record["seconds"],
            class_names=class_names,
            inputs=None if inputs is None else _inputs(inputs, queries, class_names),
            patience=numbers(record["patience"]),
            queries=queries,
            draws=None if draws is None else _report(draws),
            digest=record["digest"],
            conditions=tuple(Condition(**condition) for condition in record["conditions"]),
            notes=tuple(record["notes"]),
            error=record["error"],
        )


def query_records(
    queries: Queries, result: MiningResult, class_names: Sequence[str]
) -> tuple[QueryRecord, ...]:
    """Put together each query and its outcome."""
    trust, counts = result.trust, result.targets.counts(len(queries)).tolist()
    return tuple(
        QueryRecord(
            phrases=queries.phrases[row],
            class_name=class_names[queries.class_rows[row]],
            context=queries.contexts[row],
            need=float(queries.need[row]),
            precision=float(trust.precision[row]),
            trust=float(trust.factor[row]),
            counts=dict(zip(KINDS, counts[row], strict=True)),
        )
        for row in range(len(queries))
    )


def mined_round(
    number: int,
    assessment: Assessment,
    inputs: RoundInputs,
    result: MiningResult,
    *,
    labels: Labels,
    notes: Sequence[str] = (),
) -> Round:
    """A round that made weights, but for its time and duration.

    Args:
        number: From 1.
        assessment: Of the validation.
        inputs: What the weights were made from.
        result: What came of them.
        labels: Of the training images.
        notes: What people should know besides what the assessment says.
    """
    class_names = assessment.need.class_names
    return Round(
        number=number,
        time="",
        seconds=0.0,
        class_names=class_names,
        inputs=inputs,
        patience=assessment.patience_factor,
        queries=query_records(inputs.queries, result, class_names),
        draws=report_weights(result.weights, labels.objects()),
        digest=weights_digest(result.weights),
        conditions=assessment.conditions,
        notes=(*assessment.notes, *inputs.notes, *notes),
        weights=result.weights,
        result=result,
    )


def failed_round(
    number: int, class_names: tuple[str, ...], weights: Floats | None, error: Exception
) -> Round:
    """A round that left the weights as they were."""
    return Round(
        number=number,
        time="",
        seconds=0.0,
        class_names=class_names,
        inputs=None,
        patience=np.ones(len(class_names)),
        error=f"{type(error).__name__}: {error}",
        weights=weights,
    )


def weights_digest(weights: Floats) -> str:
    """Hash of weights, to six decimals: other machines may differ in the last bits."""
    return hashlib.sha256(np.round(weights, 6).astype("<f8").tobytes()).hexdigest()


def append_round(path: str | Path, done: Round) -> None:
    """Add a round to a rounds file, as ``append_line`` does."""
    append_line(path, done.to_json())


def append_line(path: str | Path, record: Mapping[str, Any]) -> None:
    """Add one line of JSON to a file, durably: one write, then a sync.

    A line that a crash left incomplete is cut off first.
    """
    line = json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n"
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

    Where training was resumed from an earlier checkpoint, a round that was then done again counts
    once, as it was done last. An incomplete last line is left out.

    Raises:
        InputError: If the file is missing or no rounds file, or a line is not a round.
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
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if place == len(lines) - 1 and isinstance(error, _TORN):
                break
            what = f"line {place + 1} is not a round"
            if not rounds and not isinstance(error, InputError):
                file = "give the file named as HardMiner(rounds=...)"
                raise InputError(f"{path} is not a rounds file: {what}; {file}") from None
            raise InputError(f"{path}, {what}: {type(error).__name__}: {error}") from None
        rounds = [before for before in rounds if before.number < done.number]
        rounds.append(done)
    return rounds


def _inputs(
    values: Mapping[str, Any], records: Sequence[QueryRecord], class_names: Sequence[str]
) -> RoundInputs:
    weights, ratios = values["weights"], values["ratios"]
    classes, density = ratios["classes"], ratios["density"]
    rules = dict(values["targets"])
    if isinstance(rules["templates"], list):
        rules["templates"] = tuple(rules["templates"])
    return RoundInputs(
        ap=numbers(values["ap"]),
        need=numbers(values["need"]),
        queries=Queries(
            phrases=tuple(record.phrases for record in records),
            class_rows=names_to_rows([record.class_name for record in records], class_names),
            contexts=tuple(record.context for record in records),
            need=np.array([record.need for record in records], np.float64),
        ),
        mistaken_for=tuple((row, other, share) for row, other, share in values["mistaken_for"]),
        context_thresholds=dict(values["context_thresholds"]),
        ratios=Ratios(
            classes and tuple(classes),
            density and DensityRatio(tuple(density["direction"]), density["offset"]),
        ),
        # Rounds of before there were checks have none.
        checked=CheckedLabels(
            **{
                name: tuple((image, class_row) for image, class_row in pairs)
                for name, pairs in values.get("checked", {}).items()
            }
        ),
        targets=TargetRules(**rules),
        weights=None if weights is None else WeightRules(**weights),
        policy=values["policy"],
        num_images=values["num_images"],
        encoder=values["encoder"],
        clusters=values["clusters"],
    )


def _query_record(values: Mapping[str, Any]) -> QueryRecord:
    precision = values["precision"]
    return QueryRecord(
        **{
            **values,
            "phrases": tuple(values["phrases"]),
            "precision": np.nan if precision is None else precision,
        }
    )


def _report(values: Mapping[str, Any]) -> WeightReport:
    draws = values["class_draws"]
    return WeightReport(
        **{
            **values,
            "quantiles": tuple(values["quantiles"]),
            "class_draws": None if draws is None else numbers(draws),
        }
    )
