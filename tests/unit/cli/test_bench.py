"""The benchmark's processes."""

from __future__ import annotations

import subprocess
import sys

WORKER = """
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from hardmine.cli.bench import end_with_parent


def work():
    print("working", flush=True)
    time.sleep(120)


if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) as pool:
        pool.submit(work).result()
"""


def test_workers_end_where_the_command_is_killed(tmp_path) -> None:
    script = tmp_path / "command.py"
    script.write_text(WORKER)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "working\n"
        run.kill()
        # The worker holds the other end of this pipe until it ends.
        assert run.communicate(timeout=60)[0] == ""
