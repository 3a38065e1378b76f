"""Convolution layers of rank 1, 2 and 3, and their transposes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opsin import cat, empty, zeros
from opsin._C import Tensor
from opsin.nn import functional as F
from opsin.nn import init
from opsin.nn._checks import choice, integers
from opsin.nn._conv_arithmetic import (
    Sides,
    named_sides,
    numeric_sides,
    padding_setting,
    transposed_named_sides,
)
from opsin.nn._conv_settings import ConvSettings
from opsin.nn.parameter import Parameter


class _ConvNd(ConvSettings):
    """Settings and parameters of a convolution; the subclass names the rank and the function."""

    _convolve: Callable[..., Tensor]

    padding: str | tuple[int, ...]
    padding_mode: str

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        strict: bool = False,
        input_dilation: Any = 1,
        algorithm: str = "auto",
    ) -> None:
        super().__init__()
        layer, rank = type(self).__name__, self._rank
        self._set_kernel(in_channels, out_channels, kernel_size, stride, dilation, groups, least_channels=0)
        self.padding = padding_setting(layer, padding, rank, self.stride)
        self.padding_mode = choice(
            layer, "padding_mode", padding_mode, ("zeros", "reflect", "replicate", "circular", "learned")
        )
        self.algorithm = choice(
            layer, "algorithm", algorithm, ("auto", "direct", "im2col", "fft", "winograd")
        )
        self.strict = strict
        self.input_dilation = integers(layer, "input_dilation", input_dilation, rank, 1)
        if self.padding_mode != "zeros" and self.input_dilation != (1,) * rank:
            raise ValueError(
                f"{layer}: input_dilation needs padding_mode='zeros', got padding_mode={self.padding_mode!r} "
                "(pad the input before)"
            )
        self.transposed = self._transposed
        self.output_padding = (0,) * rank
        self._add_parameters(bias, device, dtype)
        if self.padding_mode == "learned":
            self.padding_value = Parameter(empty(2 * rank, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws `weight` and `bias` anew; learned padding starts with zeros."""
        super().reset_parameters()
        if self.padding_mode == "learned":
            init.zeros_(self.padding_value)

    def forward(self, input: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros" and padding != "valid":
            if isinstance(padding, str):
                sizes = input.shape[-self._rank :]
                sides = named_sides(padding, sizes, self.kernel_size, self.stride, self.dilation)
            else:
                sides = numeric_sides(padding, self._rank)
            input, padding = self._pad(input, sides), 0
        more: dict[str, Any] = {}
        if self.strict or self.algorithm != "auto" or self.input_dilation != (1,) * self._rank:
            more = {
                "strict": self.strict, "input_dilation": self.input_dilation, "algorithm": self.algorithm
            }  # fmt: skip
        return self._convolve(
            input, self._kernel(), self.bias, self.stride, padding, self.dilation, self.groups, **more
        )

    def _kernel(self) -> Tensor:
        """What is convolved with, made of `weight`."""
        return self.weight

    def _pad(self, input: Tensor, sides: Sides) -> Tensor:
        """`input` with `sides` around it, as `padding_mode` says."""
        # `pad` wants them from the last dimension backwards.
        around = [number for side in reversed(sides) for number in side]
        if self.padding_mode != "learned":
            return F.pad(input, around, self.padding_mode)
        border = zeros(
            *(1,) * (input.dim() - self._rank),
            *input.shape[-self._rank :],
            dtype=self.padding_value.dtype,
            device=input.device,
        )
        for i, counts in enumerate(sides):
            axis = i - self._rank
            parts = [border]
            for side, count in enumerate(counts):
                shape = list(border.shape)
                shape[axis] = count
                parts.insert(2 * side, self.padding_value[2 * i + side].expand(shape))
            border = cat(parts, axis)
        return F.pad(input, around) + border

    def extra_repr(self) -> str:
        text = self._described()
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        if self.strict:
            text += ", strict=True"
        if self.input_dilation != (1,) * self._rank:
            text += f", input_dilation={self.input_dilation}"
        if self.algorithm != "auto":
            text += f", algorithm={self.algorithm}"
        return text


class Conv1d(_ConvNd):
    """Convolution (cross-correlation) of [N, C, L] with `weight` [out, in / groups, K].

    L_out = (L + before + after - d (K - 1) - 1) / s + 1, rounded down; `strict` refuses a rest.
    `padding` is a number per side, (before, after) pairs, or 'valid', 'same', 'same_upper', 'same_lower'
    or 'causal'; `padding_mode` 'zeros', 'reflect', 'replicate', 'circular' or 'learned', with a parameter
    `padding_value` [2], (before, after) of each axis. `input_dilation` puts zeros between the elements.
    `algorithm` is 'auto', 'direct', 'im2col', 'fft' or 'winograd', for the layer and its gradients.
    """

    _rank = 1
    _convolve = staticmethod(F.conv1d)


class Conv2d(_ConvNd):
    """Convolution (cross-correlation) of [N, C, H, W] with `weight` [out, in / groups, KH, KW].

    H_out = (H + before + after - d (K - 1) - 1) / s + 1, rounded down; `strict` refuses a rest.
    `padding` is a number per dimension, (before, after) pairs, or 'valid', 'same', 'same_upper', 'same_lower'
    or 'causal'; `padding_mode` 'zeros', 'reflect', 'replicate', 'circular' or 'learned', with a parameter
    `padding_value` [4], (before, after) of each axis. `input_dilation` puts zeros between the elements.
    `algorithm` is 'auto', 'direct', 'im2col', 'fft' or 'winograd', for the layer and its gradients.
    """

    _rank = 2
    _convolve = staticmethod(F.conv2d)


class Conv3d(_ConvNd):
    """Convolution (cross-correlation) of [N, C, D, H, W] with `weight` [out, in / groups, KD, KH, KW].

    D_out = (D + before + after - d (K - 1) - 1) / s + 1, rounded down; `strict` refuses a rest.
    `padding` is a number per dimension, (before, after) pairs, or 'valid', 'same', 'same_upper', 'same_lower'
    or 'causal'; `padding_mode` 'zeros', 'reflect', 'replicate', 'circular' or 'learned', with a parameter
    `padding_value` [6], (before, after) of each axis. `input_dilation` puts zeros between the elements.
    `algorithm` is 'auto', 'direct', 'im2col', 'fft' or 'winograd', for the layer and its gradients.
    """

    _rank = 3
    _convolve = staticmethod(F.conv3d)


class _ConvTransposeNd(_ConvNd):
    _transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        algorithm: str = "auto",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
            algorithm=algorithm,
        )
        self.output_padding = integers(type(self).__name__, "output_padding", output_padding, self._rank, 0)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        padding, more = self.padding, self.output_padding
        how = {} if self.algorithm == "auto" else {"algorithm": self.algorithm}
        if output_size is not None:
            more = self._output_padding(input, output_size)
        if self.padding_mode != "zeros":
            input, padding, more = self._extend(input, more)
        return self._convolve(
            input, self._kernel(), self.bias, self.stride, padding, more, self.groups, self.dilation, **how
        )

    def _reaches(self) -> list[int]:
        return [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]

    def _output_padding(self, input: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        """What makes the output `output_size` large."""
        layer, rank, dims = type(self).__name__, self._rank, input.dim()
        wanted = tuple(output_size)
        if len(wanted) not in (rank, dims):
            raise ValueError(
                f"{layer}: output_size must have {rank} or {dims} elements, got {len(wanted)} "
                "(leave out batch and channels)"
            )
        if isinstance(self.padding, str) and self.padding != "valid":
            raise ValueError(
                f"{layer}: padding={self.padding!r} already gives the size, got output_size={wanted} "
                "(give the padding in numbers)"
            )
        sides = [(0, 0)] * rank if isinstance(self.padding, str) else numeric_sides(self.padding, rank)
        least = [
            (size - 1) * step - sum(side) + reach + 1
            for size, step, side, reach in zip(
                input.shape[-rank:], self.stride, sides, self._reaches(), strict=True
            )
        ]
        more = tuple(size - low for size, low in zip(wanted[-rank:], least, strict=True))
        if any(not 0 <= extra < step for extra, step in zip(more, self.stride, strict=True)):
            most = [low + step - 1 for low, step in zip(least, self.stride, strict=True)]
            raise ValueError(
                f"{layer}: requested an output size of {wanted[-rank:]}, but valid sizes range from {least} "
                f"to {most} (for an input of {tuple(input.shape[-rank:])})"
            )
        return more

    def _extend(self, input: Tensor, more: tuple[int, ...]) -> tuple[Tensor, list[int], tuple[int, ...]]:
        """The input as far around as the output sees it, with the padding that then cuts the output out."""
        rank, reaches = self._rank, self._reaches()
        if isinstance(self.padding, str):
            sizes = input.shape[-rank:]
            sides = transposed_named_sides(self.padding, sizes, self.kernel_size, self.stride, self.dilation)
            if self.padding != "valid":
                more = tuple(max(s - r - 1, 0) for s, r in zip(self.stride, reaches, strict=True))
        else:
            sides = numeric_sides(self.padding, rank)
        around: Sides = []
        padding = []
        for (before, after), reach, extra, step in zip(sides, reaches, more, self.stride, strict=True):
            seen = max(reach - before, 0) // step, max(reach - after + extra, 0) // step
            around.append(seen)
            padding += [before + seen[0] * step, after + seen[1] * step]
        return self._pad(input, around), padding, more


class ConvTranspose1d(_ConvTransposeNd):
    """Transposed convolution of [N, C, L] with `weight` [in, out / groups, K].

    L_out = (L - 1) s - before - after + d (K - 1) + output_padding + 1, or what `forward` is told as
    `output_size`. `padding` is a number per side, (before, after) pairs, or 'valid', 'same', or
    'same_upper', 'same_lower' or 'causal' for an output of s times the size. In a `padding_mode` other than
    'zeros' the input goes on around its border. `algorithm` as in convolution layers.
    """

    _rank = 1
    _convolve = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTransposeNd):
    """Transposed convolution of [N, C, H, W] with `weight` [in, out / groups, KH, KW].

    H_out = (H - 1) s - before - after + d (K - 1) + output_padding + 1, or what `forward` is told as
    `output_size`. `padding` is a number per dimension, (before, after) pairs, or 'valid', 'same', or
    'same_upper', 'same_lower' or 'causal' for an output of s times the size. In a `padding_mode` other than
    'zeros' the input goes on around its border. `algorithm` as in convolution layers.
    """

    _rank = 2
    _convolve = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_ConvTransposeNd):
    """Transposed convolution of [N, C, D, H, W] with `weight` [in, out / groups, KD, KH, KW].

    D_out = (D - 1) s - before - after + d (K - 1) + output_padding + 1, or what `forward` is told as
    `output_size`. `padding` is a number per dimension, (before, after) pairs, or 'valid', 'same', or
    'same_upper', 'same_lower' or 'causal' for an output of s times the size. In a `padding_mode` other than
    'zeros' the input goes on around its border. `algorithm` as in convolution layers.
    """

    _rank = 3
    _convolve = staticmethod(F.conv_transpose3d)
