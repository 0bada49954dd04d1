"""A device beside the CPU that counts what a GPU would wait for; it computes on the CPU.

Tensors on it are wrappers: as on a GPU, NumPy cannot see them, and an operation on tensors of both
devices fails. Every operation passes through ``FakeDevice``, which counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

# The name of a device that torch knows, and for which it loads nothing.
NAME = "lazy"
_COMPOSITE = "CompositeImplicitAutograd"
_aten = torch.ops.aten
# The result's size, or the result itself, must be known to the host.
_HOST_READS = {
    _aten._local_scalar_dense,
    _aten.bincount,
    _aten.equal,
    _aten.is_nonzero,
    _aten.masked_select,
    _aten.nonzero,
    _aten._unique2,
    _aten.unique_dim,
    _aten.unique_consecutive,
}
_COPIES = {_aten._to_copy, _aten.copy_}
_PRODUCTS = {_aten.mm, _aten.bmm}
_BY_INDEX = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}


class _OnDevice(torch.Tensor):
    """A tensor of the device; ``held`` is its values."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> _OnDevice:
        made: _OnDevice = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=NAME,
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on the fake device, outside of its context")


class FakeDevice(TorchDispatchMode):
    """A context in which the device can be used.

    Attributes:
        device: What to pass as ``device``.
        waits: Operations for which the host waits: it needs a value, or the size of a result, or
            copies without ``non_blocking``.
        uploads: Tensors copied to the device.
        downloads: Tensors copied to the CPU.
        launches: Other operations that compute or move something.

    Args:
        product: Called with the factors and the result of each matrix product; may change it.
    """

    device = torch.device(NAME)

    def __init__(
        self, product: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Any] | None = None
    ) -> None:
        super().__init__()
        if not hasattr(torch._C, "_only_lift_cpu_tensors"):
            pytest.skip(f"torch {torch.__version__} cannot fill tensors of a device made in Python")
        self._product = product
        self.reset()

    def __enter__(self) -> FakeDevice:
        # torch.tensor and new_tensor fill a tensor of the CPU, which is then copied.
        self._before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(self._before)

    def reset(self) -> None:
        """Count from zero."""
        self.uploads = self.downloads = self.launches = 0
        self.waits: list[str] = []
        # What is being copied, and what it held at first.
        self._in_flight: list[tuple[torch.Tensor, torch.Tensor]] = []

    def record(self, device: torch.device) -> FakeDevice:
        """An event after what the device has been given so far."""
        assert device == self.device
        return self

    def synchronize(self) -> None:
        """Finish the copies, of which nobody may have changed the memory in the meantime."""
        for source, before in self._in_flight:
            assert torch.equal(source, before), "memory was overwritten while it was copied"
        self._in_flight.clear()

    @torch.inference_mode(False)  # a wrapper cannot be an inference tensor
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors: list[torch.Tensor] = []
        _map(tensors.append, (args, kwargs))
        on_device = [x for x in tensors if isinstance(x, _OnDevice)]
        kind, target = func.overloadpacket, kwargs.get("device")
        if not on_device and (target is None or target.type != NAME):
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):
            with self:
                whole = func.decompose(*args, **kwargs)
            if whole is not NotImplemented:
                return whole
        if kind is _aten.copy_:
            target = args[0].device
        down = kind in _COPIES and target is not None and target.type == "cpu"
        self._count(func, tensors, on_device, down, args, kwargs)
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        args, kwargs = _map(_held, (args, kwargs))
        result = func(*args, **kwargs)
        if self._product is not None and kind in _PRODUCTS:
            self._product(*args[:2], result)
        if down:
            return result
        # What an operation changes in place, or is told to write to, it returns.
        given = {id(x.held): x for x in on_device}
        return _map(lambda x: given.get(id(x), _wrap(x)), result)

    def _count(
        self,
        func: Any,
        tensors: list[torch.Tensor],
        on_device: list[_OnDevice],
        down: bool,
        args: Any,
        kwargs: Any,
    ) -> None:
        kind = func.overloadpacket
        if kind in _COPIES and (down or len(on_device) < len(tensors)):
            self.downloads += down
            self.uploads += not down
            waits = not (
                kwargs.get("non_blocking") or (kind is _aten.copy_ and args[2:] == (True,))
            )
            if not waits:
                self._in_flight += [(x, x.clone()) for x in tensors if x not in on_device]
        elif any(x.ndim for x in tensors if not isinstance(x, _OnDevice)):
            raise RuntimeError(f"{func} of tensors on different devices")
        else:
            self.launches += not func.is_view
            by_mask = kind in _BY_INDEX and any(
                x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
            )
            unknown = kind is _aten.repeat_interleave and kwargs.get("output_size") is None
            waits = kind in _HOST_READS or by_mask or unknown
        if waits:
            self.waits.append(str(func))


def _map(change: Callable[[Any], Any], value: Any) -> Any:
    """Change all tensors of an operation's arguments or results; faster than torch's own."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)([_map(change, x) for x in value])
    if isinstance(value, dict):
        return {key: _map(change, x) for key, x in value.items()}
    return value


def _held(x: torch.Tensor) -> torch.Tensor:
    return x.held if isinstance(x, _OnDevice) else x


def _wrap(x: torch.Tensor) -> torch.Tensor:
    return x if isinstance(x, _OnDevice) else _OnDevice(x)
