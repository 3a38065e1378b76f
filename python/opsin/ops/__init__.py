"""What torchvision has in `torchvision.ops`: functions and layers of boxes and regions."""

from opsin._C._ops import ms_deform_attn, ps_roi_align, ps_roi_pool, roi_align, roi_pool
from opsin.ops._roi import MultiScaleRoIAlign, PSRoIAlign, PSRoIPool, RoIAlign, RoIPool

__all__ = [
    "MultiScaleRoIAlign",
    "PSRoIAlign",
    "PSRoIPool",
    "RoIAlign",
    "RoIPool",
    "ms_deform_attn",
    "ps_roi_align",
    "ps_roi_pool",
    "roi_align",
    "roi_pool",
]
