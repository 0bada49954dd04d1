"""What this machine's CPU and this build of torch have for matrix products."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import torch

from hardmine.errors import InputError

# Instruction sets of x86 and ARM that multiply 16-bit floats, as the operating system names them.
_UNITS = ("amx_fp16", "amx_bf16", "avx512_fp16", "avx512_bf16", "avx_ne_convert", "asimdhp", "bf16")


def require_device(device: str | torch.device) -> torch.device:
    """Turn a name into a device that this machine has."""
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f'device must be like "cpu" or "cuda:0", got {device!r}') from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if chosen.type == "cuda" and (chosen.index or 0) >= count:
        raise InputError(
            f"device {device!r} is not here: torch {torch.__version__} finds {count} GPUs; "
            "leave device out to use what there is"
        )
    return chosen


@functools.cache
def half_precision_units() -> tuple[str, ...] | None:
    """Instruction sets that multiply in 16 bits; None if the system does not list them."""
    if platform.system() == "Darwin":
        return ("asimdhp",) if platform.machine() == "arm64" else ()
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    lines = (line for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    flags = set(next(lines, "").partition(":")[2].split())
    return tuple(name for name in _UNITS if name in flags)


@functools.cache
def has_onednn() -> bool:
    """Whether torch was built with oneDNN and offers its linear layer as an operator.

    oneDNN fills the vector registers of every x86 CPU; MKL and OpenBLAS fill half of AMD's where
    they are 512 bits wide.
    """
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@functools.cache
def mkl_is_faster() -> bool:
    """Whether MKL multiplies float32 faster than oneDNN: on x86 CPUs with AVX2, without AVX-512.

    On one such core of AMD's it took four fifths of the time.
    """
    built = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return built and torch.backends.cpu.get_cpu_capability() == "AVX2"


@functools.cache
def multiplies_bytes() -> bool:
    """Whether this CPU has int8 dot products (VNNI, AMX) that oneDNN uses."""
    probe = getattr(torch.cpu, "_is_vnni_supported", None)
    return has_onednn() and bool(probe and probe())
