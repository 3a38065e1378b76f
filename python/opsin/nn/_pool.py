"""Pooling layers of rank 1, 2 and 3."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opsin._C import Tensor
from opsin.nn import functional as F
from opsin.nn._checks import int_or_ints, integer, integers, number
from opsin.nn._conv_arithmetic import padding_setting
from opsin.nn._fractional import output_ratios
from opsin.nn.module import Module


def _padding(layer: str, padding: Any, rank: int, stride: Any) -> Any:
    """As convolution takes it: a name, a number, one per axis, or (before, behind) of each axis."""
    if isinstance(padding, Iterable):
        return padding_setting(layer, padding, rank, integers(layer, "stride", stride, rank, 1))
    return integer(layer, "padding", padding, 0)


class _MaxPoolNd(Module):
    _rank: int

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        layer, rank = type(self).__name__, self._rank
        self.kernel_size = int_or_ints(layer, "kernel_size", kernel_size, rank, 1)
        self.stride = self.kernel_size if stride is None else int_or_ints(layer, "stride", stride, rank, 1)
        self.padding = _padding(layer, padding, rank, self.stride)
        self.dilation = int_or_ints(layer, "dilation", dilation, rank, 1)
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )

    def _arguments(self) -> tuple[Any, ...]:
        return self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices


class MaxPool1d(_MaxPoolNd):
    """Largest value per window of [N, C, L]; `return_indices` also gives where it was.

    `padding` is a number, one per axis, (before, behind) of each axis, or 'valid', 'same', 'same_upper',
    'same_lower' or 'causal', as in `Conv1d`.
    """

    _rank = 1

    def forward(self, input: Tensor) -> Any:
        return F.max_pool1d(input, *self._arguments())


class MaxPool2d(_MaxPoolNd):
    """Largest value per window of [N, C, H, W]; `return_indices` also gives where it was.

    `padding` is a number, one per axis, (before, behind) of each axis, or 'valid', 'same', 'same_upper',
    'same_lower' or 'causal', as in `Conv1d`.
    """

    _rank = 2

    def forward(self, input: Tensor) -> Any:
        return F.max_pool2d(input, *self._arguments())


class MaxPool3d(_MaxPoolNd):
    """Largest value per window of [N, C, D, H, W]; `return_indices` also gives where it was.

    `padding` is a number, one per axis, (before, behind) of each axis, or 'valid', 'same', 'same_upper',
    'same_lower' or 'causal', as in `Conv1d`.
    """

    _rank = 3

    def forward(self, input: Tensor) -> Any:
        return F.max_pool3d(input, *self._arguments())


class _AvgPoolNd(Module):
    _rank: int

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        layer, rank = type(self).__name__, self._rank
        self.kernel_size = int_or_ints(layer, "kernel_size", kernel_size, rank, 1)
        self.stride = self.kernel_size if stride is None else int_or_ints(layer, "stride", stride, rank, 1)
        self.padding = _padding(layer, padding, rank, self.stride)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        if divisor_override is not None and integer(layer, "divisor_override", divisor_override) == 0:
            raise ValueError(f"{layer}: divisor_override must not be zero, got 0 (leave it out)")
        self.divisor_override = divisor_override

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"

    def _arguments(self) -> tuple[Any, Any, Any, bool, bool]:
        return self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad


class AvgPool1d(_AvgPoolNd):
    """Mean per window of [N, C, L]; `count_include_pad` counts the zeros of the padding.

    `padding` is a number, one per axis, (before, behind) of each axis, or 'valid', 'same', 'same_upper',
    'same_lower' or 'causal', as in `Conv1d`.
    """

    _rank = 1

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        # PyTorch keeps the settings of this one as tuples.
        self.kernel_size, self.stride, self.padding = (
            value if isinstance(value, (str, tuple)) else (value,)
            for value in (self.kernel_size, self.stride, self.padding)
        )

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(input, *self._arguments())


class AvgPool2d(_AvgPoolNd):
    """Mean per window of [N, C, H, W]; `divisor_override` replaces the number of elements.

    `padding` is a number, one per axis, (before, behind) of each axis, or 'valid', 'same', 'same_upper',
    'same_lower' or 'causal', as in `Conv1d`.
    """

    _rank = 2

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(input, *self._arguments(), self.divisor_override)


class AvgPool3d(_AvgPoolNd):
    """Mean per window of [N, C, D, H, W]; `divisor_override` replaces the number of elements.

    `padding` is a number, one per axis, (before, behind) of each axis, or 'valid', 'same', 'same_upper',
    'same_lower' or 'causal', as in `Conv1d`.
    """

    _rank = 3

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool3d(input, *self._arguments(), self.divisor_override)


class _AdaptivePoolNd(Module):
    _rank: int

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        layer, rank = type(self).__name__, self._rank
        if isinstance(output_size, Iterable):
            sizes = tuple(output_size)
            int_or_ints(layer, "output_size", [0 if size is None else size for size in sizes], rank, 0)
            self.output_size: Any = sizes
        else:
            self.output_size = None if output_size is None else integer(layer, "output_size", output_size, 0)

    def _sizes_for(self, input: Tensor) -> Any:
        """The output size, with the input's own in place of None."""
        wanted = self.output_size
        if isinstance(wanted, int) or (wanted is not None and None not in wanted):
            return wanted
        sizes = input.shape[-self._rank :]
        if wanted is None:
            return sizes
        return tuple(size if want is None else want for want, size in zip(wanted, sizes, strict=True))

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptivePoolNd):
    """Mean over as many windows as give [N, C, output_size]."""

    _rank = 1

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool1d(input, self._sizes_for(input))


class AdaptiveAvgPool2d(_AdaptivePoolNd):
    """Mean over as many windows as give [N, C, H, W] of `output_size`; None keeps a dimension."""

    _rank = 2

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self._sizes_for(input))


class AdaptiveAvgPool3d(_AdaptivePoolNd):
    """Mean over as many windows as give [N, C, D, H, W] of `output_size`; None keeps a dimension."""

    _rank = 3

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool3d(input, self._sizes_for(input))


class _AdaptiveMaxPoolNd(_AdaptivePoolNd):
    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices


class AdaptiveMaxPool1d(_AdaptiveMaxPoolNd):
    """Largest value over as many windows as give [N, C, output_size]."""

    _rank = 1

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool1d(input, self._sizes_for(input), self.return_indices)


class AdaptiveMaxPool2d(_AdaptiveMaxPoolNd):
    """Largest value over as many windows as give [N, C, H, W] of `output_size`; None keeps a dimension."""

    _rank = 2

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool2d(input, self._sizes_for(input), self.return_indices)


class AdaptiveMaxPool3d(_AdaptiveMaxPoolNd):
    """Largest value over as many windows as give [N, C, D, H, W] of `output_size`; None keeps a dimension."""

    _rank = 3

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool3d(input, self._sizes_for(input), self.return_indices)


class _LPPoolNd(Module):
    _rank: int

    def __init__(
        self,
        norm_type: float,
        kernel_size: Any,
        stride: Any = None,
        ceil_mode: bool = False,
        *,
        padding: Any = 0,
    ) -> None:
        super().__init__()
        layer, rank = type(self).__name__, self._rank
        if float(number(layer, "norm_type", norm_type)) == 0:
            raise ValueError(f"{layer}: norm_type must not be 0, got {norm_type} (2 is the Euclidean norm)")
        self.norm_type = norm_type
        self.kernel_size = int_or_ints(layer, "kernel_size", kernel_size, rank, 1)
        self.stride = None if stride is None else int_or_ints(layer, "stride", stride, rank, 1)
        self.ceil_mode = ceil_mode
        self.padding = _padding(layer, padding, rank, self.kernel_size if stride is None else self.stride)

    def extra_repr(self) -> str:
        text = (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )
        return text if self.padding == 0 else f"{text}, padding={self.padding}"

    def _run(self, pool: Any, input: Tensor) -> Tensor:
        return pool(
            input,
            float(self.norm_type),
            self.kernel_size,
            self.stride,
            self.ceil_mode,
            padding=self.padding,
        )


class LPPool1d(_LPPoolNd):
    """(sum of x^norm_type)^(1 / norm_type) per window of [N, C, L].

    `padding` is as in `MaxPool1d` and adds nothing to the sums.
    """

    _rank = 1

    def forward(self, input: Tensor) -> Tensor:
        return self._run(F.lp_pool1d, input)


class LPPool2d(_LPPoolNd):
    """(sum of x^norm_type)^(1 / norm_type) per window of [N, C, H, W].

    `padding` is as in `MaxPool1d` and adds nothing to the sums.
    """

    _rank = 2

    def forward(self, input: Tensor) -> Tensor:
        return self._run(F.lp_pool2d, input)


class LPPool3d(_LPPoolNd):
    """(sum of x^norm_type)^(1 / norm_type) per window of [N, C, D, H, W].

    `padding` is as in `MaxPool1d` and adds nothing to the sums.
    """

    _rank = 3

    def forward(self, input: Tensor) -> Tensor:
        return self._run(F.lp_pool3d, input)


class _MaxUnpoolNd(Module):
    _rank: int

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        layer, rank = type(self).__name__, self._rank
        self.kernel_size = integers(layer, "kernel_size", kernel_size, rank, 1)
        self.stride = self.kernel_size if stride is None else integers(layer, "stride", stride, rank, 1)
        self.padding = padding_setting(layer, padding, rank, self.stride)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpoolNd):
    """Zeros [N, C, L] with the input at the positions `indices` that MaxPool1d returned."""

    _rank = 1

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        return F.max_unpool1d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool2d(_MaxUnpoolNd):
    """Zeros [N, C, H, W] with the input at the positions `indices` that MaxPool2d returned."""

    _rank = 2

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool3d(_MaxUnpoolNd):
    """Zeros [N, C, D, H, W] with the input at the positions `indices` that MaxPool3d returned."""

    _rank = 3

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        return F.max_unpool3d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class _FractionalMaxPoolNd(Module):
    _rank: int

    def __init__(
        self,
        kernel_size: Any,
        output_size: Any = None,
        output_ratio: Any = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> None:
        super().__init__()
        layer, rank = type(self).__name__, self._rank
        if (output_size is None) == (output_ratio is None):
            raise ValueError(
                f"{layer}: expected either output_size or output_ratio, got {output_size} and {output_ratio}"
            )
        self.kernel_size = integers(layer, "kernel_size", kernel_size, rank, 1)
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = (
            None if output_size is None else integers(layer, "output_size", output_size, rank, 1)
        )
        self.output_ratio = None if output_ratio is None else output_ratios(layer, output_ratio, rank)

    def _arguments(self) -> tuple[Any, ...]:
        return (
            self.kernel_size,
            self.output_size,
            self.output_ratio,
            self.return_indices,
            self._random_samples,
        )


class FractionalMaxPool1d(_FractionalMaxPoolNd):
    """Largest value per pseudo-randomly placed window of [N, C, L]; see `fractional_max_pool1d`."""

    _rank = 1

    def forward(self, input: Tensor) -> Any:
        return F.fractional_max_pool1d(input, *self._arguments())


class FractionalMaxPool2d(_FractionalMaxPoolNd):
    """Largest value per pseudo-randomly placed window of [N, C, H, W]; see `fractional_max_pool2d`."""

    _rank = 2

    def forward(self, input: Tensor) -> Any:
        return F.fractional_max_pool2d(input, *self._arguments())


class FractionalMaxPool3d(_FractionalMaxPoolNd):
    """Largest value per pseudo-randomly placed window of [N, C, D, H, W]; see `fractional_max_pool3d`."""

    _rank = 3

    def forward(self, input: Tensor) -> Any:
        return F.fractional_max_pool3d(input, *self._arguments())
