"""Messages of the hook in mmengine's log and visualizer."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from hardmine.history import Round


def log_warning(runner: Runner, message: str) -> None:
    """Log a warning, once a run."""
    # mmengine drops a warning whose text, before its arguments, it has seen: so pass none.
    runner.logger.warning(f"hardmine: {message}")


def log_error(runner: Runner, message: str) -> None:
    """Log an error on rank 0, each time; mmengine itself logs the errors of all ranks."""
    if is_main_process():
        runner.logger.error(f"hardmine: {message}")


def log_round(runner: Runner, done: Round) -> None:
    """Log what a round did, and add its scalars to the visualizer."""
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
        log_warning(runner, note)


class BuildProgress:
    """Logs every tenth of an index build; pass it to ``build_index``."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._logged_tenth = -1

    def __call__(self, progress: Any) -> None:
        """Log if another tenth of the images is done."""
        tenth = 10 * progress.done // max(progress.total, 1)
        if tenth != self._logged_tenth and is_main_process():
            self._logged_tenth = tenth
            self._logger.info(
                "hardmine: indexed %d of %d images, %.1f images/s",
                progress.done,
                progress.total,
                progress.rate,
            )
