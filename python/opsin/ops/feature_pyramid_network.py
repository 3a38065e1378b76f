"""Feature pyramids; module and names of `torchvision.ops.feature_pyramid_network`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opsin._C import Tensor
from opsin.nn import functional as F
from opsin.nn import init
from opsin.nn._checks import integer
from opsin.nn._container import ModuleList
from opsin.nn._conv import Conv1d, Conv2d, Conv3d
from opsin.nn.module import Module
from opsin.ops._blocks import Conv1dNormActivation, Conv2dNormActivation, Conv3dNormActivation

__all__ = ["ExtraFPNBlock", "FeaturePyramidNetwork", "LastLevelMaxPool", "LastLevelP6P7"]

_BLOCKS: dict[int, Any] = {1: Conv1dNormActivation, 2: Conv2dNormActivation, 3: Conv3dNormActivation}
_CONVS: dict[int, Any] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
_SUBSAMPLE: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def _start(conv: Any) -> None:
    """Weights of variance 1 / fan in: no activation follows."""
    init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        init.zeros_(conv.bias)


def _rank(layer: str, axes: int) -> int:
    if axes not in _CONVS:
        raise ValueError(f"{layer}: axes must be 1, 2 or 3, got {axes} (the spatial axes of the maps)")
    return axes


class ExtraFPNBlock(Module):
    """Base of the levels above a pyramid's coarsest: `forward` appends to the maps and to their names."""

    def forward(
        self, results: list[Tensor], x: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """`results` are the maps of the pyramid, `x` those it was made from, the finest first."""
        raise NotImplementedError(
            f"{type(self).__name__}: an ExtraFPNBlock must define forward(results, x, names) (got no method)"
        )


class LastLevelMaxPool(ExtraFPNBlock):
    """One more level, "pool": every second pixel of the coarsest."""

    def forward(
        self,
        results: list[Tensor],
        x: list[Tensor],  # noqa: ARG002
        names: list[str],
    ) -> tuple[list[Tensor], list[str]]:
        coarsest = results[-1]
        return [*results, _SUBSAMPLE[coarsest.dim() - 2](coarsest, 1, 2)], [*names, "pool"]


class LastLevelP6P7(ExtraFPNBlock):
    """Two more levels, "p6" and "p7": 3x3 convolutions of stride 2, with a ReLU between.

    Of the pyramid's coarsest map if `in_channels` equals `out_channels`, else of the one it was made from.
    Source: Lin et al., "Focal loss for dense object detection" (RetinaNet), 2017.
    """

    def __init__(self, in_channels: int, out_channels: int, *, axes: int = 2) -> None:
        super().__init__()
        conv = _CONVS[_rank("LastLevelP6P7", axes)]
        self.p6 = conv(in_channels, out_channels, 3, 2, 1)
        self.p7 = conv(out_channels, out_channels, 3, 2, 1)
        _start(self.p6)
        _start(self.p7)
        self.use_P5 = in_channels == out_channels

    def forward(
        self, results: list[Tensor], x: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        p6 = self.p6((results if self.use_P5 else x)[-1])
        return [*results, p6, self.p7(F.relu(p6))], [*names, "p6", "p7"]


class FeaturePyramidNetwork(Module):
    """Maps of one number of channels at each scale, that know what coarser ones found.

    From the coarsest level down, p = inner(x) + nearest upsampling of the level above, the result is
    layer(p); `inner` is a convolution of size 1, `layer` one of size 3, each followed by
    `norm_layer(out_channels)` if there is one. Source: Lin et al., "Feature pyramid networks for object
    detection", 2017.

    Args:
        in_channels_list: channels of each map, the finest first.
        out_channels: channels of every result.
        extra_blocks: adds levels above the coarsest, such as `LastLevelMaxPool()` or `LastLevelP6P7(...)`.
        norm_layer: makes a normalization layer; None for none.
        axes: spatial axes of the maps, 1, 2 or 3 (keyword only).
    """

    _version = 2

    def __init__(
        self,
        in_channels_list: Sequence[int],
        out_channels: int,
        extra_blocks: ExtraFPNBlock | None = None,
        norm_layer: Callable[..., Module] | None = None,
        *,
        axes: int = 2,
    ) -> None:
        super().__init__()
        block = _BLOCKS[_rank("FeaturePyramidNetwork", axes)]
        self.inner_blocks = ModuleList()
        self.layer_blocks = ModuleList()
        for channels in in_channels_list:
            integer("FeaturePyramidNetwork", "in_channels", channels, 1)
            for blocks, inputs, size in (
                (self.inner_blocks, channels, 1),
                (self.layer_blocks, out_channels, 3),
            ):
                made = block(inputs, out_channels, size, norm_layer=norm_layer, activation_layer=None)
                _start(made[0])
                blocks.append(made)
        if extra_blocks is not None and not isinstance(extra_blocks, ExtraFPNBlock):
            raise TypeError(
                "FeaturePyramidNetwork: extra_blocks must be an ExtraFPNBlock, got "
                f"{type(extra_blocks).__name__} (derive from it)"
            )
        self.extra_blocks = extra_blocks

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # Blocks were bare convolutions in states of version 1.
        if (local_metadata.get("version") or 1) < 2:
            for blocks in ("inner_blocks", "layer_blocks"):
                for i in range(len(self.inner_blocks)):
                    for kind in ("weight", "bias"):
                        older = f"{prefix}{blocks}.{i}.{kind}"
                        if older in state_dict:
                            state_dict[f"{prefix}{blocks}.{i}.0.{kind}"] = state_dict.pop(older)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def forward(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps {name: [N, C, spatial...]}, the finest first, to maps of `out_channels` of the same names."""
        names, maps = list(x), list(x.values())
        if len(maps) != len(self.inner_blocks):
            raise ValueError(
                f"FeaturePyramidNetwork: expected {len(self.inner_blocks)} maps, got {len(maps)}: {names} "
                "(one for each of in_channels_list)"
            )
        above: Tensor | None = None
        results: list[Tensor] = []
        for inner, layer, found in zip(
            reversed(self.inner_blocks), reversed(self.layer_blocks), reversed(maps), strict=True
        ):
            lateral = inner(found)
            if above is not None:
                lateral = lateral + F.interpolate(above, size=list(lateral.shape[2:]), mode="nearest")
            above = lateral
            results.append(layer(above))
        results.reverse()
        if self.extra_blocks is not None:
            results, names = self.extra_blocks(results, maps, names)
        return dict(zip(names, results, strict=True))
