"""Checks this machine: packages, extras, device, encoder, cache and network."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hardmine._version import __version__

# Modules to import, for distributions with another name than their module.
_MODULES: dict[str, tuple[str, ...]] = {
    "open-clip-torch": ("open_clip",),
    "pillow": ("PIL",),
    "pyyaml": ("yaml",),
    "faiss-cpu": ("faiss",),
    "faiss-gpu-cu12": ("faiss:StandardGpuResources",),
    "mmdet": ("mmcv.ops", "mmdet"),
    "torchdata": ("torchdata.stateful_dataloader",),
}
# mmcv has wheels for few versions of torch; this builds it for the installed one.
_INSTALL_COMMANDS = {
    "mmcv.ops": "pip install 'setuptools<81' ninja && "
    "MMCV_WITH_OPS=1 pip install --no-build-isolation mmcv==2.1.0"
}
_NOT_EXTRAS = ("dev", "docs")
_TIMEOUT = 300  # seconds for one probe; importing torch can take a minute on a busy machine


def examine() -> dict[str, Any]:
    """Run all checks; the result is what ``hardmine doctor --json`` prints."""
    base, extras = declared_requirements()
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        checked = pool.submit(check_packages, {"": base, **extras})
        others = {name: pool.submit(_probe, name) for name in ("machine", "tiny", "network")}
    packages = checked.result()
    found = {name: probe.result() for name, probe in others.items()}
    base_works = bool(base) and all(each["works"] for each in packages[""])
    return {
        "works": base_works and "error" not in found["tiny"],
        "hardmine": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": packages.pop(""),
        **found,
        "extras": {
            name: {"works": all(each["works"] for each in group), "packages": group}
            for name, group in packages.items()
        },
    }


def declared_requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Requirements of the base install and of each extra, from the installed package's metadata."""
    try:
        declared = importlib.metadata.requires("hardmine") or []
    except importlib.metadata.PackageNotFoundError:
        declared = []  # imported from a folder, not installed
    base = [text for text in declared if "extra ==" not in text]
    extras: dict[str, list[str]] = {}
    for text in declared:
        requirement, _, marker = text.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)", marker)
        if extra and extra[1] not in _NOT_EXTRAS:
            extras.setdefault(extra[1], []).append(requirement.strip())
    return base, extras


def check_packages(groups: Mapping[str, Sequence[str]]) -> dict[str, list[dict[str, Any]]]:
    """Version of each required package, whether it imports, and how to install it if not.

    Args:
        groups: Requirements by the extra that needs them; those of the base install under "".
    """
    found = {extra: [_installed(each) for each in groups[extra]] for extra in groups}
    every = [package for group in found.values() for package in group]
    errors = _import_errors(list(dict.fromkeys(m for each in every for m in each["modules"])))
    for extra, group in found.items():
        for package in group:
            broken = [module for module in package.pop("modules") if errors[module]]
            package["works"] = package["version"] is not None and not broken
            package["error"] = errors[broken[0]] if broken else None
            if not package["works"]:
                what = (
                    f"'hardmine[{extra}]'"
                    if extra
                    else f"--force-reinstall '{package['requirement']}'"
                )
                package["install"] = _INSTALL_COMMANDS.get(
                    broken[0] if broken else "", f"pip install {what}"
                )
    return found


def _installed(requirement: str) -> dict[str, Any]:
    """Name and version of a required package, and the modules to import where it is installed."""
    name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    key = name.lower().replace("_", "-")
    modules = _MODULES.get(key, (key.replace("-", "_"),)) if version is not None else ()
    return {"name": name, "requirement": requirement, "version": version, "modules": modules}


def _import_errors(modules: Sequence[str]) -> dict[str, str | None]:
    """The error of importing each module; None if there is none.

    One process imports all of them, because most import torch again, which takes seconds. What
    fails there may work without the others, and is imported again in a process of its own.
    """
    errors = _probe("modules", *modules) if modules else {}
    if "error" in errors:  # one of them crashed the process
        errors = dict.fromkeys(modules, errors["error"])
    if len(modules) > 1:
        for module in [name for name in modules if errors[name]]:
            errors |= _import_errors([module])
    return dict(errors)


def _probe(*arguments: str) -> Any:
    """Run a probe and return its result; ``{"error": ...}`` if it failed or crashed."""
    command = [sys.executable, "-W", "ignore", "-m", "hardmine.cli.probe", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {_TIMEOUT} s"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode < 0:
        return {"error": f"crashes the interpreter ({signal.Signals(-done.returncode).name})"}
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return {"error": last or f"the process ended with status {done.returncode}"}
