"""What the hook tells people, in mmengine's log and visualizer."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from hardmine.history.rounds import Round


def warn(runner: Runner, message: str) -> None:
    """Warn once in a run."""
    # mmengine drops a warning whose text, before its arguments, it has seen: so there are none.
    runner.logger.warning(f"hardmine: {message}")


def tell_error(runner: Runner, message: str) -> None:
    """Tell each time, on the first process alone: mmengine logs the errors of all."""
    if is_main_process():
        runner.logger.error(f"hardmine: {message}")


def log_round(runner: Runner, done: Round) -> None:
    """Tell the log and the visualizer what a round did."""
    draws = done.draws
    assert draws is not None
    scalars = {
        "hardmine/weak_classes": float(len(done.weak)),
        "hardmine/moved_share": draws.moved_share,
        "hardmine/effective_size": draws.effective_size,
        "hardmine/seconds": done.seconds,
    }
    for name, need in zip(done.class_names, done.need, strict=True):
        scalars[f"hardmine/need/{name}"] = float(need)
    runner.visualizer.add_scalars(scalars, step=runner.iter)
    runner.logger.info(
        "hardmine round %d: weak %s; %d images raised, %.0f %% of the draws moved, "
        "effective size %.0f of %d, %.1f s",
        done.number,
        ", ".join(done.weak[:5]) or "none",
        draws.num_raised,
        100 * draws.moved_share,
        draws.effective_size,
        draws.num_images,
        done.seconds,
    )
    for note in done.notes:
        warn(runner, note)


class BuildProgress:
    """Tells the log every tenth of an index build."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._told = -1

    def __call__(self, progress: Any) -> None:
        """Called as the build goes on."""
        tenth = 10 * progress.done // max(progress.total, 1)
        if tenth != self._told and is_main_process():
            self._told = tenth
            self._logger.info(
                "hardmine: indexed %d of %d images, %.1f images/s",
                progress.done,
                progress.total,
                progress.rate,
            )
