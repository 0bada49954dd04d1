"""The record of mining: rounds on disk, replaying them, and explaining an image's weight."""

from hardmine.history.rounds import Round, read_rounds

__all__ = ["Round", "read_rounds"]
