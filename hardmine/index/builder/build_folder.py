"""The subfolder in which an unfinished build keeps its plan, finished shards and partial files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from hardmine.addresses import require_local
from hardmine.index.builder import worker_folder
from hardmine.index.builder.plan import COMPACTING, FinishedShard, Plan
from hardmine.index.storage.files import (
    explain_os_errors,
    read_regular,
    sync_folder,
    write_durably,
)
from hardmine.index.storage.manifest import BUILD_FOLDER

_PLAN = "plan.json"
_MAX_BYTES = 256 << 20


class BuildFolder:
    """Remembers how far a build has come, so that the next run can continue it.

    Args:
        folder: The index. The build folder is ``folder/.build``.
    """

    def __init__(self, folder: Path) -> None:
        require_local(folder, "an index that is built or updated")
        self.folder = folder
        self.path = folder / BUILD_FOLDER

    def plan(self) -> Plan | None:
        """The plan of an unfinished build; None if there is none, or it cannot be read."""
        try:
            return msgspec.json.decode(read_regular(self.path / _PLAN, _MAX_BYTES), type=Plan)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def begin(self, plan: Plan) -> None:
        """Start a new plan and forget any other."""
        self.clear()
        with explain_os_errors(f"write {self.path}"):
            for path in (self.folder / "shards", self.path):
                path.mkdir(exist_ok=True)
            sync_folder(self.folder)
        self._write(plan)

    def replace_plan(self, plan: Plan) -> None:
        """Go on with another plan, which adopts the finished shards."""
        self.resume()
        self._write(plan)

    def resume(self) -> None:
        """Remove the partial files of the build to continue, but none that may be in use."""
        for path in self.path.glob("*.part"):
            path.unlink(missing_ok=True)
        worker_folder.remove_abandoned(self.path)

    def clear(self) -> None:
        """Remove the build folder."""
        with explain_os_errors(f"clear {self.path}"):
            if self.path.exists():
                # The plan goes last: as long as it exists, the other files belong to it.
                for path in self.path.iterdir():
                    if path.is_dir():
                        worker_folder.remove(path)
                    elif path.name != _PLAN:
                        path.unlink()
                shutil.rmtree(self.path)

    def accept(self, finished: FinishedShard, source: Path) -> None:
        """Move a shard from a worker's folder into the index, and note that it is finished.

        If two workers have made it, because one was believed dead, the first is kept: the files
        of a shard that is noted are never replaced.
        """
        if self._finished(finished.shard.number) is not None:
            return
        with explain_os_errors(f"write to {self.folder / 'shards'}"):
            for record in (finished.shard.vectors, finished.shard.layout):
                os.replace(source / record.name, self.folder / record.name)  # noqa: PTH105
            sync_folder(self.folder / "shards")
        name = f"{BUILD_FOLDER}/{finished.shard.number:05d}.json"
        write_durably(self.folder, name, [msgspec.json.encode(finished)], scratch=source)

    def pending(self, plan: Plan) -> list[int]:
        """Numbers of the shards that are not finished."""
        return [number for number in plan.numbers if self._finished(number) is None]

    def finished_shards(self, plan: Plan) -> list[FinishedShard]:
        """All shards of a plan in order; every one must be finished."""
        shards = {number: self._finished(number) for number in plan.numbers}
        missing = [number for number, finished in shards.items() if finished is None]
        assert not missing, f"shards {missing} are not finished"
        return [finished for finished in shards.values() if finished is not None]

    def finished(self, numbers: range) -> list[FinishedShard]:
        """Finished shards with numbers in a range, in ascending order."""
        present = {int(path.stem) for path in self.path.glob("*.json") if path.stem.isdecimal()}
        shards = [self._finished(number) for number in sorted(present) if number in numbers]
        return [finished for finished in shards if finished is not None]

    def unfinished_update(self, generation: int) -> int:
        """Images in finished shards of an unfinished update of an index of some generation."""
        plan = self.plan()
        if plan is None or plan.base != generation or plan.images == COMPACTING:
            return 0
        return sum(len(one.facts) for one in self.finished(range(plan.numbers.stop)))

    def _write(self, plan: Plan) -> None:
        name = f"{BUILD_FOLDER}/{_PLAN}"
        write_durably(self.folder, name, [msgspec.json.encode(plan)], scratch=self.path)

    def _finished(self, number: int) -> FinishedShard | None:
        """A finished shard by its number; None if it is not finished."""
        try:
            content = read_regular(self.path / f"{number:05d}.json", _MAX_BYTES)
            finished = msgspec.json.decode(content, type=FinishedShard)
            whole = all(
                (self.folder / record.name).stat().st_size == record.bytes
                for record in (finished.shard.vectors, finished.shard.layout)
            )
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return finished if whole else None
