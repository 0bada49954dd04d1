"""The command ``hardmine``: runs a subcommand, turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Collection, Iterable, Sequence

from hardmine._version import __version__
from hardmine.errors import HardmineError

# Command -> help text. Each command is a module of hardmine.cli with add_arguments(parser) and
# run(args). Only the module of the given command is imported, so that --help is fast.
COMMANDS = {
    "demo": "run the whole method on generated scenes, offline",
    "doctor": "show versions, device, which extras work and how to install the others",
    "scenes": "write a data set of generated, labelled scenes",
    "index": "build, update, check and describe an index",
    "search": "find images by text or by image",
    "regions": "draw an image with its regions and their similarity to a text",
    "eval": "measure retrieval quality: mAP by class name, the paper's protocol and table",
    "report": "show where the detector is weak, why, and which images mining would draw",
    "bench": "train small detectors with mining and with label-only baselines, and compare",
    "serve": "open pages in the browser to ask, look and check",
    "collect": "choose which images of an unlabelled pool to label next",
    "rounds": "show the history of a mining run as a table and a page",
    "complete": "print the script that completes commands and options in a shell",
    "cite": "print BibTeX entries of the papers that hardmine builds on",
}

# Arguments of load_images that messages name, and their options.
_OPTION_OF = {
    "source": "--images",
    "annotations": "--ann",
    "split": "--split",
    "format": "--format",
}
_ARGUMENT = re.compile(rf"(?<= )({'|'.join(_OPTION_OF)})=(?=(')|[,;.\s]|$)")
_PYTHON_ONLY = re.compile(r" \(check_files=[^()]*\)")

# These wait for people, who need not be told every ten seconds.
_WAITING = {"serve"}


def make_parser(
    names: Collection[str] = tuple(COMMANDS),
) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Make the parser of ``hardmine``, and those of its commands by name.

    Args:
        names: Commands whose arguments are declared, which imports their modules.
    """
    parser = argparse.ArgumentParser(
        prog="hardmine",
        description="Hard example mining for object detectors.",
        epilog="hardmine COMMAND --help describes a command.",
    )
    parser.add_argument("--version", action="version", version=f"hardmine {__version__}")
    group = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands = {}
    for name, purpose in COMMANDS.items():
        commands[name] = group.add_parser(name, help=purpose, description=purpose)
        if name in names:
            importlib.import_module(f"hardmine.cli.{name}").add_arguments(commands[name])
    return parser, commands


def actions_of(command: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Parsers of a command's actions, such as ``hardmine index build``, by name."""
    for argument in command._actions:
        if isinstance(argument.choices, dict):
            return argument.choices
    return {}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns 0 for success, 1 for a negative result, 2 for a user error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Threads that wait for work sleep instead of spinning, which on a busy machine costs others
    # and the command itself most of the time. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    parser, commands = make_parser([] if chosen is None else [chosen])
    if chosen is not None and chosen not in commands:
        parser.error(f"unknown command {chosen!r}{_nearest(chosen, commands)}")
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        command = commands[args.command]
        hint = _nearest(unknown[0].partition("=")[0], _options(command))
        command.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return _run(args, commands[args.command])


def _run(args: argparse.Namespace, command: argparse.ArgumentParser) -> int:
    from hardmine.cli.progress import heartbeat

    module = importlib.import_module(f"hardmine.cli.{args.command}")
    try:
        if os.environ.get("RANK", "0") != "0" or args.command in _WAITING:
            return int(module.run(args) or 0)
        with heartbeat(f"hardmine {args.command}"):
            return int(module.run(args) or 0)
    except HardmineError as error:
        message = in_options(str(error), _options(command))
        print(f"hardmine {args.command}: {message}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of the pipe (head, less) has exited.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print(f"hardmine {args.command}: interrupted", file=sys.stderr)
        return 130


def in_options(message: str, options: Collection[str]) -> str:
    """Name the options of the command line in a message, in place of arguments of Python.

    >>> in_options("found 2; pass split=, or annotations='val.json'", ["--split", "--ann"])
    "found 2; pass --split, or --ann='val.json'"
    """

    def option(found: re.Match[str]) -> str:
        name = _OPTION_OF[found[1]]
        return f"{name}{'=' if found[2] else ''}" if name in options else found[0]

    return _ARGUMENT.sub(option, _PYTHON_ONLY.sub("", message))


def _options(command: argparse.ArgumentParser) -> list[str]:
    """Options of a command and of its actions."""
    parsers = [command, *actions_of(command).values()]
    return [option for parser in parsers for option in parser._option_string_actions]


def _nearest(word: str, known: Iterable[str]) -> str:
    """End of an error message: the known name most like ``word``."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


if __name__ == "__main__":
    sys.exit(main())
