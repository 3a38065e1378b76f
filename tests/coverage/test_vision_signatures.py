"""What Opsin and torchvision both have takes the same arguments; torchvision's are written out."""

from __future__ import annotations

import re
from functools import reduce

import pytest

import opsin
from opsin import _C
from tests.coverage.signatures import Form, Parameter, difference, form_of, of_signature, value_of

# torchvision 0.29: functions, and classes by the arguments that make them. Defaults that are
# classes stand by name, equal numbers for each axis as one.
TORCHVISION = """
Conv2dNormActivation(in_channels, out_channels, kernel_size=3, stride=1, padding=None, groups=1,
    norm_layer=BatchNorm2d, activation_layer=ReLU, dilation=1, inplace=True, bias=None)
Conv3dNormActivation(in_channels, out_channels, kernel_size=3, stride=1, padding=None, groups=1,
    norm_layer=BatchNorm3d, activation_layer=ReLU, dilation=1, inplace=True, bias=None)
DeformConv2d(in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True)
DropBlock2d(p, block_size, inplace=False, eps=1e-06)
DropBlock3d(p, block_size, inplace=False, eps=1e-06)
FeaturePyramidNetwork(in_channels_list, out_channels, extra_blocks=None, norm_layer=None)
FrozenBatchNorm2d(num_features, eps=1e-05)
MLP(in_channels, hidden_channels, norm_layer=None, activation_layer=ReLU, inplace=None, bias=True,
    dropout=0.0)
MultiScaleRoIAlign(featmap_names, output_size, sampling_ratio, *, canonical_scale=224, canonical_level=4)
PSRoIAlign(output_size, spatial_scale, sampling_ratio)
PSRoIPool(output_size, spatial_scale)
Permute(dims)
RoIAlign(output_size, spatial_scale, sampling_ratio, aligned=False)
RoIPool(output_size, spatial_scale)
SqueezeExcitation(input_channels, squeeze_channels, activation=ReLU, scale_activation=Sigmoid)
StochasticDepth(p, mode)
batched_nms(boxes, scores, idxs, iou_threshold)
box_area(boxes, fmt='xyxy')
box_convert(boxes, in_fmt, out_fmt)
box_iou(boxes1, boxes2, fmt='xyxy')
clip_boxes_to_image(boxes, size)
complete_box_iou(boxes1, boxes2, eps=1e-07)
complete_box_iou_loss(boxes1, boxes2, reduction='none', eps=1e-07)
deform_conv2d(input, offset, weight, bias=None, stride=1, padding=0, dilation=1, mask=None)
distance_box_iou(boxes1, boxes2, eps=1e-07)
distance_box_iou_loss(boxes1, boxes2, reduction='none', eps=1e-07)
drop_block2d(input, p, block_size, inplace=False, eps=1e-06, training=True)
drop_block3d(input, p, block_size, inplace=False, eps=1e-06, training=True)
feature_pyramid_network.ExtraFPNBlock()
feature_pyramid_network.LastLevelMaxPool()
feature_pyramid_network.LastLevelP6P7(in_channels, out_channels)
generalized_box_iou(boxes1, boxes2)
generalized_box_iou_loss(boxes1, boxes2, reduction='none', eps=1e-07)
masks_to_boxes(masks)
nms(boxes, scores, iou_threshold)
ps_roi_align(input, boxes, output_size, spatial_scale=1.0, sampling_ratio=-1)
ps_roi_pool(input, boxes, output_size, spatial_scale=1.0)
remove_small_boxes(boxes, min_size)
roi_align(input, boxes, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False)
roi_pool(input, boxes, output_size, spatial_scale=1.0)
sigmoid_focal_loss(inputs, targets, alpha=0.25, gamma=2, reduction='none')
stochastic_depth(input, p, mode, training=True)
"""


def documented(text: str) -> Form:
    """The parameters of `a, b=1, *, c=2`."""
    by_name, form = False, []
    for part in filter(None, re.split(r", *(?![^(]*\))", text)):
        name, _, default = part.partition("=")
        if name == "*":
            by_name = True
        else:
            form.append(Parameter(name, by_name, *([value_of(default)] if default else [])))
    return form


def of_opsin(name: str) -> list[Form]:
    """The overloads of `opsin.ops.<name>`."""
    overloads = [form_of(s, method=False) for s in _C._schemas() if (s["ns"], s["name"]) == ("ops", name)]
    if overloads:
        return overloads
    form = of_signature(reduce(getattr, name.split("."), opsin.ops))
    assert form is not None, name
    return [
        [
            p._replace(default=p.default.__name__) if isinstance(p.default, type) and not p.required else p
            for p in form
        ]
    ]


ROWS = [row.split("(", 1) for row in re.split(r"\n(?! )", TORCHVISION.strip())]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [(name, " ".join(rest[:-1].split())) for name, rest in ROWS],
    ids=[r[0] for r in ROWS],
)
def test_torchvisions_arguments(name: str, arguments: str) -> None:
    reasons = [difference(ours, documented(arguments)) for ours in of_opsin(name)]
    assert not all(reasons), reasons
