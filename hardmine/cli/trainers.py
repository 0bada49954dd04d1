"""Which trainers are installed, and whether hardmine supports their versions."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any

from packaging.requirements import Requirement

from hardmine.cli.checks import declared_requirements


@dataclass(frozen=True)
class Trainer:
    """A trainer that hardmine has a package for.

    Attributes:
        name: As its users call it.
        integration: The package of hardmine.
        distributions: Names under which it is installed; any will do.
        extra: The extra that says which versions are supported; empty where it is not on PyPI.
    """

    name: str
    integration: str
    distributions: tuple[str, ...]
    extra: str


TRAINERS = (
    Trainer("MMDetection", "hardmine_mmdet", ("mmdet",), "mmdet"),
    Trainer("Lightning", "hardmine_lightning", ("lightning", "pytorch-lightning"), "lightning"),
    Trainer("HF Trainer", "hardmine_transformers", ("transformers",), "transformers"),
    Trainer("Ultralytics", "hardmine_ultralytics", ("ultralytics",), "ultralytics"),
    Trainer("detectron2", "hardmine_detectron2", ("detectron2",), ""),
)


def find_trainers() -> list[dict[str, Any]]:
    """Name, package, version, supported versions, and whether this one is; None if not installed.

    All versions of a trainer that is not on PyPI count as supported.
    """
    _, extras = declared_requirements()
    return [_find(trainer, extras.get(trainer.extra, [])) for trainer in TRAINERS]


def lines(found: list[dict[str, Any]]) -> list[str]:
    """What ``hardmine doctor`` prints of them."""
    state = {True: "supported", False: "not supported", None: "not installed"}
    printed = ["trainers"]
    for each in found:
        what = ""
        if each["version"] is not None:
            what = f"{each['package']} {each['version']}, by {each['integration']}"
        printed.append(f"  {each['name']:<13}{state[each['supported']]:<15}{what}".rstrip())
        if each["supported"] is False:
            printed.append(f"{'':15}{each['install']}")
    return printed


def _find(trainer: Trainer, requirements: list[str]) -> dict[str, Any]:
    version, package = None, trainer.distributions[0]
    for name in trainer.distributions:
        try:
            version, package = importlib.metadata.version(name), name
            break
        except importlib.metadata.PackageNotFoundError:
            continue
    ranges = {one.name: str(one.specifier) for one in map(Requirement, requirements)}
    wanted = ranges.get(trainer.distributions[0], "")
    supported = None
    if version is not None:
        supported = Requirement(f"{package}{wanted}").specifier.contains(version, prereleases=True)
    return {
        "name": trainer.name,
        "integration": trainer.integration,
        "package": package,
        "version": version,
        "versions": wanted,
        "supported": supported,
        "install": f"pip install '{package}{wanted}'",
    }
