# Made by `make stubs` from the schemas of the ops; edit bindings/_C.pyi.in or the schema.
from collections.abc import Sequence
from typing import overload

from opsin._C import (
    Tensor,
    _bool,
    _Float,
    _IndicesScores,
    _Int,
    _Ints,
    _RowsColumns,
)

__all__ = [
    "batched_nms",
    "box_area",
    "box_convert",
    "box_iou",
    "box_iou_rotated",
    "clip_boxes_to_image",
    "complete_box_iou",
    "complete_box_iou_loss",
    "crop_and_resize",
    "deform_conv1d",
    "deform_conv2d",
    "deform_conv3d",
    "deform_conv_transpose1d",
    "deform_conv_transpose2d",
    "deform_conv_transpose3d",
    "distance_box_iou",
    "distance_box_iou_loss",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "linear_sum_assignment",
    "mask_iou",
    "masks_to_boxes",
    "ms_deform_attn",
    "neighborhood_attention",
    "nms",
    "nms_rotated",
    "ps_roi_align",
    "ps_roi_pool",
    "remove_small_boxes",
    "roi_align",
    "roi_pool",
    "rotary_embedding",
    "sigmoid_focal_loss",
    "soft_nms",
    "vertex_align",
    "warp_affine",
    "warp_perspective",
    "window_partition",
    "window_reverse",
]

def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: _Float) -> Tensor:
    """nms() within each of the classes idxs [N]."""

def box_area(boxes: Tensor, fmt: str = "xyxy") -> Tensor:
    """The area of boxes [..., 4]; the length or volume of [..., 2] or [..., 6]."""

def box_convert(boxes: Tensor, in_fmt: str, out_fmt: str) -> Tensor:
    """Boxes in another format: xyxy, xywh, cxcywh, or rotated xywhr, cxcywhr, xyxyxyxy."""

def box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy") -> Tensor:
    """Intersection over union of each of N boxes with each of M, [N, M]; [N, 2], [N, 4] or [N, 6] by rank."""

def box_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of rotated boxes [N, 5] and [M, 5], (cx, cy, w, h, degrees counter-clockwise), [N, M]."""

def clip_boxes_to_image(boxes: Tensor, size: _Ints) -> Tensor:
    """Boxes [..., 4] cut to an image of size (height, width)."""

def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: _Float = 1e-07) -> Tensor:
    """distance_box_iou() less what aspect ratios differ by, [N, M]."""

def complete_box_iou_loss(
    boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: _Float = 1e-07
) -> Tensor:
    """1 - complete IoU of boxes [..., 4] and their targets, pair by pair."""

def crop_and_resize(
    input: Tensor,
    boxes: Sequence[Tensor],
    size: _Int | _Ints,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: _bool = False,
) -> Tensor:
    """Boxes (x1, y1, x2, y2), [K, 4] for each image of [N, C, H, W], resized to `size` -> [sum of K, C, h, w]."""

def deform_conv1d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Convolution of input [N, C, L] with weight [K, C / groups, kernel...] whose taps are moved by offset [N, offset groups * taps * 1, out...] and, with a mask [N, offset groups * taps, out...], weighted. Pixels outside of the input are zero."""

def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Convolution of input [N, C, H, W] with weight [K, C / groups, kernel...] whose taps are moved by offset [N, offset groups * taps * 2, out...] and, with a mask [N, offset groups * taps, out...], weighted. Pixels outside of the input are zero."""

def deform_conv3d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Convolution of input [N, C, D, H, W] with weight [K, C / groups, kernel...] whose taps are moved by offset [N, offset groups * taps * 3, out...] and, with a mask [N, offset groups * taps, out...], weighted. Pixels outside of the input are zero."""

def deform_conv_transpose1d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """The transpose of deform_conv1d in its input: spreads input [N, K, ...] over the pixels around the moved taps."""

def deform_conv_transpose2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """The transpose of deform_conv2d in its input: spreads input [N, K, ...] over the pixels around the moved taps."""

def deform_conv_transpose3d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """The transpose of deform_conv3d in its input: spreads input [N, K, ...] over the pixels around the moved taps."""

def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: _Float = 1e-07) -> Tensor:
    """IoU - d^2 / (c^2 + eps) with the distance d of the centres and the diagonal c of both, [N, M]."""

def distance_box_iou_loss(
    boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: _Float = 1e-07
) -> Tensor:
    """1 - distance IoU of boxes [..., 4] and their targets, pair by pair."""

def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU - (C - union) / C with the box C around both, [N, M]."""

def generalized_box_iou_loss(
    boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: _Float = 1e-07
) -> Tensor:
    """1 - generalized IoU of boxes [..., 4] and their targets, pair by pair."""

def linear_sum_assignment(cost_matrix: Tensor, maximize: _bool = False) -> _RowsColumns:
    """The one-to-one pairs of rows and columns of [N, M] with the least total cost, int64 [min(N, M)] each."""

def mask_iou(masks1: Tensor, masks2: Tensor) -> Tensor:
    """IoU of each of N masks with each of M, [N, M]."""

def masks_to_boxes(masks: Tensor) -> Tensor:
    """The boxes [N, 4] around the nonzero elements of masks [N, H, W]."""

def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Multi-scale deformable attention: value [N, S, M, D] sampled at [N, Lq, M, L, P, 2] (x, y from 0 to 1) and summed with weights [N, Lq, M, L, P] to [N, Lq, M * D]."""

def neighborhood_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: _Int | _Ints,
    *,
    dilation: _Int | _Ints = 1,
    scale: _Float | None = None,
    relative_position_bias: Tensor | None = None,
) -> Tensor:
    """Attention of each position of a grid [N, spatial..., heads, D] to the kernel_size nearest per axis, dilation apart; a bias [heads, 2 kernel_size - 1...] is added for the place of the key."""

def nms(boxes: Tensor, scores: Tensor, iou_threshold: _Float) -> Tensor:
    """Positions of the boxes [N, 4] (or [N, 2], [N, 6]) that no box with a higher score overlaps by more than iou_threshold, by falling score."""

def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: _Float, idxs: Tensor | None = None) -> Tensor:
    """nms() of rotated boxes [N, 5], (cx, cy, w, h, degrees counter-clockwise); within classes, if given."""

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

def remove_small_boxes(boxes: Tensor, min_size: _Float) -> Tensor:
    """Positions of the boxes [N, 4] with all sides at least min_size."""

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

def rotary_embedding(input: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs (x[i], x[i + D / 2]) of input [..., L, D] by angles with these cosines and sines."""

def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: _Float = 0.25, gamma: _Float = 2, reduction: str = "none"
) -> Tensor:
    """-alpha_t (1 - p_t)^gamma log p_t with p = sigmoid(inputs), element by element."""

def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: _Float = 0.3,
    sigma: _Float = 0.5,
    min_score: _Float = 0.001,
    method: str = "linear",
) -> _IndicesScores:
    """Boxes taken by falling score, each of which lowers the scores of those that it overlaps."""

def vertex_align(
    features: Tensor,
    points: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: _bool = True,
) -> Tensor:
    """Features [N, C, H, W] or [N, C, D, H, W] at points [N, P, 2 or 3] from -1 to 1 -> [N, P, C]."""

def warp_affine(
    input: Tensor,
    matrix: Tensor,
    size: _Int | _Ints,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: _bool = True,
) -> Tensor:
    """Images [N, C, H, W] moved by matrices [N, 2, 3] from input pixels to those of an output of `size` (h, w)."""

def warp_perspective(
    input: Tensor,
    matrix: Tensor,
    size: _Int | _Ints,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: _bool = True,
) -> Tensor:
    """Images [N, C, H, W] moved by homographies [N, 3, 3] from input pixels to those of an output of `size`."""

def window_partition(input: Tensor, window_size: _Int | _Ints) -> Tensor:
    """Windows [N * windows, window_size..., C] of input [N, spatial..., C], in row-major order."""

def window_reverse(windows: Tensor, size: _Int | _Ints) -> Tensor:
    """The input [N, size..., C] of which window_partition() made windows [N * windows, window_size..., C]."""
