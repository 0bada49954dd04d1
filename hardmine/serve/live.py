"""What changes while a training runs: the report of its detections, its rounds, its draws."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections import Matches, load_detections, match_detections
from hardmine.errors import InputError
from hardmine.history import Round, read_rounds
from hardmine.history.explain import explain_image
from hardmine.kept import CONTEXTS_FILE, read_kept_contexts
from hardmine.miner import HardMiner
from hardmine.mining.need import NeedRules
from hardmine.records import ClassScores
from hardmine.report.gap_output import GapReport
from hardmine.report.make import make_report
from hardmine.report.mining_preview import MiningPreview, preview_mining
from hardmine.serve.background import Background, State, file_stamp
from hardmine.serve.collect import Wishes, make_wishes
from hardmine.serve.conditions import (
    ShownCondition,
    conditions_of_rounds,
    find_conditions,
    show_conditions,
)
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
        self._contexts = workspace.folder / CONTEXTS_FILE

        def all_files() -> Hashable:
            return tuple(file_stamp(file) for file in (detections, rounds, self._contexts))

        self.conditions: Background[tuple[ShownCondition, ...]] = Background(
            self._find_conditions, all_files
        )
        self.wishes: Background[Wishes] = Background(self._wish, all_files)

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

    def _find_conditions(self) -> tuple[ShownCondition, ...]:
        space, rounds = self.workspace, self._read_rounds()
        if space.detections is None:
            if space.rounds is None:
                raise InputError(
                    "conditions are found with detections: start hardmine serve with --detections "
                    "FILE and the labels and the index of their images, or with --rounds FILE of a "
                    'training with contexts="auto"'
                )
            return show_conditions(space, conditions_of_rounds(rounds), None, rounds)
        state = self.matches.wait()
        if state.value is None:
            raise InputError(state.error)
        found = find_conditions(space, state.value, read_kept_contexts(self._contexts))
        return show_conditions(space, found, state.value, rounds)

    def _wish(self) -> Wishes:
        space = self.workspace
        if space.pool is None:
            raise InputError(
                "collecting needs an index of unlabelled images: give it with --pool INDEX"
            )
        need, need_from = self._need()
        conditions: dict[str, float] = {}
        if space.detections is not None or space.rounds is not None:
            for one in self.conditions.wait().value or ():
                found = one.condition
                conditions[found.text] = max(
                    found.missed - found.missed_usually, found.false - found.false_usually
                )
        # How weak a kept context is was not measured: as weak as the weak classes.
        weak = [value for value in need.values() if value > 0]
        for text in read_kept_contexts(self._contexts):
            conditions.setdefault(text, float(np.mean(weak)) if weak else 1.0)
        return Wishes(make_wishes(space, need, conditions), need_from)

    def _need(self) -> tuple[dict[str, float], str]:
        """Need of each class, and in words where it is from."""
        if self.workspace.detections is not None:
            state = self.diagnosis.wait()
            if state.value is None or state.value.report is None:
                raise InputError(state.error)
            report = state.value.report
            return {gap.name: gap.need for gap in report.gaps}, f"the AP of {report.title}"
        for done in reversed(self._read_rounds()):
            if not done.failed:
                names = done.class_names
                return dict(zip(names, done.need.tolist(), strict=True)), f"round {done.number}"
        names = self.workspace.class_names
        return dict.fromkeys(names, 1.0), "nothing: without AP, every class is wanted alike"
