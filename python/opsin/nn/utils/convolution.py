"""Sizes, costs, matrices and other forms of convolutions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from opsin import eye, no_grad
from opsin._C import Tensor
from opsin.nn import functional as F
from opsin.nn._checks import choice, integers
from opsin.nn._container import Sequential
from opsin.nn._conv import Conv1d, Conv2d, Conv3d, _ConvNd
from opsin.nn._conv_arithmetic import (
    Sides,
    named_sides,
    numeric_sides,
    padding_setting,
    transposed_named_sides,
)
from opsin.nn._linear import Flatten, Linear
from opsin.nn.module import Module

_CONVS: tuple[Any, ...] = (Conv1d, Conv2d, Conv3d)
_FUNCTIONS = (F.conv1d, F.conv2d, F.conv3d)


class ConvCost(NamedTuple):
    """What a convolution holds and does for one sample."""

    parameters: int
    outputs: int
    multiply_adds: int


class ReceptiveField(NamedTuple):
    """Per axis: positions of the input that one output sees, and how far apart neighbouring outputs look."""

    size: tuple[int, ...]
    step: tuple[int, ...]


def _sizes(function: str, size: Any) -> tuple[int, ...]:
    return integers(function, "size", size, len(size) if isinstance(size, Sequence) else 1, 1)


def conv_output_size(
    size: int | Sequence[int],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    *,
    rounding: str = "floor",
) -> tuple[int, ...]:
    """The spatial sizes of a convolution's or a pooling's output, one per entry of `size`.

    (size + before + after - dilation (kernel_size - 1) - 1) / stride + 1, where `rounding` 'floor' drops a
    rest, 'ceil' gives it a window of its own, and 'strict' raises ValueError with sizes that leave none.
    `padding` is anything that `Conv2d` takes.
    """
    name = "conv_output_size"
    sizes = _sizes(name, size)
    rank = len(sizes)
    choice(name, "rounding", rounding, ("floor", "ceil", "strict"))
    kernel = integers(name, "kernel_size", kernel_size, rank, 1)
    steps = integers(name, "stride", stride, rank, 1)
    spread = integers(name, "dilation", dilation, rank, 1)
    given = padding_setting(name, padding, rank, steps)
    sides = (
        named_sides(given, sizes, kernel, steps, spread)
        if isinstance(given, str)
        else numeric_sides(given, rank)
    )
    result = []
    for axis, (length, side, k, d, step) in enumerate(zip(sizes, sides, kernel, spread, steps, strict=True)):
        room = length + sum(side) - d * (k - 1) - 1
        if room < 0:
            raise ValueError(
                f"{name}: no window of reach {d * (k - 1) + 1} fits into size {length} with padding {side} "
                f"on axis {axis} (pad more, or take a smaller kernel)"
            )
        rest = room % step
        if rest and rounding == "strict":
            fitting = [length - rest] * (length > rest) + [length - rest + step]
            raise ValueError(
                f"{name}: size {length} on axis {axis} with padding {side}, kernel {k}, dilation {d} and "
                f"stride {step} leaves {rest} over (sizes that would fit: {' or '.join(map(str, fitting))})"
            )
        result.append(room // step + 1 + (rest > 0 and rounding == "ceil"))
    return tuple(result)


def conv_transpose_output_size(
    size: int | Sequence[int],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> tuple[int, ...]:
    """The spatial sizes of a transposed convolution's output, one per entry of `size`.

    (size - 1) stride - before - after + dilation (kernel_size - 1) + output_padding + 1.
    """
    name = "conv_transpose_output_size"
    sizes = _sizes(name, size)
    rank = len(sizes)
    kernel = integers(name, "kernel_size", kernel_size, rank, 1)
    steps = integers(name, "stride", stride, rank, 1)
    spread = integers(name, "dilation", dilation, rank, 1)
    more = integers(name, "output_padding", output_padding, rank, 0)
    given = padding_setting(name, padding, rank, steps)
    sides: Sides
    if isinstance(given, str):
        sides = transposed_named_sides(given, sizes, kernel, steps, spread)
        if given != "valid":
            more = tuple(max(s - d * (k - 1) - 1, 0) for s, d, k in zip(steps, spread, kernel, strict=True))
    else:
        sides = numeric_sides(given, rank)
    return tuple(
        (length - 1) * step - sum(side) + d * (k - 1) + extra + 1
        for length, step, side, d, k, extra in zip(sizes, steps, sides, spread, kernel, more, strict=True)
    )


def receptive_field(layers: Module | Iterable[Module], rank: int = 2) -> ReceptiveField:
    """What one output of a chain of layers sees of its input.

    Layers with a `kernel_size` count, in the order in which they are held; the others are taken to work on
    single positions. Each adds dilation (kernel - 1) times the step of what comes before it; strides multiply
    the step. Source: A. Araujo, W. Norris, J. Sim, "Computing receptive fields of convolutional neural
    networks" (2019).
    """
    modules = layers.modules() if isinstance(layers, Module) else (m for x in layers for m in x.modules())
    size, step = [1] * rank, [1] * rank
    for module in modules:
        if not hasattr(module, "kernel_size"):
            continue
        name = type(module).__name__
        if getattr(module, "transposed", False) or max(getattr(module, "input_dilation", (1,))) > 1:
            raise ValueError(
                f"receptive_field: layers must not widen their input, got {module} (ask for those before it)"
            )
        kernel = integers(name, "kernel_size", module.kernel_size, rank, 1)
        stride = integers(name, "stride", module.stride, rank, 1)
        dilation = integers(name, "dilation", getattr(module, "dilation", 1), rank, 1)
        for i in range(rank):
            size[i] += dilation[i] * (kernel[i] - 1) * step[i]
            step[i] *= stride[i]
    return ReceptiveField(tuple(size), tuple(step))


def conv_cost(conv: _ConvNd, size: int | Sequence[int]) -> ConvCost:
    """Parameters, outputs and multiply-adds of a convolution for one sample of spatial `size`.

    Of a transposed convolution too, where each input meets every weight once; additions of the bias are not
    counted.
    """
    sizes = integers("conv_cost", "size", size, conv._rank, 1)
    if conv.transposed:
        out = conv_transpose_output_size(
            sizes, conv.kernel_size, conv.stride, conv.padding, conv.output_padding, conv.dilation
        )
    else:
        spread = [(n - 1) * d + 1 for n, d in zip(sizes, conv.input_dilation, strict=True)]
        out = conv_output_size(spread, conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    positions = math.prod(sizes if conv.transposed else out)
    return ConvCost(
        sum(p.numel() for p in conv.parameters()),
        conv.out_channels * math.prod(out),
        conv.weight.numel() * positions,
    )


def conv_matrix(
    weight: Tensor,
    input_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """The matrix M of a convolution of an input of spatial `input_size`: y.flatten() = M @ x.flatten().

    [K * prod(out), C * prod(input_size)] for `weight` [K, C / groups, kernel...]; its rows are the kernel,
    shifted (a Toeplitz matrix), and its transpose is the matrix of the transposed convolution. Differentiable
    in `weight`.
    """
    rank = weight.dim() - 2
    if not 1 <= rank <= len(_FUNCTIONS):
        raise ValueError(
            f"conv_matrix: weight must have 3 to 5 dimensions [K, C / groups, kernel...], got "
            f"{tuple(weight.shape)} (add dimensions of size 1)"
        )
    sizes = integers("conv_matrix", "input_size", input_size, rank, 1)
    steps = integers("conv_matrix", "stride", stride, rank, 1)
    columns = weight.shape[1] * groups * math.prod(sizes)
    each = eye(columns, dtype=weight.dtype, device=weight.device).reshape(columns, -1, *sizes)
    around = padding_setting("conv_matrix", padding, rank, steps)
    return _FUNCTIONS[rank - 1](each, weight, None, steps, around, dilation, groups).flatten(1).T


def rank1_factors(kernel: Tensor, rank: int = 2) -> tuple[list[Tensor], Tensor]:
    """One vector per axis whose outer product comes closest to a kernel, and how far it is.

    `kernel` [*, k1, ..., k_rank] gives `rank` vectors [*, k_i] and the distance [*] divided by the norm of
    the kernel: 0 for a kernel that is an outer product, which may then be convolved axis by axis. Alternating
    least squares, from the largest element on.
    """
    if not 1 <= rank <= kernel.dim():
        raise ValueError(
            f"rank1_factors: rank must be between 1 and {kernel.dim()} for a kernel {tuple(kernel.shape)}, "
            f"got {rank} (name the last axes)"
        )
    batch, sizes = kernel.shape[: kernel.dim() - rank], kernel.shape[kernel.dim() - rank :]
    x = kernel.detach().reshape(-1, *sizes)
    largest = F.one_hot(x.flatten(1).abs().argmax(1), math.prod(sizes)).to(x.dtype).reshape(x.shape)
    factors = [largest.sum([j + 1 for j in range(rank) if j != i]) for i in range(rank)]

    def along(i: int) -> tuple[int, ...]:
        return (-1, *(sizes[i] if j == i else 1 for j in range(rank)))

    for _ in range(1 if rank == 1 else 50):
        for i in range(rank):
            product = x
            for j in range(rank):
                if j != i:
                    product = (product * factors[j].reshape(along(j))).sum(j + 1, keepdim=True)
            factors[i] = product.reshape(-1, sizes[i])
            if i < rank - 1:
                norm = (factors[i] * factors[i]).sum(1, keepdim=True).sqrt()
                factors[i] = factors[i] / norm.clamp(min=1e-30)
    outer = x * 0 + 1
    for i in range(rank):
        outer = outer * factors[i].reshape(along(i))
    norm = (x * x).flatten(1).sum(1).sqrt().clamp(min=1e-30)
    error = ((x - outer) ** 2).flatten(1).sum(1).sqrt() / norm
    return [f.reshape(*batch, -1) for f in factors], error.reshape(batch)


def separate_conv(conv: _ConvNd, tolerance: float = 1e-5) -> Sequential:
    """A depthwise convolution as one convolution per axis, which does the same with fewer multiplications.

    ValueError where a kernel is not an outer product to within `tolerance`, see `rank1_factors`: then the
    results would differ.
    """
    rank = conv._rank
    if conv.transposed or conv.weight.shape[1] != 1:
        raise ValueError(
            f"separate_conv: conv must be a convolution with one input channel per group, got {conv} "
            "(give it groups=in_channels)"
        )
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros" or conv.input_dilation != (1,) * rank:
        raise ValueError(f"separate_conv: padding must be zeros, given in numbers, got {conv}")
    factors, errors = rank1_factors(conv.weight, rank)
    worst = float(errors.max())
    if worst > tolerance:
        raise ValueError(
            f"separate_conv: kernels must be outer products, got one that is {worst:.3g} of its norm away "
            "(raise tolerance to take the nearest ones)"
        )
    sides = numeric_sides(conv.padding, rank)
    parts: list[Module] = []
    for i, factor in enumerate(factors):
        shape, stride, spread, padding = [1] * rank, [1] * rank, [1] * rank, [0] * (2 * rank)
        shape[i], stride[i], spread[i] = conv.kernel_size[i], conv.stride[i], conv.dilation[i]
        padding[2 * i : 2 * i + 2] = sides[i]
        part = _CONVS[rank - 1](
            conv.in_channels if i == 0 else conv.out_channels,
            conv.out_channels,
            shape,
            stride,
            padding,
            spread,
            conv.groups if i == 0 else conv.out_channels,
            bias=conv.bias is not None and i == rank - 1,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        with no_grad():
            part.weight.copy_(factor.reshape(part.weight.shape))
            if part.bias is not None and conv.bias is not None:
                part.bias.copy_(conv.bias)
        parts.append(part)
    return Sequential(*parts)


def linear_to_conv(linear: Linear, kernel_size: int | Sequence[int] = 1) -> _ConvNd:
    """A convolution that does what `linear` does with flattened features of spatial size `kernel_size`.

    On larger features it gives the outputs of `linear` at every position. One number stands for two axes; the
    number of channels is in_features / prod(kernel_size). Parameters are copied. Source: P. Sermanet et al.,
    "OverFeat" (2013).
    """
    given = isinstance(kernel_size, Sequence)
    sizes = integers("linear_to_conv", "kernel_size", kernel_size, len(kernel_size) if given else 2, 1)
    taps = math.prod(sizes)
    if not 1 <= len(sizes) <= len(_CONVS) or linear.in_features % taps:
        raise ValueError(
            f"linear_to_conv: kernel_size must have 1 to 3 entries whose product divides the "
            f"{linear.in_features} inputs, got {sizes} (pass the spatial size of the features)"
        )
    weight = linear.weight
    conv = _CONVS[len(sizes) - 1](
        linear.in_features // taps,
        linear.out_features,
        sizes,
        bias=linear.bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    with no_grad():
        conv.weight.copy_(weight.reshape(conv.weight.shape))
        if linear.bias is not None:
            conv.bias.copy_(linear.bias)
    return conv


def fully_convolutional(model: Sequential, feature_size: int | Sequence[int]) -> Sequential:
    """A chain of layers with its `Flatten` and linear layers turned into convolutions.

    `feature_size` is the spatial size of what `Flatten` gets for the images that the model was made for. The
    result takes larger images too and gives a map of the model's outputs. Inner `Sequential`s are opened; all
    layers but the linear ones are shared with `model`.
    """

    def opened(module: Module) -> list[Module]:
        if not isinstance(module, Sequential):
            return [module]
        return [layer for child in module.children() for layer in opened(child)]

    layers: list[Module] = []
    kernel: int | Sequence[int] | None = None
    for layer in opened(model):
        if isinstance(layer, Flatten):
            kernel = feature_size
        elif isinstance(layer, Linear):
            if kernel is None:
                raise ValueError(
                    "fully_convolutional: model must have a Flatten before its first Linear, got none "
                    "(pass a Sequential that holds it)"
                )
            layers.append(linear_to_conv(layer, kernel))
            kernel = (1,) * layers[-1]._rank
        else:
            layers.append(layer)
    return Sequential(*layers)
