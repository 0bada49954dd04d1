"""``hardmine``: finds the command, imports it alone, turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from hardmine._version import __version__
from hardmine.errors import HardmineError

# name: what it is for. Each is a module of hardmine.cli with add_arguments(parser) and run(args),
# imported only when asked for, so that --help costs nothing.
COMMANDS = {
    "demo": "the whole flow on generated scenes, offline",
    "doctor": "versions, device, which extras work and how to get the others",
    "scenes": "write a data set of generated, labelled scenes",
    "index": "build, update, check and describe an index",
    "search": "find images by text or by image",
    "regions": "draw an image with its regions and their similarity to a text",
    "eval": "retrieval quality: mAP by class name, the paper's protocol and table",
    "report": "class gaps: where the detector is weak, why, what mining would draw",
    "bench": "does mining help: trains small detectors, against sampling by labels alone",
    "rounds": "the history of a mining run as a table and a page",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 is success, 1 a negative answer, 2 an error the user can mend."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="hardmine",
        description="Hard example mining for object detectors.",
        epilog="hardmine COMMAND --help tells more of each.",
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
        # The reader (head, less) has seen enough.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print(f"hardmine {args.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
