"""``hardmine complete``: the script that completes commands and options in a shell."""

from __future__ import annotations

import argparse
import importlib.util

from hardmine.errors import MissingExtra


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="the shell to complete in")


def run(args: argparse.Namespace) -> int:
    """Print the script; it knows the commands by itself and does not call hardmine."""
    if importlib.util.find_spec("shtab") is None:
        raise MissingExtra("completion", "hardmine complete")
    import shtab

    from hardmine.cli.main import make_parser

    parser, _ = make_parser()
    print(shtab.complete(parser, args.shell))
    return 0
