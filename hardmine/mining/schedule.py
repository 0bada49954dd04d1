"""Where a training is, and which rules its draws follow there."""

from __future__ import annotations

import logging
import math

from hardmine.mining.weights import WeightRules

logger = logging.getLogger(__name__)

NO_LOOK = (
    "what is missed could not be looked at (that takes predicted boxes and an index of the "
    "validation images), so classes and queries decide to the end"
)


class Schedule:
    """The rules of each place in a training, which is told in epochs of the sampler.

    Args:
        rules: Those of the whole training; None if a policy draws.
        draws_per_image: How often an epoch draws an image, on average.

    Attributes:
        epoch_share: Share of an epoch that training draws; set it where that is not 1.
    """

    def __init__(self, rules: WeightRules | None, draws_per_image: float) -> None:
        self._rules = rules
        self._draws_per_image = draws_per_image
        self.epoch_share = 1.0
        self._stepped_at: float | None = 0.0  # epochs that were done at the last step
        self._warned = False

    def step(self, epochs_done: float, epochs: float, every: float | None) -> WeightRules | None:
        """The rules of a round, from which the next one counts its ``every`` if that is None."""
        if every is None:
            every = 0.0 if self._stepped_at is None else epochs_done - self._stepped_at
        rules = self.rules_at(epochs_done, epochs, every)
        self._stepped_at = epochs_done
        if epochs == 0 and rules is not None and rules.look_from < 1 and not self._warned:
            self._warned = True
            logger.warning(
                "the length of the training is not known (epochs_done=, epochs=), so draws follow "
                "the same rules to its end, and not what missed objects look like"
            )
        return rules

    def resume(self) -> None:
        """Forget when the last round was."""
        self._stepped_at = None

    def rules_at(self, epochs_done: float, epochs: float, every: float) -> WeightRules | None:
        """The rules in one place.

        Args:
            epochs_done: Epochs that are done.
            epochs: Those of the whole training; 0 if not known.
            every: Epochs between validations; 0 if not known.
        """
        if self._rules is None:
            return None
        draws = self._draws_per_image * self.epoch_share
        # Weights count from the next epoch on, and not all shares of epochs are exact.
        last = every > 0 and math.ceil(epochs_done + every - 1e-6) >= epochs
        return self._rules.at(epochs_done * draws, epochs * draws, last=last)
