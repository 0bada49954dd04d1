"""A replacement for mmcv's compiled extension, with torchvision's operators.

``mmcv-lite`` lacks ``mmcv._ext``. The detectors in the tests need two of its operators, NMS and
RoI align, which torchvision has too. Call ``install()`` before anything imports ``mmcv.ops``. It
does nothing if mmcv was built with its operators.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import torch
import torchvision


def install() -> None:
    """Register the replacement as ``mmcv._ext``."""
    if "mmcv._ext" in sys.modules or importlib.util.find_spec("mmcv._ext") is not None:
        return
    extension = _Extension("mmcv._ext")
    # mmengine looks for the spec to find out whether mmcv has operators.
    extension.__spec__ = ModuleSpec("mmcv._ext", None)
    sys.modules["mmcv._ext"] = extension


class _Extension(ModuleType):
    """Has every operator by name; those that are not implemented raise when called."""

    def nms(self, bboxes: Any, scores: Any, iou_threshold: float, offset: int) -> Any:
        if offset != 0:
            raise NotImplementedError("torchvision's nms has no offset")
        return torchvision.ops.nms(bboxes, scores, iou_threshold)

    def roi_align_forward(
        self,
        input: Any,
        rois: Any,
        output: Any,
        argmax_y: Any,
        argmax_x: Any,
        *,
        aligned_height: int,
        aligned_width: int,
        spatial_scale: float,
        sampling_ratio: int,
        pool_mode: int,
        aligned: bool,
    ) -> None:
        if pool_mode != 1:
            raise NotImplementedError("torchvision's RoI align has no maximum pooling")
        size = (aligned_height, aligned_width)
        output.copy_(
            torchvision.ops.roi_align(input, rois, size, spatial_scale, sampling_ratio, aligned)
        )

    def roi_align_backward(
        self,
        grad_output: Any,
        rois: Any,
        argmax_y: Any,
        argmax_x: Any,
        grad_input: Any,
        *,
        aligned_height: int,
        aligned_width: int,
        spatial_scale: float,
        sampling_ratio: int,
        pool_mode: int,
        aligned: bool,
    ) -> None:
        grad_input.copy_(
            torch.ops.torchvision._roi_align_backward(
                grad_output,
                rois,
                spatial_scale,
                aligned_height,
                aligned_width,
                *grad_input.shape,
                sampling_ratio,
                aligned,
            )
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> NoReturn:
            raise NotImplementedError(f"mmcv's operator {name} has no replacement here")

        return missing
