"""What changes while a training runs: the report of its detections, its rounds, its draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections import Matches, load_detections, match_detections
from hardmine.errors import InputError
from hardmine.history import Round, read_rounds
from hardmine.history.explain import explain_image
from hardmine.miner import HardMiner
from hardmine.mining.need import NeedRules
from hardmine.records import ClassScores
from hardmine.report.gap_output import GapReport
from hardmine.report.make import make_report
from hardmine.report.mining_preview import MiningPreview, preview_mining
from hardmine.serve.background import Background, State, file_stamp
from hardmine.serve.workspace import Workspace


@dataclass(frozen=True)
class Diagnosis:
    """What labels, index and detections say.

    Attributes:
        report: None without detections.
        mining: None without labels of the index's images.
    """

    report: GapReport | None
    mining: MiningPreview | None


@dataclass(frozen=True)
class Draws:
    """What a round draws.

    Attributes:
        done: The round, replayed.
        ids: (N,) image ids in the order of its weights.
        index_rows: (N,) row of each in the index; -1 for none.
        order: (N,) positions, the most often drawn first.
    """

    done: Round
    ids: npt.NDArray[Any]
    index_rows: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]


class Live:
    """Values made in the background, each again when its file changes.

    Args:
        workspace: Has the files.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        detections, rounds = workspace.detections, workspace.rounds
        self.matches: Background[Matches] = Background(self._match, lambda: file_stamp(detections))
        self.diagnosis: Background[Diagnosis] = Background(
            self._diagnose, lambda: file_stamp(detections)
        )
        self.rounds: Background[list[Round]] = Background(
            self._read_rounds, lambda: file_stamp(rounds)
        )
        self.draws: Background[Draws] = Background(self._replay, lambda: file_stamp(rounds))

    def rounds_now(self) -> State[list[Round]]:
        """The rounds, read if need be: a file of hundreds takes a moment."""
        return self.rounds.wait(2.0)

    def drawn(self, draws: Draws, offset: int, limit: int) -> list[dict[str, Any]]:
        """Images from the most often drawn on, and why, as JSON values without what they show."""
        drawn = []
        for place in draws.order[offset : offset + limit].tolist():
            reasons = explain_image(draws.done, draws.ids, draws.ids[place])
            drawn.append(
                {
                    "row": int(draws.index_rows[place]),
                    "id": draws.ids[place].item(),
                    "draws": round(reasons.expected_draws, 3),
                    "balance": round(reasons.balance, 3),
                    "density_ratio": round(reasons.density_ratio, 3),
                    "reasons": [
                        {
                            "kind": reason.kind,
                            "phrase": reason.query.phrases[0],
                            "class_name": reason.query.class_name,
                            "boost": round(reason.boost, 3),
                        }
                        for reason in reasons.reasons[:4]
                    ],
                }
            )
        return drawn

    def _match(self) -> Matches:
        images, detections = self.workspace.val_images, self.workspace.detections
        if detections is None or images is None:
            raise InputError(
                "there are no detections: start hardmine serve with --detections FILE and the "
                "labels of their images"
            )
        return match_detections(images, load_detections(detections, images))

    def _diagnose(self) -> Diagnosis:
        space = self.workspace
        if space.detections is None:
            if space.images is None:
                raise InputError("there are no labels: start hardmine serve with --ann FILE")
            # Equal scores: no class is weaker than another.
            names = space.images.class_names
            equal = ClassScores(names, np.full(len(names), 0.5))
            return Diagnosis(None, preview_mining(space.index, space.encoder, space.images, equal))
        report = make_report(
            title=space.detections.name,
            detections=space.detections,
            val=space.val_images,
            train=space.images,
            index=space.index,
            encoder=space.encoder,
        )
        return Diagnosis(report, report.mining)

    def _read_rounds(self) -> list[Round]:
        path = self.workspace.rounds
        return read_rounds(path) if path is not None and path.exists() else []

    def _replay(self) -> Draws:
        space = self.workspace
        done = next((one for one in reversed(self._read_rounds()) if not one.failed), None)
        if done is None or done.inputs is None:
            raise InputError("no round has made weights yet")
        names = done.class_names
        miner = HardMiner(
            space.index,
            encoder=space.encoder,
            images=space.images,
            need=NeedRules(class_names=names),
            targets=done.inputs.targets,
        )
        replayed = miner.replay(done)
        assert replayed.weights is not None
        assert miner.data is not None
        ids = miner.data.ids
        order = np.argsort(-replayed.weights, kind="stable")
        return Draws(replayed, ids, space.index.rows_of(ids), order)
