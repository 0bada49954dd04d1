"""Rounds in the log, and errors that persist only now and then."""

from __future__ import annotations

import logging

from hardmine.history.rounds import Round

logger = logging.getLogger(__name__)

_AGAIN = 10  # rounds after which an error that persists is logged again


class RoundLog:
    """Logs each round; an error in full the first time, and in one line some rounds later."""

    def __init__(self) -> None:
        self._logged: dict[str, int] = {}  # error -> round that logged it

    def write(self, done: Round, error: Exception | None) -> None:
        """Log a round that is over, or the error that it failed with."""
        if error is None:
            logger.info("%s", done)
            return
        logged = self._logged.get(done.error)
        if logged is None or done.number - logged >= _AGAIN:
            self._logged[done.error] = done.number
            logger.error(
                "round %d failed; training goes on with the last weights: %s",
                done.number,
                done.error,
                exc_info=error if logged is None else None,
            )
