"""Saved states: what is checked of one before anything is taken from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from hardmine.errors import InputError


def check_complete(state: Mapping[str, Any], wanted: Collection[str], what: str) -> None:
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
