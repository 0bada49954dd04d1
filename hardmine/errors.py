"""Errors that hardmine raises on purpose; each says what, expected, got and what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


class HardmineError(Exception):
    """Base of every error that hardmine raises on purpose."""


class InputError(HardmineError, ValueError):
    """A value or a file that was handed in cannot be used as it is."""


class IndexMismatch(HardmineError):
    """An index does not fit what it is used with: another encoder, clustering or data set."""


class IndexDamaged(HardmineError):
    """A file of an index is missing, cut short, altered or hostile."""


class WeightsUnavailable(HardmineError):
    """Model weights are not on this machine and cannot be fetched."""


class Unreachable(HardmineError):
    """Files that are not on this machine cannot be reached: network, rights, or an absent bucket.

    It says nothing about the files: an image behind it is not broken, and trying again may help.
    """


class MissingExtra(HardmineError, ImportError):
    """An optional library is needed and not installed.

    Args:
        extra: Name of the extra in hardmine's pyproject, e.g. ``"faiss"``.
        purpose: What needs it, e.g. ``"the faiss index"``.
    """

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs an optional library; install it with: pip install 'hardmine[{extra}]'"
        )
        self.extra = extra


def require_keys(state: Mapping[str, Any], wanted: Collection[str], what: str) -> None:
    """Refuse a state that lacks something.

    Args:
        state: As it was loaded.
        wanted: Keys that it must have.
        what: The state is of, for the message, e.g. "sampler".
    """
    missing = sorted(set(wanted) - set(state))
    if missing:
        raise InputError(
            f"the saved {what} lacks {', '.join(missing)}: it was saved by another version of "
            f"hardmine, or is not the state of a {what}; resume with the version that saved it, "
            f"or go on with a fresh {what}, without loading"
        )
