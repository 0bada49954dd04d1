"""HardMiner: between epochs, from what validation found weak to what is drawn more often."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.config import Config
from hardmine.datasets import load_images
from hardmine.distributed import broadcast_from_rank_zero, is_rank_zero
from hardmine.encoders import load_encoder
from hardmine.encoders.base import Encoder
from hardmine.encoders.templates import resolve_templates
from hardmine.errors import HardmineError, InputError
from hardmine.history.explain import Explanation, explain_image
from hardmine.history.replay import replay_round
from hardmine.history.rounds import Round, append_round, failed_round, query_records, weights_digest
from hardmine.index import build_index
from hardmine.index.base import Index
from hardmine.mining.assess import Judge
from hardmine.mining.mine import MiningData, match_data, mine
from hardmine.mining.policies import parse_policy
from hardmine.mining.state import MinerState
from hardmine.mining.targets import TargetRules
from hardmine.mining.weights import WeightRules, report_weights
from hardmine.records import ImageSet
from hardmine.sampler import HardMiningSampler

logger = logging.getLogger(__name__)


class HardMiner:
    """Turns each validation's weak classes into sampling weights.

    Under torch.distributed every rank makes one and calls ``step``; rank 0 mines, and all get the
    same weights. The other ranks may pass ``index=None`` and ``encoder=None``, and any metrics.

    A round that fails leaves the last weights, is logged with its cause, and training goes on.

    Args:
        index: Regions of the training images, and of an unlabelled pool if there is one.
        sampler: Gets the weights; None to take them from the Round, which then counts as one pass
            over the images.
        encoder: The one that made the index.
        images: The labels, matched by image id. Their order is the sampler's.
        dataset_ids: Image ids in the order of the sampler's rows, where that is not the order of
            ``images`` (or, without labels, of the index). Ids without labels are a pool.
        class_names: Classes to judge; those of ``images`` if None.
        policy: Which classes are weak; see ``class_need``.
        need_options: More arguments of ``class_need``, e.g. ``{"momentum": 0.0}``.
        contexts: Conditions asked of every weak class, e.g. ``["at night", "a wet {}"]``.
        val_images: Validation images with labels, for ``val_detections`` of ``step``.
        val_index: An index of them, made with the same encoder, to measure which class is weak
            under which context instead of asking all of all.
        sizes: Whether weak sizes are asked for where the metrics tell them.
        templates: Prompt templates, a set's name or one's own.
        rules: How labels and scores become targets.
        floor, cap, budget, fade, balance: How far weights may lie apart, and what draws them
            apart; see ``WeightRules``.
        patience: Rounds without a rise in AP after which a class's boost fades; None for never.
        rounds: File that gets one line of JSON a round; None for none.
        strict: Whether a failing round raises, on every rank.
        dry_run: Whether to leave the sampler alone.
    """

    def __init__(
        self,
        index: Index | None,
        sampler: HardMiningSampler | None = None,
        *,
        encoder: Encoder | None,
        images: ImageSet | None = None,
        dataset_ids: npt.ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        policy: str = "mean",
        need_options: Mapping[str, Any] | None = None,
        contexts: Sequence[str] = (),
        val_images: ImageSet | None = None,
        val_index: Index | None = None,
        sizes: bool = True,
        templates: str | Sequence[str] = "short",
        rules: TargetRules | None = None,
        floor: float = 1.0,
        cap: float = 3.0,
        budget: float | None = 0.5,
        fade: float | None = 5.0,
        balance: float = 1.0,
        patience: int | None = 3,
        rounds: str | Path | None = None,
        strict: bool = False,
        dry_run: bool = False,
    ) -> None:
        # What cannot work is refused here; a failing step would only be logged.
        parse_policy(policy)
        resolve_templates(templates)
        self.sampler = sampler
        self.rules = rules or TargetRules()
        self.weighing = WeightRules(floor=floor, cap=cap, budget=budget, fade=fade, balance=balance)
        self.rounds = None if rounds is None else Path(rounds)
        self.strict = strict
        self.dry_run = dry_run
        self.class_names = _class_names(class_names, images)
        self.judge = Judge(
            class_names=self.class_names,
            policy=policy,
            need_options=dict(need_options or {}),
            patience=patience,
            contexts=(contexts,) if isinstance(contexts, str) else tuple(contexts),
            sizes=sizes,
            images=val_images,
            index=val_index,
        )
        self._ground: MiningData | None = None
        if is_rank_zero():
            self._ground = _match_data(
                index, encoder, images, dataset_ids, self.class_names, templates
            )
            _check_lengths(self._ground, sampler)
        self._memory = MinerState.fresh(self.class_names)
        self._last: Round | None = None
        self._told: set[str] = set()

    @classmethod
    def from_config(
        cls,
        config: Config,
        sampler: HardMiningSampler | None = None,
        *,
        dataset_ids: npt.ArrayLike | None = None,
    ) -> HardMiner:
        """Load images and encoder, open the index or build it, and make the miner.

        The validation images get an index too where there are contexts to measure on them.

        Under torch.distributed every rank calls this and embeds its share of the images.

        Args:
            config: Of ``load_config``.
            sampler: Gets the weights; one is made by the config if None.
            dataset_ids: As in the constructor.
        """
        if config.images.source is None:
            raise InputError("the config must say where the images are: set images.source")
        images = load_images(**asdict(config.images))
        encoder = load_encoder(**asdict(config.encoder))
        settings = asdict(config.index)
        index = build_index(images, encoder, settings.pop("path"), **settings)
        val_images, val_index = None, None
        if config.validation.source is not None:
            place = asdict(config.validation)
            val_path = place.pop("index")
            val_images = load_images(**place)
            if config.queries.contexts:
                val_index = build_index(val_images, encoder, val_path, **settings)
        if sampler is None:
            ids = images.ids if dataset_ids is None else np.asarray(dataset_ids)
            sampler = HardMiningSampler(len(ids), **asdict(config.sampler))
        return cls(
            index,
            sampler,
            encoder=encoder,
            images=images,
            dataset_ids=dataset_ids,
            val_images=val_images,
            val_index=val_index,
            **config.miner_arguments(),
        )

    @property
    def ground(self) -> MiningData | None:
        """Index, labels and scores that it mines in; None on ranks that do not mine."""
        return self._ground

    @property
    def last_round(self) -> Round | None:
        """The round before, with weights and targets; None before the first and after a resume."""
        return self._last

    def step(
        self,
        metrics: Any,
        *,
        val_detections: Any = None,
        detections: scipy.sparse.spmatrix | None = None,
    ) -> Round:
        """Mine once: judge the metrics, ask, aim, and hand the weights to the sampler.

        Args:
            metrics: What validation said of each class, in any form that ``read_scores`` reads.
                Those of rank 0 count, here and below.
            val_detections: What the detector found on ``val_images``, in COCO's results format;
                says which classes are taken for which, and with ``val_index`` which class is weak
                under which context.
            detections: (N, C) sparse, the detector's best score for each class in images of the
                sampler that it was run on; sharpens which are hard and which are confused.

        Returns:
            The round, the same on every rank. ``error`` says why if it failed.
        """
        caught: list[Exception] = []
        # Errors travel as text: not every exception can be sent to another process.
        done, memory, failure = broadcast_from_rank_zero(
            lambda: self._attempt(metrics, val_detections, detections, caught)
        )
        if failure and self.strict:
            if caught:
                raise caught[0]
            raise HardmineError(f"round {done.number} failed on rank 0: {failure}")
        self._memory, self._last = memory, done
        if done.applied and self.sampler is not None:
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
        if self._ground is None or done is None:
            raise InputError("nothing to explain: no round was mined yet on this process (rank 0)")
        return explain_image(done, self._ground.ids, image_id)

    def replay(self, done: Round, *, detections: scipy.sparse.spmatrix | None = None) -> Round:
        """Fill in wanted weights and targets of a recorded round by asking again what it asked.

        Args:
            done: As ``read_rounds`` gives it.
            detections: Those that the round was given.

        Raises:
            IndexMismatch: If the wanted weights are not those of the record.
        """
        if self._ground is None:
            raise InputError("only rank 0 can replay: it holds the index")
        return replay_round(done, self._ground, detections=_by_column(detections))

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors: safe to load with ``weights_only=True``."""
        return self._memory.to_state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the round where the state was taken; the sampler gets its weights again.

        Load the sampler's own state after this one, to go on in the middle of an epoch.

        Raises:
            InputError: If the state is of other classes or another number of images.
        """
        memory = MinerState.from_state(state, self.class_names)
        if memory.weights is not None and self.sampler is not None and not self.dry_run:
            self.sampler.set_weights(memory.weights)
        self._memory, self._last = memory, None

    def _attempt(
        self,
        metrics: Any,
        val_detections: Any,
        detections: scipy.sparse.spmatrix | None,
        caught: list[Exception],
    ) -> tuple[Round, MinerState, str]:
        """One round on rank 0: what was done, what to remember, and what went wrong."""
        begun = time.perf_counter()
        try:
            done, memory = self._mine(metrics, val_detections, detections)
        except Exception as error:  # training must go on whatever mining runs into
            caught.append(error)
            done = failed_round(
                self._memory.number + 1, self.class_names, self._memory.weights, error
            )
            memory = replace(self._memory, number=done.number)
        done = replace(
            done,
            when=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - begun, 3),
        )
        self._tell(done, caught)
        try:
            if self.rounds is not None:
                append_round(self.rounds, done)
        except OSError as error:
            caught.append(error)
            logger.error("round %d is not on record: %s: %s", done.number, self.rounds, error)
        failure = f"{type(caught[0]).__name__}: {caught[0]}" if caught else ""
        return done, memory, failure

    def _mine(
        self, metrics: Any, val_detections: Any, detections: scipy.sparse.spmatrix | None
    ) -> tuple[Round, MinerState]:
        assert self._ground is not None
        ground, before = self._ground, self._memory
        verdict = self.judge.judge(
            metrics, val_detections, before, ground.book.encoder, ground.synonyms
        )
        aim = mine(
            verdict.queries,
            ground,
            detections=_by_column(detections),
            confusion=verdict.confusion,
            answers=verdict.answers,
            rules=self.rules,
            weighing=self.weighing,
        )
        passes, epoch = self._passes()
        lead, weights = before.lead.fade(
            aim.weights,
            drawn_by=None if self.dry_run else before.weights,
            passes=passes,
            epoch=epoch,
            fade=self.weighing.fade,
        )
        done = Round(
            number=before.number + 1,
            when="",
            seconds=0.0,
            class_names=self.class_names,
            ap=verdict.need.ap,
            need=verdict.wanted,
            patience=verdict.kept,
            asked=query_records(verdict.queries, aim, self.class_names),
            drawn=report_weights(weights, ground.labels.present.astype(np.int64)),
            settings={
                **self._settings(),
                **asdict(self.weighing),
                "passes": round(lead.passes, 3),
                "detections": detections is not None,
                "confusion": verdict.confusion.seen_on,
                "taken_for": verdict.confusion.taken_for,
                "answers": verdict.answers,
            },
            digest=weights_digest(aim.weights),
            notes=tuple(verdict.need.unmatched),
            applied=not self.dry_run,
            weights=weights,
            wanted=aim.weights,
            lead=lead.draws,
            targets=aim.targets,
            evened=aim.evened,
            labelled=aim.labelled,
        )
        # A class that is asked for under a condition alone is not waited for: the condition's need
        # is measured anew each time.
        boosted = (verdict.wanted > 0) & (not self.dry_run)
        patience = replace(verdict.patience, boosted=boosted)
        return done, MinerState(
            self.class_names, done.number, verdict.need, patience, weights, lead
        )

    def _passes(self) -> tuple[float, float]:
        """Passes over the images so far, and those of an epoch."""
        if self.sampler is None:
            return self._memory.lead.passes + 1.0, 1.0
        return self.sampler.passes, self.sampler.epoch_length / self.sampler.num_images

    def _settings(self) -> dict[str, Any]:
        assert self._ground is not None
        book = self._ground.book
        templates = book.templates
        return {
            "policy": self.judge.policy,
            "contexts": list(self.judge.contexts),
            "templates": templates if isinstance(templates, str) else list(templates),
            "rules": asdict(self.rules),
            "patience": self.judge.patience,
            "encoder": book.encoder.fingerprint,
            "clusters": book.index.clusters,
            "num_images": len(self._ground),
        }

    def _tell(self, done: Round, caught: list[Exception]) -> None:
        if not caught:
            assert done.drawn is not None
            logger.info(
                "round %d: %d weak classes, %d images raised, mean weight %.2f, %.1f s%s",
                done.number,
                len(done.weak),
                done.drawn.num_raised,
                done.drawn.mean,
                done.seconds,
                "" if done.applied else " (dry run)",
            )
        elif done.error not in self._told:
            self._told.add(done.error)
            logger.error(
                "round %d failed; training goes on with the last weights: %s",
                done.number,
                done.error,
                exc_info=caught[0],
            )


def _class_names(wanted: Sequence[str] | None, images: ImageSet | None) -> tuple[str, ...]:
    names = tuple(wanted or (images.class_names if images is not None else ()))
    if not names:
        raise InputError(
            "HardMiner must know the classes: give images with labels, or class_names=[...]"
        )
    return names


def _match_data(
    index: Index | None,
    encoder: Encoder | None,
    images: ImageSet | None,
    dataset_ids: npt.ArrayLike | None,
    class_names: tuple[str, ...],
    templates: str | Sequence[str],
) -> MiningData:
    if index is None or encoder is None:
        raise InputError("rank 0 mines and needs index and encoder; only other ranks may pass None")
    ids = dataset_ids if dataset_ids is not None else (index if images is None else images).ids
    return match_data(index, encoder, images, ids=ids, class_names=class_names, templates=templates)


def _check_lengths(ground: MiningData, sampler: HardMiningSampler | None) -> None:
    if sampler is not None and sampler.num_images != len(ground):
        raise InputError(
            f"the sampler draws from {sampler.num_images} images, the labels (or the index) have "
            f"{len(ground)}; pass dataset_ids=, the image id of each of the sampler's rows"
        )


def _by_column(detections: scipy.sparse.spmatrix | None) -> scipy.sparse.csc_matrix | None:
    return None if detections is None else scipy.sparse.csc_matrix(detections)
