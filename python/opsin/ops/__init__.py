"""Vision ops, with the names of `torchvision.ops`."""

import opsin._C._ops as _ops
from opsin._C._ops import *  # noqa: F403
from opsin.ops._deform_conv import (
    DeformConv1d,
    DeformConv2d,
    DeformConv3d,
    DeformConvTranspose1d,
    DeformConvTranspose2d,
    DeformConvTranspose3d,
)

__all__ = [
    "DeformConv1d",
    "DeformConv2d",
    "DeformConv3d",
    "DeformConvTranspose1d",
    "DeformConvTranspose2d",
    "DeformConvTranspose3d",
]
__all__ += _ops.__all__
