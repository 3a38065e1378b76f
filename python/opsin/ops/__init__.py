"""Vision ops, with the names of `torchvision.ops`."""

from opsin._C._ops import *  # noqa: F403
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
from opsin.ops._position import (
    LearnedEncoding,
    PatchEmbed1d,
    PatchEmbed2d,
    PatchEmbed3d,
    RotaryEncoding,
    SinusoidalEncoding,
)

__all__ = [
    "ConvBlockAttention1d",
    "ConvBlockAttention2d",
    "ConvBlockAttention3d",
    "LearnedEncoding",
    "NeighborhoodAttention1d",
    "NeighborhoodAttention2d",
    "NeighborhoodAttention3d",
    "NonLocalBlock1d",
    "NonLocalBlock2d",
    "NonLocalBlock3d",
    "PatchEmbed1d",
    "PatchEmbed2d",
    "PatchEmbed3d",
    "RotaryEncoding",
    "ShiftedWindowAttention",
    "SinusoidalEncoding",
    "SqueezeExcitation",
]
