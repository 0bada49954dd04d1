"""HardMiner: after each validation, weak classes become sampling weights."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.config import Config
from hardmine.datasets import load_images
from hardmine.distributed import RankGroup
from hardmine.encoders import Encoder, load_encoder
from hardmine.errors import HardmineError, InputError
from hardmine.history.explain import Explanation, explain_image
from hardmine.history.replay import replay_round
from hardmine.history.rounds import Round, append_round, failed_round, mined_round
from hardmine.index import Index, build_index
from hardmine.index.coverage import check_coverage, require_same_files
from hardmine.kept import Kept, KeptFolder
from hardmine.mining.assess import ValidationSet, assess, make_finder
from hardmine.mining.checked import match_checks
from hardmine.mining.conditions import ConditionFinder, read_contexts
from hardmine.mining.mine import (
    MiningData,
    RoundInputs,
    WeightPolicy,
    find_ratios,
    match_data,
    mine,
    policy_name,
    rules_or_policy,
)
from hardmine.mining.need import NeedRules
from hardmine.mining.scores import require_comparable
from hardmine.mining.state import MinerState
from hardmine.mining.targets import TargetRules
from hardmine.mining.weights import NO_LOOK, Schedule, WeightRules
from hardmine.records import ImageSet
from hardmine.sampler import HardMiningSampler

logger = logging.getLogger(__name__)


class HardMiner:
    """Turns the weak classes of each validation into sampling weights.

    Under torch.distributed every rank makes a miner and calls ``step``, and rank 0 mines for all.
    The others may pass ``index=None``, ``encoder=None`` and any metrics.

    A round that fails keeps the last weights and logs the cause; training goes on.

    Args:
        index: Regions of the training images, and of an unlabelled pool if there is one.
        sampler: Gets the weights. If None, take them from the Round.
        encoder: The one that made the index.
        images: The labels, matched by image id. Their order is the sampler's.
        dataset_ids: Image ids in the order of the sampler's rows, where that is not the order of
            ``images`` (or, without labels, of the index). Ids without labels are a pool.
        contexts: Contexts that every weak class is combined with, such as
            ``["at night", "a wet {}"]``. ``"auto"`` finds those of a list of 229 in which objects
            are missed or detections are false; ``["auto", "under our floodlights"]`` tries more.
        validation: The validation images that ``val_detections`` of ``step`` belong to. With an
            index, images like those on which objects are missed are drawn more often, and contexts
            are measured instead of being searched for every weak class.
        need: Which classes count as weak.
        targets: How queries and labels become targets.
        weights: How far weights may lie apart; ``"class-aware"`` draws all classes alike; or a
            function of (``RoundInputs``, ``MiningData``) that returns (N,) weights, a policy.
        rounds: File that gets one line of JSON a round; None for none.
        strict: Whether a failing round raises, on every rank.
        kept: Folder of ``hardmine serve`` with contexts and answers to checks, read in each round.
    """

    def __init__(
        self,
        index: Index | None,
        sampler: HardMiningSampler | None = None,
        *,
        encoder: Encoder | None,
        images: ImageSet | None = None,
        dataset_ids: npt.ArrayLike | None = None,
        contexts: str | Sequence[str] = (),
        validation: ValidationSet | None = None,
        need: NeedRules | None = None,
        targets: TargetRules | None = None,
        weights: WeightRules | WeightPolicy | str | None = None,
        rounds: str | Path | None = None,
        strict: bool = False,
        kept: str | Path | None = None,
    ) -> None:
        kinds = (ImageSet, ValidationSet, NeedRules, TargetRules)
        given = {"images": images, "validation": validation, "need": need, "targets": targets}
        for (name, value), kind in zip(given.items(), kinds, strict=True):
            if value is not None and not isinstance(value, kind):
                raise InputError(f"{name} must be a hardmine.{kind.__name__}, got {value!r:.200}")
        self.sampler = sampler
        self.contexts = read_contexts(contexts)
        self.need_rules = need or NeedRules()
        self.target_rules = targets or TargetRules()
        self.weight_rules, self.policy = rules_or_policy(weights)
        self.rounds = None if rounds is None else Path(rounds)
        self.strict = strict
        self.class_names = self.need_rules.classes_of(images)
        self.validation = validation and validation.with_names(self.class_names)
        # Index, labels and scores; None on ranks that do not mine.
        self.data: MiningData | None = None
        self._kept: KeptFolder | None = None
        self._contexts_now: tuple[str, ...] = ()  # those of the miner, and those kept
        self._finder: ConditionFinder | None = None
        num_rows = None if sampler is None else sampler.num_images
        draws: list[float] = []  # how often an epoch draws an image, on average

        def match() -> None:
            if ranks.rank == 0:
                self.data = match_data(
                    index,
                    encoder,
                    images,
                    ids=dataset_ids,
                    class_names=self.class_names,
                    templates=self.target_rules.templates,
                    num_rows=num_rows,
                    dataset=None if sampler is None else sampler.dataset,
                )
                check_coverage(self.data.scores.index, self.data.ids, "training")
                require_same_files(self.data.scores.index, images)
                if validation is not None and validation.index is not None:
                    require_comparable(validation.index, self.data.scores)
                    check_coverage(validation.index, validation.images.ids, "validation")
                    require_same_files(validation.index, validation.images)
                self._kept = None if kept is None else KeptFolder(kept)
                self._use_contexts(self.contexts)
                # The data set may list an image repeatedly.
                length = len(self.data) if sampler is None else sampler.epoch_length
                draws.append(length / len(np.unique(self.data.ids)))

        with RankGroup() as ranks:
            same = {"class_names": self.class_names, "num_images": num_rows, "strict": strict}
            ranks.require_same(same, "HardMiner")
            ranks.on_every_rank(match)
            self.schedule = Schedule(self.weight_rules, ranks.on_rank_zero(lambda: draws[0]))
        self._state = MinerState.fresh(self.class_names)
        self._last: Round | None = None

    @classmethod
    def from_config(
        cls,
        config: Config,
        sampler: HardMiningSampler | None = None,
        *,
        dataset_ids: npt.ArrayLike | None = None,
    ) -> HardMiner:
        """Load images and encoder, open or build the index, and make the miner.

        Validation images get an index too. Under torch.distributed every rank embeds its share.

        Args:
            config: Of ``load_config``.
            sampler: Gets the weights; one is made from the config if None.
            dataset_ids: As in the constructor.
        """
        if config.images.source is None:
            raise InputError("the config must say where the images are: set images.source")
        images = load_images(**asdict(config.images))
        encoder = load_encoder(**asdict(config.encoder))
        index_options = asdict(config.index)
        index = build_index(images, encoder, index_options.pop("path"), **index_options)
        validation = None
        if config.validation.source is not None:
            image_options = asdict(config.validation)
            val_path = image_options.pop("index")
            val_images = load_images(**image_options)
            val_index = build_index(val_images, encoder, val_path, **index_options)
            validation = ValidationSet(val_images, val_index)
        if sampler is None:
            ids = images.ids if dataset_ids is None else np.asarray(dataset_ids)
            sampler = HardMiningSampler(len(ids), **asdict(config.sampler))
        return cls(
            index,
            sampler,
            encoder=encoder,
            images=images,
            dataset_ids=dataset_ids,
            validation=validation,
            need=config.need,
            targets=config.targets,
            weights=config.weights,
            **asdict(config.miner),
        )

    @property
    def last_round(self) -> Round | None:
        """The last round, with weights and result; None before the first and after a resume."""
        return self._last

    def step(
        self,
        metrics: Any,
        *,
        val_detections: Any = None,
        epochs_done: float = 0,
        epochs: float = 0,
        every: float | None = None,
    ) -> Round:
        """Mine once: assess the metrics, search, and give the sampler new weights.

        Args:
            metrics: Per-class validation scores, in any form that ``read_scores`` reads. Those of
                rank 0 count, here and below.
            val_detections: What the detector found on the validation images, in COCO's results
                format. Shows which classes are confused and, with an index of these images, where
                objects are missed and which class is weak in which context.
            epochs_done: Epochs of the training that are done.
            epochs: Those of the whole training; 0 if not known. How draws change towards its end
                depends on both: see ``WeightRules``.
            every: Epochs between validations; those since the last step if None.

        Returns:
            The round, the same on every rank but for ``result``, which only rank 0 has. ``error``
            says why if it failed.
        """
        caught: list[Exception] = []
        mined: list[Round] = []

        def attempt() -> tuple[Round, MinerState, str]:
            place = (epochs_done, epochs, every)
            done, state, failure = self._attempt(
                lambda: self._mine(metrics, val_detections, place), caught
            )
            mined.append(done)
            # The others need the weights, not what led to them: 247 MB for a million images.
            return replace(done, result=None), state, failure

        with RankGroup() as ranks:
            # Errors travel as text: not every exception can be sent to another process.
            done, state, failure = ranks.on_rank_zero(attempt)
        done = mined[0] if mined else done
        if failure and self.strict:
            if caught:
                raise caught[0]
            raise HardmineError(f"round {done.number} failed on rank 0: {failure}")
        self._state, self._last = state, done
        if not done.failed and self.sampler is not None:
            self.sampler.set_weights(done.weights)
        return done

    def explain(self, image_id: Any, *, done: Round | None = None) -> Explanation:
        """Say why an image has its weight.

        Args:
            image_id: As the labels have it.
            done: A round of ``replay``; the last one if None.

        Raises:
            InputError: If there was no round yet, it failed, or the image is not drawn from.
        """
        done = done or self._last
        if self.data is None or done is None:
            raise InputError("nothing to explain: no round was mined yet on this process (rank 0)")
        return explain_image(done, self.data.ids, image_id)

    def replay(self, done: Round) -> Round:
        """Compute the weights of a recorded round again, to the bit.

        Args:
            done: One of those that ``read_rounds`` gives; returned with weights and result.

        Raises:
            IndexMismatch: If the weights are not those of the record.
        """
        if self.data is None:
            raise InputError("only rank 0 can replay: it holds the index")
        return replay_round(done, self.data, policy=self.policy)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, safe to load with ``weights_only=True``."""
        return self._state.to_state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume after the round where the state was taken; the sampler gets its weights again.

        Load the sampler's own state after this one to resume in the middle of an epoch.

        Raises:
            InputError: If the state is of other classes or another number of images.
        """
        loaded = MinerState.from_state(state, self.class_names)
        if loaded.weights is not None and self.sampler is not None:
            self.sampler.set_weights(loaded.weights)
        self._state, self._last = loaded, None
        self.schedule.resume()

    def _attempt(
        self, run: Callable[[], tuple[Round, MinerState]], caught: list[Exception]
    ) -> tuple[Round, MinerState, str]:
        """One round on rank 0: its record, the new state, and what went wrong."""
        started = time.perf_counter()
        try:
            done, state = run()
        except Exception as error:  # training must go on whatever mining runs into
            caught.append(error)
            number = self._state.number + 1
            done = failed_round(number, self.class_names, self._state.weights, error)
            state = replace(self._state, number=number)
        done = replace(
            done,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - started, 3),
        )
        if caught:
            # What a user can mend needs no traceback.
            trace = None if isinstance(caught[0], HardmineError) else caught[0]
            message = "round %d failed; training goes on with the last weights: %s"
            logger.error(message, done.number, done.error, exc_info=trace)
        else:
            logger.info("%s", done)
        try:
            if self.rounds is not None:
                append_round(self.rounds, done)
        except OSError as error:
            caught.append(error)
            logger.error("round %d was not recorded: %s: %s", done.number, self.rounds, error)
        failure = f"{type(caught[0]).__name__}: {caught[0]}" if caught else ""
        return done, state, failure

    def _mine(
        self, metrics: Any, val_detections: Any, place: tuple[float, float, float | None]
    ) -> tuple[Round, MinerState]:
        """The method: need -> queries -> scores -> trust -> targets -> weights."""
        assert self.data is not None
        data, before, rules = self.data, self._state, self.schedule.step(*place)
        kept = Kept() if self._kept is None else self._kept.read()
        self._use_contexts((*self.contexts, *kept.contexts))
        # 1. Need and queries: what is weak, and what to search for.
        assessment = assess(
            metrics,
            val_detections,
            class_names=self.class_names,
            previous=before.need,
            patience=before.patience,
            rules=self.need_rules,
            contexts=() if self._finder else self._contexts_now,
            validation=self.validation,
            encoder=data.scores.encoder,
            synonyms=data.synonyms,
            finder=self._finder,
            found_before=before.conditions,
        )
        # 2. Scores, trust, targets, weights.
        ratios = find_ratios(data, self.validation, assessment.matches, rules)
        notes = kept.notes
        if rules is not None and rules.look_alone and ratios.density is None:
            rules, notes = self.weight_rules, (*notes, NO_LOOK)
        inputs = RoundInputs(
            ap=assessment.need.ap,
            need=assessment.class_need,
            queries=assessment.queries,
            mistaken_for=assessment.mistaken_for,
            context_thresholds=assessment.context_thresholds,
            ratios=ratios,
            checked=match_checks(kept.checks, data.ids, self.class_names),
            targets=self.target_rules,
            weights=rules,
            policy="" if self.policy is None else policy_name(self.policy),
            num_images=len(data),
            encoder=data.scores.encoder.fingerprint,
            clusters=data.scores.index.clusters,
        )
        result = mine(inputs, data, policy=self.policy)
        # 3. The record, and what the next round starts from.
        done = mined_round(
            before.number + 1, assessment, inputs, result, labels=data.labels, notes=notes
        )
        looked = assessment.matches is not None
        return done, replace(
            before,
            number=done.number,
            need=assessment.need,
            patience=replace(assessment.patience, boosted=done.boosted),
            weights=result.weights,
            conditions=tuple(one.text for one in done.conditions) if looked else before.conditions,
        )

    def _use_contexts(self, contexts: tuple[str, ...]) -> None:
        """Take these as the contexts from now on, or as more texts to try where they are found."""
        contexts = tuple(dict.fromkeys(contexts))
        if contexts != self._contexts_now:
            assert self.data is not None
            encoder = self.data.scores.encoder
            self._finder = make_finder(contexts, self.validation, encoder, self.class_names)
            self._contexts_now = contexts
