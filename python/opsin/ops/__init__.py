"""Vision ops: boxes, regions, attention, deformable convolution; names and arguments of `torchvision.ops`."""

import opsin._C._ops as _ops
from opsin._C._ops import *  # noqa: F403
from opsin.ops._anchors import AnchorGenerator, anchors_inside
from opsin.ops._attention import (
    ConvBlockAttention1d,
    ConvBlockAttention2d,
    ConvBlockAttention3d,
    NeighborhoodAttention1d,
    NeighborhoodAttention2d,
    NeighborhoodAttention3d,
    NonLocalBlock1d,
    NonLocalBlock2d,
    NonLocalBlock3d,
    ShiftedWindowAttention,
    SqueezeExcitation,
)
from opsin.ops._blocks import MLP, Conv1dNormActivation, Conv2dNormActivation, Conv3dNormActivation, Permute
from opsin.ops._box_coder import BoxCoder
from opsin.ops._deform_conv import (
    DeformConv1d,
    DeformConv2d,
    DeformConv3d,
    DeformConvTranspose1d,
    DeformConvTranspose2d,
    DeformConvTranspose3d,
)
from opsin.ops._drop import (
    DropBlock2d,
    DropBlock3d,
    StochasticDepth,
    drop_block2d,
    drop_block3d,
    stochastic_depth,
)
from opsin.ops._fcos import centerness, fcos_points, fcos_scores, fcos_targets
from opsin.ops._filters import (
    corner_response,
    edge_strength,
    gabor_kernels,
    gaussian_blur,
    laplacian,
    spatial_gradient,
)
from opsin.ops._frozen_batch_norm import FrozenBatchNorm2d
from opsin.ops._matching import BalancedPositiveNegativeSampler, Matcher
from opsin.ops._position import (
    LearnedEncoding,
    PatchEmbed1d,
    PatchEmbed2d,
    PatchEmbed3d,
    RotaryEncoding,
    SinusoidalEncoding,
)
from opsin.ops._regions import segmentation_tree, selective_search, superpixels
from opsin.ops._roi import MultiScaleRoIAlign, PSRoIAlign, PSRoIPool, RoIAlign, RoIPool
from opsin.ops._segmentation import Hypercolumns, mask_background
from opsin.ops._windows import Detections, confident_boxes, pair_corners, sliding_windows
from opsin.ops.feature_pyramid_network import FeaturePyramidNetwork

__all__ = [
    "MLP",
    "AnchorGenerator",
    "BalancedPositiveNegativeSampler",
    "BoxCoder",
    "Conv1dNormActivation",
    "Conv2dNormActivation",
    "Conv3dNormActivation",
    "ConvBlockAttention1d",
    "ConvBlockAttention2d",
    "ConvBlockAttention3d",
    "DeformConv1d",
    "DeformConv2d",
    "DeformConv3d",
    "DeformConvTranspose1d",
    "DeformConvTranspose2d",
    "DeformConvTranspose3d",
    "Detections",
    "DropBlock2d",
    "DropBlock3d",
    "FeaturePyramidNetwork",
    "FrozenBatchNorm2d",
    "Hypercolumns",
    "LearnedEncoding",
    "Matcher",
    "MultiScaleRoIAlign",
    "NeighborhoodAttention1d",
    "NeighborhoodAttention2d",
    "NeighborhoodAttention3d",
    "NonLocalBlock1d",
    "NonLocalBlock2d",
    "NonLocalBlock3d",
    "PSRoIAlign",
    "PSRoIPool",
    "PatchEmbed1d",
    "PatchEmbed2d",
    "PatchEmbed3d",
    "Permute",
    "RoIAlign",
    "RoIPool",
    "RotaryEncoding",
    "ShiftedWindowAttention",
    "SinusoidalEncoding",
    "SqueezeExcitation",
    "StochasticDepth",
    "anchors_inside",
    "centerness",
    "confident_boxes",
    "corner_response",
    "drop_block2d",
    "drop_block3d",
    "edge_strength",
    "fcos_points",
    "fcos_scores",
    "fcos_targets",
    "gabor_kernels",
    "gaussian_blur",
    "laplacian",
    "mask_background",
    "pair_corners",
    "segmentation_tree",
    "selective_search",
    "sliding_windows",
    "spatial_gradient",
    "stochastic_depth",
    "superpixels",
]
__all__ += _ops.__all__
