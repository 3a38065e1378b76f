# Made by `make stubs` from the schemas of the ops; edit bindings/_C.pyi.in or the schema.
from collections.abc import Sequence
from typing import overload

from opsin._C import (
    Tensor,
    _bool,
    _Float,
    _Int,
    _Ints,
)

__all__ = ["ms_deform_attn", "ps_roi_align", "ps_roi_pool", "roi_align", "roi_pool"]

def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Multi-scale deformable attention: value [N, S, M, D] sampled at [N, Lq, M, L, P, 2] (x, y from 0 to 1) and summed with weights [N, Lq, M, L, P] to [N, Lq, M * D]."""

@overload
def ps_roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: _Int | _Ints,
    spatial_scale: _Float = 1.0,
    sampling_ratio: _Int = -1,
) -> Tensor:
    """The mean of points sampled between pixels in each bin of boxes, each bin from channels of its own."""

@overload
def ps_roi_align(
    input: Tensor,
    boxes: Sequence[Tensor],
    output_size: _Int | _Ints,
    spatial_scale: _Float = 1.0,
    sampling_ratio: _Int = -1,
) -> Tensor:
    """The mean of points sampled between pixels in each bin of boxes, each bin from channels of its own."""

@overload
def ps_roi_pool(
    input: Tensor, boxes: Tensor, output_size: _Int | _Ints, spatial_scale: _Float = 1.0
) -> Tensor:
    """The mean of each bin of boxes that are rounded to pixels, each bin from channels of its own."""

@overload
def ps_roi_pool(
    input: Tensor, boxes: Sequence[Tensor], output_size: _Int | _Ints, spatial_scale: _Float = 1.0
) -> Tensor:
    """The mean of each bin of boxes that are rounded to pixels, each bin from channels of its own."""

@overload
def roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: _Int | _Ints,
    spatial_scale: _Float = 1.0,
    sampling_ratio: _Int = -1,
    aligned: _bool = False,
    *,
    mode: str = "avg",
) -> Tensor:
    """The mean (or with mode='max' the largest) of points sampled between pixels in each bin of boxes [K, 1 + 2 axes] (image, x1, y1, x2, y2); or a list of [L, 2 axes], one for each image. Gradients also for the boxes."""

@overload
def roi_align(
    input: Tensor,
    boxes: Sequence[Tensor],
    output_size: _Int | _Ints,
    spatial_scale: _Float = 1.0,
    sampling_ratio: _Int = -1,
    aligned: _bool = False,
    *,
    mode: str = "avg",
) -> Tensor:
    """The mean (or with mode='max' the largest) of points sampled between pixels in each bin of boxes [K, 1 + 2 axes] (image, x1, y1, x2, y2); or a list of [L, 2 axes], one for each image. Gradients also for the boxes."""

@overload
def roi_pool(input: Tensor, boxes: Tensor, output_size: _Int | _Ints, spatial_scale: _Float = 1.0) -> Tensor:
    """The largest value of each bin of boxes [K, 1 + 2 axes] (image, x1, y1, x2, y2) that are rounded to pixels; or a list of [L, 2 axes], one for each image."""

@overload
def roi_pool(
    input: Tensor, boxes: Sequence[Tensor], output_size: _Int | _Ints, spatial_scale: _Float = 1.0
) -> Tensor:
    """The largest value of each bin of boxes [K, 1 + 2 axes] (image, x1, y1, x2, y2) that are rounded to pixels; or a list of [L, 2 axes], one for each image."""
