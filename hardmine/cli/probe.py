"""Runs one check of this machine in its own process.

``python -m hardmine.cli.probe NAME ARGUMENT ...`` prints a JSON value as its last line. A library
that hangs or crashes on import affects only this process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def modules(*names: str) -> dict[str, str | None]:
    """Import each module or ``module:attribute``; returns the error of each, None if none."""
    return {name: _import_error(name) for name in names}


def _import_error(name: str) -> str | None:
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
    except BaseException as error:
        # A broken library may raise anything on import, SystemExit too.
        text = str(error).strip()
        return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
    if attribute and not hasattr(found, attribute):
        return f"AttributeError: {module} has no {attribute}"
    return None


def machine() -> dict[str, Any]:
    """Threads, half-precision instructions, GPUs, and caches of model weights."""
    import torch

    from hardmine.processor import half_precision_units

    gpus = [
        {
            "name": torch.cuda.get_device_name(row),
            "memory": torch.cuda.get_device_properties(row).total_memory,
            "capability": list(torch.cuda.get_device_capability(row)),
        }
        for row in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    return {
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "half_precision": half_precision_units(),
        "cuda": torch.version.cuda,
        "gpus": gpus,
        "mps": torch.backends.mps.is_available(),
        "caches": _caches(torch.hub.get_dir()),
    }


def tiny() -> dict[str, Any]:
    """Embed a text with the encoder "tiny"; loading it verifies its files."""
    from hardmine import load_encoder

    encoder = load_encoder("tiny", device="cpu")
    length = float(encoder.encode_texts(["a dog"]).norm())
    if abs(length - 1) > 1e-3:
        raise ValueError(f"a text vector has length {length}, expected 1; install hardmine again")
    return {"fingerprint": encoder.fingerprint}


def _caches(torch_hub: str) -> list[dict[str, Any]]:
    import huggingface_hub.constants

    folders = {
        "huggingface": Path(huggingface_hub.constants.HF_HUB_CACHE),
        "open_clip": Path("~/.cache/clip").expanduser(),
        "torch": Path(torch_hub),
    }
    return [
        {"name": name, "path": str(path), "exists": path.is_dir(), "bytes": _folder_size(path)}
        for name, path in folders.items()
    ]


def _folder_size(folder: Path) -> int:
    size = 0
    for base, _, names in os.walk(folder):  # skip links: the hub's cache links to its blobs
        for name in names:
            path = Path(base) / name
            if not path.is_symlink():
                size += path.stat().st_size
    return size


def network() -> dict[str, Any]:
    """Whether the model hub answers, tested in the same way as before a download."""
    import huggingface_hub.constants

    from hardmine.encoders.hub import unreachable

    reason = unreachable()
    return {
        "host": huggingface_hub.constants.ENDPOINT,
        "reachable": not reason,
        "reason": reason or None,
    }


PROBES: dict[str, Callable[..., Any]] = {
    probe.__name__: probe for probe in (modules, machine, tiny, network)
}

if __name__ == "__main__":
    print(f"\n{json.dumps(PROBES[sys.argv[1]](*sys.argv[2:]))}")
