"""The miner of a trainer: made once, stepped after validations, saved and restored."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from hardmine.distributed import RankGroup, rank_and_world_size
from hardmine.encoders import load_encoder
from hardmine.errors import HardmineError, InputError, require_keys
from hardmine.history import Round
from hardmine.hosts.images import num_instances
from hardmine.hosts.index import open_or_build
from hardmine.hosts.options import MiningOptions
from hardmine.hosts.partners import PartnerTable
from hardmine.hosts.scalars import summary
from hardmine.hosts.states import StateFolder
from hardmine.index import Index
from hardmine.miner import HardMiner
from hardmine.mining.assess import ValidationSet
from hardmine.mining.conditions import AUTO
from hardmine.mining.need import NeedRules
from hardmine.mining.weights import WeightRules
from hardmine.records import ClassScores, ImageSet
from hardmine.sampler import HardMiningSampler


@dataclass(frozen=True)
class ValidationResult:
    """What a validation found.

    Attributes:
        scores: AP by class; None if nothing was detected.
        detections: The predicted boxes, as ``HardMiner.step`` takes them; None if not known.
        detections_error: Why they could not be read; empty if they could.
    """

    scores: ClassScores | None
    detections: Any = None
    detections_error: str = ""

    @classmethod
    def measured(
        cls, scores: ClassScores | None, read_detections: Callable[[], Any]
    ) -> ValidationResult:
        """AP by class with the predicted boxes; AP alone, and why, if they cannot be read."""
        try:
            return cls(scores, read_detections())
        except HardmineError as error:
            return cls(scores, None, str(error))
        except Exception as error:  # AP needs no boxes, and training must go on
            return cls(scores, None, f"{type(error).__name__}: {error}")


class HostMining:
    """Mines in a trainer that says when a validation is over and how to read it.

    All ranks make it and call its methods alike.

    Args:
        options: Of the user.
        sampler: Of the training loader.
        images: The training images with their labels.
        dataset_ids: Image ids in the order of the sampler's rows; that of ``images`` if None.
        val_images: The validation images; None if they are not known.
        measure: Whether this trainer's validation tells the boxes predicted on them, so that they
            need an index.
        folder: Hardmine's work folder; holds rounds, and indexes that have no other place.
        device: Of the model.
        log: The trainer's log. Rank 0 alone writes.
        partners: Gets the weights as well.
    """

    def __init__(
        self,
        options: MiningOptions,
        sampler: HardMiningSampler,
        *,
        images: ImageSet,
        dataset_ids: npt.ArrayLike | None = None,
        val_images: ImageSet | None = None,
        measure: bool = False,
        folder: Path,
        device: str,
        log: Any = None,
        partners: PartnerTable | None = None,
    ) -> None:
        self.options = options
        self.sampler = sampler
        self.validations = 0
        self._validated_at: float | None = 0.0  # epochs that were done at the last validation
        self._rules: WeightRules | None = None  # of the last round
        self._run = uuid4().hex
        self._log = log or logging.getLogger(__name__)
        self._partners = partners
        self._warned: set[str] = set()
        named = isinstance(options.encoder, Mapping)
        arguments = dict(options.encoder) if named else {"name": options.encoder}
        encoder = load_encoder(**({"device": options.device or device} | arguments))

        if val_images is None or not (measure and options.measure):
            _require_no_boxes_needed(options)

        def index_of(listed: ImageSet, place: str | Path) -> Index:
            return open_or_build(
                listed,
                encoder,
                place,
                clusters=options.clusters,
                batch_size=options.batch_size,
                workers=options.workers,
                progress=_BuildProgress(self._info),
            )

        index = index_of(images, options.index or folder / "index.hmx")
        settings: dict[str, Any] = {
            "rounds": folder / "rounds.jsonl",
            "strict": options.strict,
            **options.miner,
        }
        if val_images is not None:
            rules = settings.get("need") or NeedRules()
            if rules.num_instances is None:
                names = rules.class_names or images.class_names
                labelled = ValidationSet(val_images).with_names(names).images
                counts = num_instances(labelled, names)
                settings["need"] = replace(rules, num_instances=counts)
            if measure and options.measure:
                val_index = index_of(val_images, options.val_index or folder / "val-index.hmx")
                settings["validation"] = ValidationSet(val_images, val_index)
        self.miner = HardMiner(
            index, sampler, encoder=encoder, images=images, dataset_ids=dataset_ids, **settings
        )
        self._set_partner_weights(sampler.weights, 0)

    def after_validation(
        self, read: Callable[[], ValidationResult], *, epochs_done: float, epochs: float
    ) -> Round | None:
        """Count a validation and, if a round is due, mine by it.

        Args:
            read: Reads the validation. All ranks call it, and rank 0's result counts.
            epochs_done: Epochs of the training that are done.
            epochs: Those of the whole training; 0 if it has no end.

        Returns:
            The round; None if there was none, or if it failed and the weights stayed.
        """
        self.validations += 1
        epochs_done = min(epochs_done, epochs or epochs_done)
        every = 0.0 if self._validated_at is None else epochs_done - self._validated_at
        self._validated_at = epochs_done
        rules = self.miner.schedule.rules_at(epochs_done, epochs, every)
        number = self.validations - 1 - self.options.begin
        # Every ``interval`` validations, and as soon as other rules hold.
        if number < 0 or (number % self.options.interval != 0 and rules == self._rules):
            return None
        result = self._read(read)
        if result is None:
            return None
        if result.detections_error:
            self.warn(
                "mining without the predicted boxes, which cannot be read: "
                f"{result.detections_error}"
            )
        done = self.miner.step(
            result.scores,
            val_detections=result.detections,
            epochs_done=epochs_done,
            epochs=epochs,
            every=every,
        )
        if done.failed:
            self._error(f"round {done.number} failed; the weights stay as they are: {done.error}")
            return None
        self._rules = rules
        self._set_partner_weights(done.weights, done.number)
        self._info(summary(done))
        for note in done.notes:
            self.warn(note)
        return done

    def state(self, samplers: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
        """All that is needed to resume, in plain values and tensors.

        Args:
            samplers: The sampler's state on every rank, or on rank 0 alone; [None] where training
                resumes at the end of an epoch.
        """
        return {
            "run": self._run,
            "miner": self.miner.state_dict(),
            "validations": self.validations,
            "validated_at": self._validated_at,
            "rules": None if self._rules is None else asdict(self._rules),
            "samplers": list(samplers),
        }

    def save_state(self, states: StateFolder, count: int, state: dict[str, Any]) -> None:
        """Write the state after a validation; a failure is logged, unless mining is strict."""
        try:
            states.save(count, state)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError if it cannot write
            if self.options.strict:
                raise
            self._error(
                "the state after this validation could not be saved; a run resumed from here will "
                f"use the state before it: {error}"
            )

    def load_state(self, state: dict[str, Any] | None) -> None:
        """Resume from a state; None, where the checkpoint has none, leaves a warning."""
        if state is None:
            self._validated_at = None
            self.warn(
                "the checkpoint to resume from was saved without hardmine; all images are drawn "
                "equally often until the next validation"
            )
            return
        require_keys(state, self.state([]), "mining")
        self.miner.load_state_dict(state["miner"])
        self.validations = int(state["validations"])
        # A run that resumes is another: states that the run before saved later are not its own.
        self._validated_at = state["validated_at"]
        self._rules = None if state["rules"] is None else WeightRules(**state["rules"])
        weights = state["miner"]["weights"]
        if weights is not None:
            self._set_partner_weights(weights, int(state["miner"]["number"]))
        rank, world_size = rank_and_world_size()
        samplers = state["samplers"]
        if samplers[0] is not None:
            # A rank without a saved state of its own drops the rows that waited for a batch.
            own = samplers[rank] if len(samplers) == world_size else samplers[0] | {"waiting": []}
            self.sampler.load_state_dict(own)

    def _read(self, read: Callable[[], ValidationResult]) -> ValidationResult | None:
        """Read a validation; None, with a message in the log, if there is nothing to mine by."""
        result, error = None, None
        try:
            result = read()
        except Exception as caught:  # training must go on whatever mining runs into
            error = caught
        failure = "" if error is None else str(error) or type(error).__name__
        with RankGroup() as ranks:
            outcome = ranks.on_rank_zero(lambda: (failure, _unusable(result)))
        failure, unusable = outcome
        if failure:
            if self.options.strict:
                raise error or HardmineError(f"rank 0 cannot mine by this validation: {failure}")
            self._error(f"cannot mine by this validation; the weights stay as they are: {failure}")
        elif unusable:
            self.warn(
                "nothing to mine by in this validation; the weights stay as they are: " + unusable
            )
        else:
            return result or ValidationResult(None)
        return None

    def _set_partner_weights(self, weights: Any, number: int) -> None:
        if self._partners is not None:
            self._partners.set_weights(weights, round_number=number)

    def _info(self, message: str) -> None:
        if rank_and_world_size()[0] == 0:
            self._log.info(f"hardmine: {message}")

    def warn(self, message: str) -> None:
        """Log a warning, once a run."""
        if rank_and_world_size()[0] == 0 and message not in self._warned:
            self._warned.add(message)
            self._log.warning(f"hardmine: {message}")

    def _error(self, message: str) -> None:
        if rank_and_world_size()[0] == 0:
            self._log.error(f"hardmine: {message}")


def _require_no_boxes_needed(options: MiningOptions) -> None:
    """Refuse what follows predicted boxes where there are none, before an index is built."""
    if AUTO in options.miner.get("contexts", ()):
        raise InputError(
            f"contexts={AUTO!r} needs the boxes predicted on the validation images, which are not "
            "handed over here (no validation images, a trainer that keeps no boxes, or "
            'measure=False); name the contexts, such as ["at night"]'
        )


def _unusable(result: ValidationResult | None) -> str:
    """Why a validation that was read has nothing to mine by; empty if it has."""
    if result is None or result.scores is None:
        return "nothing was detected"
    if np.isnan(result.scores.ap).all():
        return "all classes have AP NaN or -1; do the validation labels hold these classes?"
    return ""


class _BuildProgress:
    """Logs every tenth of an index build; pass it to ``build_index``."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._logged_tenth = -1

    def __call__(self, progress: Any) -> None:
        tenth = 10 * progress.done // max(progress.total, 1)
        if tenth != self._logged_tenth:
            self._logged_tenth = tenth
            self._log(
                f"indexed {progress.done} of {progress.total} images, {progress.rate:.1f} images/s"
            )
