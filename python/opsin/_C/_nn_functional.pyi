# Made by `make stubs` from the schemas of the ops; edit bindings/_C.pyi.in or the schema.
from collections.abc import Sequence
from typing import Literal, overload

from opsin._C import (
    Tensor,
    _bool,
    _DType,
    _Float,
    _Int,
    _Ints,
)

__all__ = [
    "_interpolate",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "affine_grid",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "channel_shuffle",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_local1d",
    "conv_local2d",
    "conv_local3d",
    "conv_local_transpose1d",
    "conv_local_transpose2d",
    "conv_local_transpose3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "corner_pool",
    "cross_entropy",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elu",
    "embedding",
    "fold",
    "gelu",
    "glu",
    "grid_sample",
    "group_norm",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "huber_loss",
    "instance_norm",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_softmax",
    "logsigmoid",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "mish",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "prelu",
    "relu",
    "relu6",
    "relu_",
    "rms_norm",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "unfold",
]

def _interpolate(
    input: Tensor,
    size: _Ints | None,
    first: _Float | None,
    second: _Float | None,
    third: _Float | None,
    mode: str,
    align_corners: _bool | None,
    recompute_scale_factor: _bool,
    antialias: _bool,
) -> Tensor:
    """What interpolate() calls, with one scale factor for all spatial axes or one for each."""

def adaptive_avg_pool1d(input: Tensor, output_size: _Int | Sequence[_Int | None]) -> Tensor:
    """The mean of windows chosen so that the output has the given size; None keeps a size."""

def adaptive_avg_pool2d(input: Tensor, output_size: _Int | Sequence[_Int | None]) -> Tensor:
    """The mean of windows chosen so that the output has the given size; None keeps a size."""

def adaptive_avg_pool3d(input: Tensor, output_size: _Int | Sequence[_Int | None]) -> Tensor:
    """The mean of windows chosen so that the output has the given size; None keeps a size."""

@overload
def adaptive_max_pool1d(
    input: Tensor, output_size: _Int | Sequence[_Int | None], return_indices: Literal[False] = False
) -> Tensor:
    """The largest value of windows chosen so that the output has the given size; None keeps a size."""

@overload
def adaptive_max_pool1d(
    input: Tensor, output_size: _Int | Sequence[_Int | None], *, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]:
    """The largest value of windows chosen so that the output has the given size; None keeps a size."""

@overload
def adaptive_max_pool1d(
    input: Tensor, output_size: _Int | Sequence[_Int | None], return_indices: _bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest value of windows chosen so that the output has the given size; None keeps a size."""

@overload
def adaptive_max_pool2d(
    input: Tensor, output_size: _Int | Sequence[_Int | None], return_indices: Literal[False] = False
) -> Tensor:
    """The largest value of windows chosen so that the output has the given size; None keeps a size."""

@overload
def adaptive_max_pool2d(
    input: Tensor, output_size: _Int | Sequence[_Int | None], *, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]:
    """The largest value of windows chosen so that the output has the given size; None keeps a size."""

@overload
def adaptive_max_pool2d(
    input: Tensor, output_size: _Int | Sequence[_Int | None], return_indices: _bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest value of windows chosen so that the output has the given size; None keeps a size."""

@overload
def adaptive_max_pool3d(
    input: Tensor, output_size: _Int | Sequence[_Int | None], return_indices: Literal[False] = False
) -> Tensor:
    """The largest value of windows chosen so that the output has the given size; None keeps a size."""

@overload
def adaptive_max_pool3d(
    input: Tensor, output_size: _Int | Sequence[_Int | None], *, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]:
    """The largest value of windows chosen so that the output has the given size; None keeps a size."""

@overload
def adaptive_max_pool3d(
    input: Tensor, output_size: _Int | Sequence[_Int | None], return_indices: _bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest value of windows chosen so that the output has the given size; None keeps a size."""

def affine_grid(theta: Tensor, size: _Ints, align_corners: _bool | None = None) -> Tensor:
    """The grid for grid_sample() of affine maps [N, 2, 3] or [N, 3, 4] and an output of `size`."""

@overload
def avg_pool1d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    ceil_mode: _bool = False,
    count_include_pad: _bool = True,
) -> Tensor:
    """The mean of each window. padding: also as (before, behind), or a name as convolution takes it."""

@overload
def avg_pool1d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    ceil_mode: _bool = False,
    count_include_pad: _bool = True,
) -> Tensor:
    """The mean of each window. padding: also as (before, behind), or a name as convolution takes it."""

@overload
def avg_pool2d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    ceil_mode: _bool = False,
    count_include_pad: _bool = True,
    divisor_override: _Int | None = None,
) -> Tensor:
    """The mean of each window. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def avg_pool2d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    ceil_mode: _bool = False,
    count_include_pad: _bool = True,
    divisor_override: _Int | None = None,
) -> Tensor:
    """The mean of each window. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def avg_pool3d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    ceil_mode: _bool = False,
    count_include_pad: _bool = True,
    divisor_override: _Int | None = None,
) -> Tensor:
    """The mean of each window. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def avg_pool3d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    ceil_mode: _bool = False,
    count_include_pad: _bool = True,
    divisor_override: _Int | None = None,
) -> Tensor:
    """The mean of each window. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: _bool = False,
    momentum: _Float = 0.1,
    eps: _Float = 1e-05,
) -> Tensor:
    """Normalizes each channel of [N, C, spatial...] by the statistics of the batch (training) or the running ones."""

def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y[..., o] = input1[..., i] weight[o, i, j] input2[..., j] + bias[o]."""

def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: _bool | None = None,
    reduce: _bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-(y log x + (1 - y) log(1 - x)) for probabilities x."""

def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: _bool | None = None,
    reduce: _bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """binary_cross_entropy() of sigmoid(x), without overflow."""

def celu(input: Tensor, alpha: _Float = 1.0, inplace: _bool = False) -> Tensor:
    """x for x > 0, else alpha * (e^(x / alpha) - 1)."""

def channel_shuffle(input: Tensor, groups: _Int) -> Tensor:
    """Channels taken from each of `groups` groups in turn."""

@overload
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    groups: _Int = 1,
    *,
    strict: _bool = False,
    input_dilation: _Int | _Ints = 1,
    algorithm: str = "auto",
) -> Tensor:
    """Convolution of input [N, C, L] with weight [K, C / groups, kernel...]. padding: also as (before, behind) for each axis. strict: raise where a stride leaves a rest. input_dilation: zeros are put between the elements of the input. algorithm: 'auto', 'direct', 'im2col', 'fft' or 'winograd', for the gradients too; CUDA has 'auto' and 'direct', its own choice."""

@overload
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: str = "valid",
    dilation: _Int | _Ints = 1,
    groups: _Int = 1,
    *,
    strict: _bool = False,
    input_dilation: _Int | _Ints = 1,
    algorithm: str = "auto",
) -> Tensor:
    """The same with padding 'valid'; 'same' at stride 1; 'same_upper' or 'same_lower' for ceil(size / stride) outputs, where an odd rest goes behind or before; or 'causal', which pads the first axis before alone."""

@overload
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    groups: _Int = 1,
    *,
    strict: _bool = False,
    input_dilation: _Int | _Ints = 1,
    algorithm: str = "auto",
) -> Tensor:
    """Convolution of input [N, C, H, W] with weight [K, C / groups, kernel...]. padding: also as (before, behind) for each axis. strict: raise where a stride leaves a rest. input_dilation: zeros are put between the elements of the input. algorithm: 'auto', 'direct', 'im2col', 'fft' or 'winograd', for the gradients too; CUDA has 'auto' and 'direct', its own choice."""

@overload
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: str = "valid",
    dilation: _Int | _Ints = 1,
    groups: _Int = 1,
    *,
    strict: _bool = False,
    input_dilation: _Int | _Ints = 1,
    algorithm: str = "auto",
) -> Tensor:
    """The same with padding 'valid'; 'same' at stride 1; 'same_upper' or 'same_lower' for ceil(size / stride) outputs, where an odd rest goes behind or before; or 'causal', which pads the first axis before alone."""

@overload
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    groups: _Int = 1,
    *,
    strict: _bool = False,
    input_dilation: _Int | _Ints = 1,
    algorithm: str = "auto",
) -> Tensor:
    """Convolution of input [N, C, D, H, W] with weight [K, C / groups, kernel...]. padding: also as (before, behind) for each axis. strict: raise where a stride leaves a rest. input_dilation: zeros are put between the elements of the input. algorithm: 'auto', 'direct', 'im2col', 'fft' or 'winograd', for the gradients too; CUDA has 'auto' and 'direct', its own choice."""

@overload
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: str = "valid",
    dilation: _Int | _Ints = 1,
    groups: _Int = 1,
    *,
    strict: _bool = False,
    input_dilation: _Int | _Ints = 1,
    algorithm: str = "auto",
) -> Tensor:
    """The same with padding 'valid'; 'same' at stride 1; 'same_upper' or 'same_lower' for ceil(size / stride) outputs, where an odd rest goes behind or before; or 'causal', which pads the first axis before alone."""

def conv_local1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    groups: _Int = 1,
) -> Tensor:
    """Unshared convolution of input [N, C, L] with weight [out..., K, C / groups, kernel...], filters of their own for each position, and bias [K, out...] or [K]."""

def conv_local2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    groups: _Int = 1,
) -> Tensor:
    """Unshared convolution of input [N, C, H, W] with weight [out..., K, C / groups, kernel...], filters of their own for each position, and bias [K, out...] or [K]."""

def conv_local3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    groups: _Int = 1,
) -> Tensor:
    """Unshared convolution of input [N, C, D, H, W] with weight [out..., K, C / groups, kernel...], filters of their own for each position, and bias [K, out...] or [K]."""

def conv_local_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
) -> Tensor:
    """The transpose of conv_local1d in its input: weight [in..., K, C / groups, kernel...] for input [N, K, in...], bias [C, out...] or [C]."""

def conv_local_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
) -> Tensor:
    """The transpose of conv_local2d in its input: weight [in..., K, C / groups, kernel...] for input [N, K, in...], bias [C, out...] or [C]."""

def conv_local_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
) -> Tensor:
    """The transpose of conv_local3d in its input: weight [in..., K, C / groups, kernel...] for input [N, K, in...], bias [C, out...] or [C]."""

@overload
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
    *,
    algorithm: str = "auto",
) -> Tensor:
    """Transposed convolution of input [N, C, L] with weight [C, K / groups, kernel...]. padding: what is cut off the output, also as (before, behind) for each axis. algorithm: as of convolution."""

@overload
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: str = "valid",
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
    *,
    algorithm: str = "auto",
) -> Tensor:
    """The same with padding 'valid', or 'same_upper', 'same_lower' or 'causal' for an output of stride times the size; 'same' at stride 1."""

@overload
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
    *,
    algorithm: str = "auto",
) -> Tensor:
    """Transposed convolution of input [N, C, H, W] with weight [C, K / groups, kernel...]. padding: what is cut off the output, also as (before, behind) for each axis. algorithm: as of convolution."""

@overload
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: str = "valid",
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
    *,
    algorithm: str = "auto",
) -> Tensor:
    """The same with padding 'valid', or 'same_upper', 'same_lower' or 'causal' for an output of stride times the size; 'same' at stride 1."""

@overload
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
    *,
    algorithm: str = "auto",
) -> Tensor:
    """Transposed convolution of input [N, C, D, H, W] with weight [C, K / groups, kernel...]. padding: what is cut off the output, also as (before, behind) for each axis. algorithm: as of convolution."""

@overload
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: str = "valid",
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
    *,
    algorithm: str = "auto",
) -> Tensor:
    """The same with padding 'valid', or 'same_upper', 'same_lower' or 'causal' for an output of stride times the size; 'same' at stride 1."""

def corner_pool(input: Tensor, direction: str) -> Tensor:
    """The largest value from each pixel down ('top'), up ('bottom'), to the right ('left') or to the left ('right')."""

def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: _bool | None = None,
    ignore_index: _Int = -100,
    reduce: _bool | None = None,
    reduction: str = "mean",
    label_smoothing: _Float = 0.0,
) -> Tensor:
    """Minus the log-likelihood of the right class after a softmax over the classes of scores [N, C, spatial...]; `target` holds classes [N, spatial...] or probabilities [N, C, spatial...]."""

def dropout(input: Tensor, p: _Float = 0.5, training: _bool = True, inplace: _bool = False) -> Tensor:
    """In training, zeroes each element with probability p and multiplies the others by 1 / (1 - p)."""

def dropout1d(input: Tensor, p: _Float = 0.5, training: _bool = True, inplace: _bool = False) -> Tensor:
    """dropout() of whole channels of input [N, C, L] or [C, L]."""

def dropout2d(input: Tensor, p: _Float = 0.5, training: _bool = True, inplace: _bool = False) -> Tensor:
    """dropout() of whole channels of input [N, C, H, W] or [C, H, W]."""

def dropout3d(input: Tensor, p: _Float = 0.5, training: _bool = True, inplace: _bool = False) -> Tensor:
    """dropout() of whole channels of input [N, C, D, H, W] or [C, D, H, W]."""

def elu(input: Tensor, alpha: _Float = 1.0, inplace: _bool = False) -> Tensor:
    """x for x > 0, else alpha * (e^x - 1)."""

def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: _Int | None = None,
    max_norm: _Float | None = None,
    norm_type: _Float = 2.0,
    scale_grad_by_freq: _bool = False,
    sparse: _bool = False,
) -> Tensor:
    """A row of `weight` [V, D] for each index: [...] -> [..., D]."""

def fold(
    input: Tensor,
    output_size: _Int | _Ints,
    kernel_size: _Int | _Ints,
    dilation: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    stride: _Int | _Ints = 1,
) -> Tensor:
    """The sum of columns [N, C * kernel, L] where their windows lie in an output [N, C, output_size...] of one to three spatial axes; a single number stands for two."""

def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """x * Phi(x), or its tanh form."""

def glu(input: Tensor, dim: _Int = -1) -> Tensor:
    """The first half along dim times the sigmoid of the second."""

def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: _bool | None = None,
) -> Tensor:
    """`input` at the points of `grid`, whose last dimension is (x, y) or (x, y, z) from -1 to 1. mode: 'bilinear', 'nearest' or 'bicubic'; padding_mode: 'zeros', 'border' or 'reflection'. NaN counts as -1."""

def group_norm(
    input: Tensor,
    num_groups: _Int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: _Float = 1e-05,
) -> Tensor:
    """Normalizes groups of channels of each sample of [N, C, spatial...]."""

def hardshrink(input: Tensor, lambd: _Float = 0.5) -> Tensor:
    """x, but 0 within [-lambd, lambd]."""

def hardsigmoid(input: Tensor, inplace: _bool = False) -> Tensor:
    """relu6(x + 3) / 6."""

def hardswish(input: Tensor, inplace: _bool = False) -> Tensor:
    """x * relu6(x + 3) / 6."""

def hardtanh(input: Tensor, min_val: _Float = -1.0, max_val: _Float = 1.0, inplace: _bool = False) -> Tensor:
    """x kept in [min_val, max_val]."""

def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: _Float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """(x - y)^2 / 2 where |x - y| <= delta, else delta (|x - y| - delta / 2)."""

def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: _bool = True,
    momentum: _Float = 0.1,
    eps: _Float = 1e-05,
) -> Tensor:
    """Normalizes each channel of each sample of [N, C, spatial...], or by running statistics."""

def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: _bool | None = None,
    reduce: _bool | None = None,
    reduction: str = "mean",
    log_target: _bool = False,
) -> Tensor:
    """The divergence y (log y - x) of log-probabilities x from probabilities y."""

def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: _bool | None = None,
    reduce: _bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """The absolute difference |x - y|."""

def layer_norm(
    input: Tensor,
    normalized_shape: _Ints,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: _Float = 1e-05,
) -> Tensor:
    """Normalizes over the last dimensions, whose sizes are normalized_shape."""

def leaky_relu(input: Tensor, negative_slope: _Float = 0.01, inplace: _bool = False) -> Tensor:
    """x for x > 0, else negative_slope * x."""

def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b for input [..., in], weight [out, in] and bias [out]."""

def local_response_norm(
    input: Tensor, size: _Int, alpha: _Float = 0.0001, beta: _Float = 0.75, k: _Float = 1.0
) -> Tensor:
    """Divides by (k + alpha mean(x^2))^beta over `size` channels around each of [N, C, spatial...]."""

def log_softmax(
    input: Tensor, dim: _Int | None = None, _stacklevel: _Int = 3, dtype: _DType | None = None
) -> Tensor:
    """x - log(sum(exp(x))) along a dimension."""

def logsigmoid(input: Tensor) -> Tensor:
    """ln(sigmoid(x)), without overflow."""

@overload
def lp_pool1d(
    input: Tensor,
    norm_type: _Float,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    ceil_mode: _bool = False,
    *,
    padding: _Int | _Ints = 0,
) -> Tensor:
    """The norm of each window: (sum of x^norm_type)^(1 / norm_type). padding, which adds nothing: one entry, one or (before, behind) for each axis, or a name as convolution takes it."""

@overload
def lp_pool1d(
    input: Tensor,
    norm_type: _Float,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    ceil_mode: _bool = False,
    *,
    padding: str = "valid",
) -> Tensor:
    """The norm of each window: (sum of x^norm_type)^(1 / norm_type). padding, which adds nothing: one entry, one or (before, behind) for each axis, or a name as convolution takes it."""

@overload
def lp_pool2d(
    input: Tensor,
    norm_type: _Float,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    ceil_mode: _bool = False,
    *,
    padding: _Int | _Ints = 0,
) -> Tensor:
    """The norm of each window: (sum of x^norm_type)^(1 / norm_type). padding, which adds nothing: one entry, one or (before, behind) for each axis, or a name as convolution takes it."""

@overload
def lp_pool2d(
    input: Tensor,
    norm_type: _Float,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    ceil_mode: _bool = False,
    *,
    padding: str = "valid",
) -> Tensor:
    """The norm of each window: (sum of x^norm_type)^(1 / norm_type). padding, which adds nothing: one entry, one or (before, behind) for each axis, or a name as convolution takes it."""

@overload
def lp_pool3d(
    input: Tensor,
    norm_type: _Float,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    ceil_mode: _bool = False,
    *,
    padding: _Int | _Ints = 0,
) -> Tensor:
    """The norm of each window: (sum of x^norm_type)^(1 / norm_type). padding, which adds nothing: one entry, one or (before, behind) for each axis, or a name as convolution takes it."""

@overload
def lp_pool3d(
    input: Tensor,
    norm_type: _Float,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    ceil_mode: _bool = False,
    *,
    padding: str = "valid",
) -> Tensor:
    """The norm of each window: (sum of x^norm_type)^(1 / norm_type). padding, which adds nothing: one entry, one or (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool1d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    return_indices: Literal[False] = False,
) -> Tensor:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool1d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool1d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    return_indices: Literal[False] = False,
) -> Tensor:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool1d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool1d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    return_indices: _bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool1d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    return_indices: _bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool2d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    return_indices: Literal[False] = False,
) -> Tensor:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool2d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool2d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    return_indices: Literal[False] = False,
) -> Tensor:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool2d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool2d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    return_indices: _bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool2d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    return_indices: _bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool3d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    return_indices: Literal[False] = False,
) -> Tensor:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool3d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool3d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    return_indices: Literal[False] = False,
) -> Tensor:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool3d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool3d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    return_indices: _bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_pool3d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    dilation: _Int | _Ints = 1,
    ceil_mode: _bool = False,
    return_indices: _bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest value of each window; with return_indices also its flat position in the input's spatial axes. padding: also as (before, behind) for each axis, or a name as convolution takes it."""

@overload
def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    output_size: _Ints | None = None,
) -> Tensor:
    """Zeros with the values of `input` at the positions that max pooling returned. padding: as that pooling had it; by a name other than 'valid' the output is `stride` times as large."""

@overload
def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    output_size: _Ints | None = None,
) -> Tensor:
    """Zeros with the values of `input` at the positions that max pooling returned. padding: as that pooling had it; by a name other than 'valid' the output is `stride` times as large."""

@overload
def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    output_size: _Ints | None = None,
) -> Tensor:
    """Zeros with the values of `input` at the positions that max pooling returned. padding: as that pooling had it; by a name other than 'valid' the output is `stride` times as large."""

@overload
def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    output_size: _Ints | None = None,
) -> Tensor:
    """Zeros with the values of `input` at the positions that max pooling returned. padding: as that pooling had it; by a name other than 'valid' the output is `stride` times as large."""

@overload
def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: _Int | _Ints = 0,
    output_size: _Ints | None = None,
) -> Tensor:
    """Zeros with the values of `input` at the positions that max pooling returned. padding: as that pooling had it; by a name other than 'valid' the output is `stride` times as large."""

@overload
def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: _Int | _Ints,
    stride: _Int | _Ints | None = None,
    padding: str = "valid",
    output_size: _Ints | None = None,
) -> Tensor:
    """Zeros with the values of `input` at the positions that max pooling returned. padding: as that pooling had it; by a name other than 'valid' the output is `stride` times as large."""

def mish(input: Tensor, inplace: _bool = False) -> Tensor:
    """x * tanh(softplus(x))."""

def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: _bool | None = None,
    reduce: _bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """The squared difference (x - y)^2."""

def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: _bool | None = None,
    ignore_index: _Int = -100,
    reduce: _bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log-probability [N, C, spatial...] of the right class [N, spatial...]."""

def normalize(input: Tensor, p: _Float = 2.0, dim: _Int | _Ints = 1, eps: _Float = 1e-12) -> Tensor:
    """x / max(||x||_p, eps) along a dimension."""

def one_hot(tensor: Tensor, num_classes: _Int = -1) -> Tensor:
    """int64 [..., num_classes] with a 1 at each class of `tensor` [...]; -1 takes as many as needed."""

def pad(input: Tensor, pad: _Ints, mode: str = "constant", value: _Float | None = None) -> Tensor:
    """Pads with (before, after) pairs from the last dimension backwards; negative numbers crop. mode: 'constant', 'reflect', 'replicate' or 'circular'."""

def pixel_shuffle(input: Tensor, upscale_factor: _Int) -> Tensor:
    """[..., C r^2, H, W] -> [..., C, H r, W r] with r = upscale_factor."""

def pixel_unshuffle(input: Tensor, downscale_factor: _Int) -> Tensor:
    """[..., C, H r, W r] -> [..., C r^2, H, W] with r = downscale_factor."""

def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x for x > 0, else weight * x; weight [] or [1] or [C] for input [N, C, ...]."""

def relu(input: Tensor, inplace: _bool = False) -> Tensor:
    """max(0, x)."""

def relu6(input: Tensor, inplace: _bool = False) -> Tensor:
    """x kept in [0, 6]."""

def relu_(input: Tensor) -> Tensor:
    """In-place version of relu."""

def rms_norm(
    input: Tensor, normalized_shape: _Ints, weight: Tensor | None = None, eps: _Float | None = None
) -> Tensor:
    """Divides by the root mean square over the last dimensions, whose sizes are normalized_shape."""

def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: _Float = 0.0,
    is_causal: _bool = False,
    scale: _Float | None = None,
    enable_gqa: _bool = False,
) -> Tensor:
    """softmax(scale query key^T + attn_mask) value for query [..., H, L, E], key [..., H, S, E] and value [..., H, S, Ev], without the L x S matrix; a bool mask says where a query may look."""

def selu(input: Tensor, inplace: _bool = False) -> Tensor:
    """elu scaled so that mean 0 and variance 1 are a fixed point."""

def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e^-x)."""

def silu(input: Tensor, inplace: _bool = False) -> Tensor:
    """x * sigmoid(x)."""

def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: _bool | None = None,
    reduce: _bool | None = None,
    reduction: str = "mean",
    beta: _Float = 1.0,
) -> Tensor:
    """(x - y)^2 / (2 beta) where |x - y| < beta, else |x - y| - beta / 2."""

def softmax(
    input: Tensor, dim: _Int | None = None, _stacklevel: _Int = 3, dtype: _DType | None = None
) -> Tensor:
    """exp(x) / sum(exp(x)) along a dimension."""

def softmin(
    input: Tensor, dim: _Int | None = None, _stacklevel: _Int = 3, dtype: _DType | None = None
) -> Tensor:
    """softmax(-x) along a dimension."""

def softplus(input: Tensor, beta: _Float = 1.0, threshold: _Float = 20.0) -> Tensor:
    """ln(1 + e^(beta * x)) / beta; x itself where beta * x > threshold."""

def softshrink(input: Tensor, lambd: _Float = 0.5) -> Tensor:
    """x moved towards 0 by lambd, 0 within."""

def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""

def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""

def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""

def threshold(input: Tensor, threshold: _Float, value: _Float, inplace: _bool = False) -> Tensor:
    """x above the threshold, else value."""

@overload
def unfold(
    input: Tensor,
    kernel_size: _Int,
    dilation: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    stride: _Int | _Ints = 1,
) -> Tensor:
    """The windows of images [N, C, H, W] or volumes [N, C, D, H, W] as columns [N, C * kernel, L]."""

@overload
def unfold(
    input: Tensor,
    kernel_size: _Ints,
    dilation: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    stride: _Int | _Ints = 1,
) -> Tensor:
    """The same with one to three sizes for as many spatial axes; padding: also as (before, behind) for each."""
