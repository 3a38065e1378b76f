"""Windows as columns, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opsin._C import Tensor
from opsin.nn import functional as F
from opsin.nn._checks import integer, integers
from opsin.nn.module import Module


def _setting(layer: str, name: str, value: Any, minimum: int) -> Any:
    """A number, or one per axis, as it was passed."""
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes)):
        return integer(layer, name, value, minimum)
    values = tuple(value)
    return integers(layer, name, values, len(values), minimum)


class _Windows(Module):
    kernel_size: Any
    dilation: Any
    padding: Any
    stride: Any

    def __init__(self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> None:
        super().__init__()
        layer = type(self).__name__
        self.kernel_size = _setting(layer, "kernel_size", kernel_size, 1)
        self.dilation = _setting(layer, "dilation", dilation, 1)
        self.padding = _setting(layer, "padding", padding, 0)
        self.stride = _setting(layer, "stride", stride, 1)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, "
            f"stride={self.stride}"
        )


class Unfold(_Windows):
    """The windows of [N, C, spatial...] as columns [N, C * prod(kernel_size), L].

    One to three spatial axes, as many as `kernel_size` has entries; a single number stands for two, or for
    three where the input has five dimensions. `padding` may also give (before, after) of each axis.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(_Windows):
    """The sum of columns [N, C * prod(kernel_size), L] where their windows lie in [N, C, output_size...].

    One to three spatial axes, as many as `output_size` has entries; a single number stands for two.
    """

    def __init__(
        self, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
    ) -> None:
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = _setting("Fold", "output_size", output_size, 1)

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, {super().extra_repr()}"
