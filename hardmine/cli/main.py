"""The command ``hardmine``: runs a subcommand, turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

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
    "rounds": "show the history of a mining run as a table and a page",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns 0 for success, 1 for a negative result, 2 for a user error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="hardmine",
        description="Hard example mining for object detectors.",
        epilog="hardmine COMMAND --help describes a command.",
    )
    parser.add_argument("--version", action="version", version=f"hardmine {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    modules = {}
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        if name == chosen:
            modules[name] = importlib.import_module(f"hardmine.cli.{name}")
            modules[name].add_arguments(command)
    args = parser.parse_args(arguments)
    try:
        return int(modules[args.command].run(args) or 0)
    except HardmineError as error:
        print(f"hardmine {args.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of the pipe (head, less) has exited.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print(f"hardmine {args.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
