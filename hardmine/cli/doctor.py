"""``hardmine doctor``: shows versions, device, trainers, extras and how to install the others."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from hardmine.cli import trainers
from hardmine.cli.checks import examine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the results of all checks; returns 0 if the base install works, else 1."""
    if sys.stderr.isatty():
        print(
            "checking this machine; importing large libraries takes some seconds ...",
            file=sys.stderr,
        )
    found = examine() | {"trainers": trainers.find_trainers()}
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(_lines(found)))
    return 0 if found["works"] else 1


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [
        f"hardmine {found['hardmine']}, Python {found['python']}, {found['platform']}",
        "",
        f"base      {'works' if found['works'] else 'does not work'}",
        *_package_lines(found["packages"]),
        *_tiny_lines(found["tiny"]),
        "",
        f"device    {_device(found['machine'])}",
        "",
        *trainers.lines(found["trainers"]),
        "",
        "extras",
    ]
    for name, extra in found["extras"].items():
        missing = all(each["version"] is None for each in extra["packages"])
        state = "works" if extra["works"] else "not installed" if missing else "does not work"
        versions = ", ".join(
            f"{each['name']} {each['version']}" for each in extra["packages"] if each["version"]
        )
        lines.append(f"  {name:<13}{state:<15}{versions}".rstrip())
        for each in extra["packages"]:
            if each["error"]:
                lines.append(f"{'':15}{each['error']}")
        lines += dict.fromkeys(
            f"{'':15}{each['install']}" for each in extra["packages"] if not each["works"]
        )
    return [*lines, "", *_cache_lines(found["machine"]), f"network   {_network(found['network'])}"]


def _package_lines(packages: Sequence[dict[str, Any]]) -> list[str]:
    if not packages:
        return [f"{'':10}imported from a folder, not installed: pip install --editable ."]
    works = [f"{each['name']} {each['version']}" for each in packages if each["works"]]
    lines = [f"{'':10}{', '.join(works[row : row + 4])}" for row in range(0, len(works), 4)]
    for each in packages:
        if not each["works"]:
            lines.append(f"{'':10}{each['name']}: {each['error'] or 'not installed'}")
            lines.append(f"{'':13}{each['install']}")
    return lines


def _tiny_lines(tiny: dict[str, Any]) -> list[str]:
    if "error" in tiny:
        return [f"{'':10}tiny encoder: {tiny['error']}"]
    return [f"{'':10}tiny encoder: works, files verified"]


def _device(machine: dict[str, Any]) -> str:
    if "error" in machine:
        return str(machine["error"])
    units = machine["half_precision"]
    half = "unknown" if units is None else ", ".join(units) or "none"
    cuda = machine["cuda"]
    lines = [
        f"CPU, {machine['threads']} threads on {machine['cores']} cores, "
        f"{machine['instructions']}, half precision: {half}"
    ]
    for gpu in machine["gpus"]:
        lines.append(f"{gpu['name']}, {gpu['memory'] / 2**30:.0f} GiB, CUDA {cuda}")
    if machine["mps"]:
        lines.append("Apple GPU (mps)")
    elif not machine["gpus"]:
        lines.append(f"no GPU (torch was built for CUDA {cuda})" if cuda else "no GPU")
    return f"\n{'':10}".join(lines)


def _cache_lines(machine: dict[str, Any]) -> list[str]:
    return [
        f"{'' if row else 'cache':10}{each['path']}  "
        + (f"{each['bytes'] / 1e6:,.0f} MB" if each["exists"] else "does not exist yet")
        for row, each in enumerate(machine.get("caches", ()))
    ]


def _network(network: dict[str, Any]) -> str:
    if network.get("reachable"):
        return f"{network['host']} answers"
    reason = network.get("error") or network.get("reason")
    return f"{reason}\n{'':10}pretrained models need it once; the tiny encoder does not need it"
