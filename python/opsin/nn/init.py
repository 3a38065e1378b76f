"""Ways to fill parameters at first; each works in place, records no gradient and returns its tensor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from opsin._C import Tensor
from opsin._left_out import explain as _explain
from opsin.autograd.grad_mode import no_grad

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

_UNIT_GAIN = frozenset(
    (
        "linear",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "sigmoid",
    )
)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance across a nonlinearity.

    `param` is the slope of 'leaky_relu' (0.01).
    """
    if nonlinearity in _UNIT_GAIN:
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"calculate_gain: negative_slope must be a number, got {param!r} (pass a float)")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity == "selu":
        return 3.0 / 4
    raise ValueError(
        f"calculate_gain: unknown nonlinearity, got {nonlinearity!r} "
        "(use linear, sigmoid, tanh, relu, leaky_relu or selu)"
    )


def _fans(op: str, tensor: Tensor) -> tuple[int, int]:
    """(inputs, outputs) of a weight [out, in, *kernel]."""
    if tensor.dim() < 2:
        raise ValueError(
            f"{op}: fan in and fan out need at least 2 dimensions, got {list(tensor.shape)} (use normal_)"
        )
    outputs, inputs, *kernel = tensor.shape
    field = math.prod(kernel)
    return inputs * field, outputs * field


def _fan(op: str, tensor: Tensor, mode: str) -> int:
    if mode.lower() not in ("fan_in", "fan_out"):
        raise ValueError(f"{op}: mode must be 'fan_in' or 'fan_out', got {mode!r} (check the spelling)")
    inputs, outputs = _fans(op, tensor)
    return inputs if mode.lower() == "fan_in" else outputs


def _need_dim(op: str, tensor: Tensor, dims: tuple[int, ...]) -> None:
    if tensor.dim() not in dims:
        words = " or ".join(str(dim) for dim in dims)
        raise ValueError(
            f"{op}: expected a tensor with {words} dimensions, got {list(tensor.shape)} (reshape it)"
        )


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform on [a, b)."""
    with no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with the given mean and standard deviation."""
    with no_grad():
        return tensor.normal_(mean, std, generator=generator)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Any = None,
) -> Tensor:
    """Normal, cut off to [a, b], by the inverse of its distribution function."""

    def cdf(x: float) -> float:
        return (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0

    low, high = cdf((a - mean) / std), cdf((b - mean) / std)
    with no_grad():
        tensor.uniform_(2 * low - 1, 2 * high - 1, generator=generator)
        # erfinv is infinite at +-1, hence the clamp.
        return tensor.copy_(tensor.erfinv().mul(std * math.sqrt(2.0)).add(mean).clamp(a, b))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """All elements `val`."""
    with no_grad():
        return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """All elements 1."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """All elements 0."""
    return constant_(tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix, as far as it fits into [rows, columns]."""
    _need_dim("eye_", tensor, (2,))
    with no_grad():
        tensor.fill_(0)
        for i in range(min(tensor.shape)):
            tensor[i, i] = 1
    return tensor


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution weight [out, in, *kernel] that copies as many channels as it can, per group."""
    _need_dim("dirac_", tensor, (3, 4, 5))
    outputs, inputs, *kernel = tensor.shape
    if groups < 1 or outputs % groups:
        raise ValueError(
            f"dirac_: output channels must be divisible by groups, got {outputs} and groups={groups} "
            "(change groups)"
        )
    per_group = outputs // groups
    centre = tuple(size // 2 for size in kernel)
    with no_grad():
        tensor.fill_(0)
        for group in range(groups):
            for channel in range(min(per_group, inputs)):
                tensor[(group * per_group + channel, channel, *centre)] = 1
    return tensor


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform with variance 2 gain^2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""
    bound = gain * math.sqrt(6.0 / sum(_fans("xavier_uniform_", tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with variance 2 gain^2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_fans("xavier_normal_", tensor))), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """Uniform with variance gain^2 / fan (He et al. 2015); `a` is the negative slope of leaky_relu."""
    if 0 in tensor.shape:
        return tensor
    std = calculate_gain(nonlinearity, a) / math.sqrt(_fan("kaiming_uniform_", tensor, mode))
    bound = math.sqrt(3.0) * std
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """Normal with variance gain^2 / fan (He et al. 2015); `a` is the negative slope of leaky_relu."""
    if 0 in tensor.shape:
        return tensor
    std = calculate_gain(nonlinearity, a) / math.sqrt(_fan("kaiming_normal_", tensor, mode))
    return normal_(tensor, 0.0, std, generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """A random orthogonal matrix, of the first dimension against the rest, times `gain`.

    Rows are orthonormal if there are fewer rows than columns, else columns. Source: Saxe, McClelland and
    Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", 2013.
    """
    from opsin.nn.utils._orthogonal import computable, orthogonalized

    if tensor.dim() < 2:
        raise ValueError(
            f"orthogonal_: expected a tensor with 2 or more dimensions, got {list(tensor.shape)} (reshape it)"
        )
    if tensor.numel() == 0:
        return tensor
    with no_grad():
        flat = computable(tensor.new_empty(tensor.shape).flatten(1)).normal_(0, 1, generator=generator)
        wide = flat.shape[0] < flat.shape[1]
        made = orthogonalized(flat.t() if wide else flat)
        tensor.copy_((made.t() if wide else made).reshape(tensor.shape)).mul_(gain)
    return tensor


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Normal, with the fraction `sparsity` of each column set to zero (Martens 2010)."""
    from opsin import randperm

    _need_dim("sparse_", tensor, (2,))
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    with no_grad():
        tensor.normal_(0, std, generator=generator)
        for column in range(columns):
            tensor[randperm(rows, generator=generator)[:zeros], column] = 0
    return tensor


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        raise AttributeError(_explain("opsin.nn.init", name))
