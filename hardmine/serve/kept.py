"""What a person keeps: contexts for the miner, and slices to measure again; as YAML files."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import yaml

from hardmine.config import read_config
from hardmine.errors import InputError
from hardmine.kept import CONTEXTS_FILE, read_kept_contexts
from hardmine.mining.conditions import AUTO
from hardmine.serve.questions import Question

_HEADER = "# Written by hardmine serve. Read it with hardmine.load_config.\n"
_MAX_KEPT = 200


class Slice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question to ask again."""

    texts: tuple[str, ...]
    without: tuple[str, ...] = ()
    match: str = "any"


class KeptQuestions:
    """Contexts and slices in a folder; every change is on disk when a method returns.

    Args:
        folder: Made when something is first kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    @property
    def contexts_file(self) -> Path:
        """A config of which ``miner.contexts`` is set."""
        return self.folder / CONTEXTS_FILE

    @property
    def slices_file(self) -> Path:
        """A list of questions."""
        return self.folder / "slices.yaml"

    def contexts(self) -> tuple[str, ...]:
        """The contexts kept so far."""
        return read_kept_contexts(self.contexts_file)

    def slices(self) -> tuple[Slice, ...]:
        """The slices kept so far."""
        if not self.slices_file.exists():
            return ()
        try:
            return tuple(msgspec.yaml.decode(self.slices_file.read_bytes(), type=tuple[Slice, ...]))
        except (OSError, msgspec.MsgspecError, yaml.YAMLError) as error:
            raise InputError(f"{self.slices_file}: cannot be read: {error}") from error

    def add_contexts(self, question: Question) -> tuple[str, ...]:
        """Add each text of a question to the contexts; the config's other settings stay."""
        _require_texts(question)
        if question.without:
            raise InputError(
                "a context cannot leave anything out: the miner searches for its text alone; ask "
                "without NOT"
            )
        words = _words(question.texts)
        if AUTO in words:
            raise InputError(f"{AUTO!r} has the miner find contexts; write one, such as 'at night'")
        with self._lock:
            return self._write_contexts((*self.contexts(), *words))

    def remove_context(self, text: str) -> tuple[str, ...]:
        """Take a context out."""
        with self._lock:
            return self._write_contexts(tuple(one for one in self.contexts() if one != text))

    def add_slice(self, question: Question) -> tuple[Slice, ...]:
        """Add a question to the slices."""
        _require_texts(question)
        new = Slice(_words(question.texts), _words(question.without), question.match)
        with self._lock:
            return self._write_slices((*self.slices(), new))

    def remove_slice(self, number: int) -> tuple[Slice, ...]:
        """Take the slice at a position out."""
        with self._lock:
            slices = self.slices()
            return self._write_slices(slices[:number] + slices[number + 1 :])

    def _write_contexts(self, contexts: tuple[str, ...]) -> tuple[str, ...]:
        contexts = tuple(dict.fromkeys(contexts))
        values: dict[str, Any] = {}
        if self.contexts_file.exists():
            values = yaml.safe_load(self.contexts_file.read_text(encoding="utf-8")) or {}
        values["miner"] = {**(values.get("miner") or {}), "contexts": list(contexts)}
        read_config(values, name=str(self.contexts_file))
        _write(self.contexts_file, values, len(contexts))
        return contexts

    def _write_slices(self, slices: tuple[Slice, ...]) -> tuple[Slice, ...]:
        slices = tuple(dict.fromkeys(slices))
        _write(self.slices_file, msgspec.to_builtins(slices, builtin_types=()), len(slices))
        return slices


def _require_texts(question: Question) -> None:
    if not question.texts or question.regions or question.pictures:
        raise InputError("only a question of texts can be kept, without pictures or regions")


def _words(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text.strip() for text in texts)


def _write(path: Path, values: Any, count: int) -> None:
    if count > _MAX_KEPT:
        raise InputError(f"{path.name} has {_MAX_KEPT} entries; take some out first")
    text = _HEADER if path.name == CONTEXTS_FILE else ""
    text += yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error}; give another folder with --keep"
        ) from error
