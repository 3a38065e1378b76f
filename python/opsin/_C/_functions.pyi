# Made by `make stubs` from the schemas of the ops; edit bindings/_C.pyi.in or the schema.
from collections.abc import Sequence
from typing import Literal, overload

from opsin._C import (
    Generator,
    Tensor,
    _bool,
    _Device,
    _DType,
    _Float,
    _Int,
    _Ints,
    _memory_format,
    _MinMax,
    _Number,
    _Operand,
    _ValuesIndices,
)

__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "add",
    "addbmm",
    "addcdiv",
    "addcmul",
    "addmm",
    "addmv",
    "addr",
    "all",
    "allclose",
    "amax",
    "amin",
    "aminmax",
    "any",
    "arange",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "argmax",
    "argmin",
    "argsort",
    "argwhere",
    "as_strided",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "baddbmm",
    "bernoulli",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "block_diag",
    "bmm",
    "broadcast_tensors",
    "broadcast_to",
    "cat",
    "ceil",
    "chunk",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "clone",
    "column_stack",
    "concat",
    "concatenate",
    "copysign",
    "cos",
    "cosh",
    "count_nonzero",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "deg2rad",
    "detach",
    "diag",
    "diag_embed",
    "diagflat",
    "diagonal",
    "diagonal_scatter",
    "digamma",
    "div",
    "divide",
    "dot",
    "dsplit",
    "dstack",
    "empty",
    "empty_like",
    "empty_strided",
    "eq",
    "equal",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "eye",
    "fix",
    "flatten",
    "flip",
    "fliplr",
    "flipud",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "frac",
    "full",
    "full_like",
    "gather",
    "gcd",
    "ge",
    "greater",
    "greater_equal",
    "gru",
    "gru_cell",
    "gt",
    "hsplit",
    "hstack",
    "hypot",
    "index_add",
    "index_copy",
    "index_fill",
    "index_put",
    "index_select",
    "inner",
    "isclose",
    "isfinite",
    "isin",
    "isinf",
    "isnan",
    "isneginf",
    "isposinf",
    "kron",
    "kthvalue",
    "lcm",
    "ldexp",
    "le",
    "lerp",
    "less",
    "less_equal",
    "lgamma",
    "linspace",
    "log",
    "log1p",
    "log2",
    "log10",
    "log_softmax",
    "logaddexp",
    "logaddexp2",
    "logcumsumexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logit",
    "logspace",
    "logsumexp",
    "lstm",
    "lstm_cell",
    "lt",
    "masked_fill",
    "masked_scatter",
    "masked_select",
    "matmul",
    "max",
    "maximum",
    "mean",
    "median",
    "meshgrid",
    "min",
    "minimum",
    "mm",
    "moveaxis",
    "movedim",
    "mul",
    "multinomial",
    "multiply",
    "mv",
    "nan_to_num",
    "nanmean",
    "nansum",
    "narrow",
    "ne",
    "neg",
    "negative",
    "nonzero",
    "norm",
    "normal",
    "not_equal",
    "ones",
    "ones_like",
    "outer",
    "permute",
    "polygamma",
    "positive",
    "pow",
    "prelu",
    "prod",
    "rad2deg",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "ravel",
    "reciprocal",
    "relu",
    "remainder",
    "repeat_interleave",
    "reshape",
    "rnn_relu",
    "rnn_relu_cell",
    "rnn_tanh",
    "rnn_tanh_cell",
    "roll",
    "rot90",
    "round",
    "row_stack",
    "rsqrt",
    "rsub",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "select",
    "select_scatter",
    "sigmoid",
    "sign",
    "signbit",
    "sin",
    "sinc",
    "sinh",
    "slice_scatter",
    "softmax",
    "sort",
    "split",
    "split_with_sizes",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "std_mean",
    "sub",
    "subtract",
    "sum",
    "swapaxes",
    "swapdims",
    "t",
    "take",
    "take_along_dim",
    "tan",
    "tanh",
    "tensor_split",
    "tile",
    "topk",
    "trace",
    "transpose",
    "tril",
    "tril_indices",
    "triu",
    "triu_indices",
    "true_divide",
    "trunc",
    "unbind",
    "unflatten",
    "unsqueeze",
    "var",
    "var_mean",
    "vsplit",
    "vstack",
    "where",
    "xlogy",
    "zeros",
    "zeros_like",
]

def abs(input: Tensor) -> Tensor:
    """The absolute value, |x|."""

def absolute(input: Tensor) -> Tensor:
    """The same as abs."""

def acos(input: Tensor) -> Tensor:
    """The inverse cosine, in [0, pi]."""

def acosh(input: Tensor) -> Tensor:
    """The inverse hyperbolic cosine."""

def add(input: _Operand, other: _Operand, *, alpha: _Number = 1) -> Tensor:
    """self + alpha * other."""

def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: _Number = 1, alpha: _Number = 1) -> Tensor:
    """beta * self + alpha * the sum over batches of (batch1 x batch2)."""

def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: _Number = 1) -> Tensor:
    """self + value * tensor1 / tensor2."""

def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: _Number = 1) -> Tensor:
    """self + value * tensor1 * tensor2."""

def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: _Number = 1, alpha: _Number = 1) -> Tensor:
    """beta * self + alpha * (mat1 x mat2)."""

def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: _Number = 1, alpha: _Number = 1) -> Tensor:
    """beta * self + alpha * (mat x vec)."""

def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: _Number = 1, alpha: _Number = 1) -> Tensor:
    """beta * self + alpha * (vec1 outer vec2)."""

def all(input: Tensor, dim: _Int | _Ints | None = None, keepdim: _bool = False) -> Tensor:
    """Whether all elements are non-zero; bool, but uint8 for uint8."""

def allclose(
    input: Tensor, other: Tensor, rtol: _Float = 1e-05, atol: _Float = 1e-08, equal_nan: _bool = False
) -> _bool:
    """Whether |self - other| <= atol + rtol * |other| everywhere."""

def amax(input: Tensor, dim: _Int | _Ints = ..., keepdim: _bool = False) -> Tensor:
    """The largest elements over dimensions; ties share the gradient evenly."""

def amin(input: Tensor, dim: _Int | _Ints = ..., keepdim: _bool = False) -> Tensor:
    """The smallest elements over dimensions; ties share the gradient evenly."""

def aminmax(input: Tensor, *, dim: _Int | None = None, keepdim: _bool = False) -> _MinMax:
    """The smallest and the largest elements."""

def any(input: Tensor, dim: _Int | _Ints | None = None, keepdim: _bool = False) -> Tensor:
    """Whether any element is non-zero; bool, but uint8 for uint8."""

@overload
def arange(
    end: _Number, *, dtype: _DType | None = None, device: _Device | None = None, requires_grad: _bool = False
) -> Tensor:
    """0, 1, ... below end."""

@overload
def arange(
    start: _Number,
    end: _Number,
    step: _Number = 1,
    *,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """start, start + step, ... below end."""

def arccos(input: Tensor) -> Tensor:
    """The same as acos."""

def arccosh(input: Tensor) -> Tensor:
    """The same as acosh."""

def arcsin(input: Tensor) -> Tensor:
    """The same as asin."""

def arcsinh(input: Tensor) -> Tensor:
    """The same as asinh."""

def arctan(input: Tensor) -> Tensor:
    """The same as atan."""

def arctan2(input: _Operand, other: _Operand) -> Tensor:
    """The same as atan2."""

def arctanh(input: Tensor) -> Tensor:
    """The same as atanh."""

def argmax(input: Tensor, dim: _Int | None = None, keepdim: _bool = False) -> Tensor:
    """Where the largest element comes first; in the flattened tensor without `dim`."""

def argmin(input: Tensor, dim: _Int | None = None, keepdim: _bool = False) -> Tensor:
    """Where the smallest element comes first; in the flattened tensor without `dim`."""

@overload
def argsort(input: Tensor, dim: _Int = -1, descending: _bool = False) -> Tensor:
    """Where the sorted values are."""

@overload
def argsort(input: Tensor, *, stable: _bool = False, dim: _Int = -1, descending: _bool = False) -> Tensor:
    """The same; sorting is always stable."""

def argwhere(input: Tensor) -> Tensor:
    """The indices of the nonzero elements in row-major order, int64 [count, rank]."""

def as_strided(input: Tensor, size: _Ints, stride: _Ints, storage_offset: _Int | None = None) -> Tensor:
    """Any geometry over the storage of `self`."""

def asin(input: Tensor) -> Tensor:
    """The inverse sine, in [-pi/2, pi/2]."""

def asinh(input: Tensor) -> Tensor:
    """The inverse hyperbolic sine."""

def atan(input: Tensor) -> Tensor:
    """The inverse tangent, in [-pi/2, pi/2]."""

def atan2(input: _Operand, other: _Operand) -> Tensor:
    """The angle of the point (x=other, y=self), in [-pi, pi]."""

def atanh(input: Tensor) -> Tensor:
    """The inverse hyperbolic tangent."""

@overload
def atleast_1d(tensor: Tensor) -> Tensor:
    """At least one dimension."""

@overload
def atleast_1d(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """At least one dimension each."""

@overload
def atleast_1d(*tensors: Tensor) -> tuple[Tensor, ...]:
    """At least one dimension each."""

@overload
def atleast_2d(tensor: Tensor) -> Tensor:
    """At least two dimensions; vectors become rows."""

@overload
def atleast_2d(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """At least two dimensions each."""

@overload
def atleast_2d(*tensors: Tensor) -> tuple[Tensor, ...]:
    """At least two dimensions each."""

@overload
def atleast_3d(tensor: Tensor) -> Tensor:
    """At least three dimensions: [n] as [1, n, 1], [m, n] as [m, n, 1]."""

@overload
def atleast_3d(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """At least three dimensions each."""

@overload
def atleast_3d(*tensors: Tensor) -> tuple[Tensor, ...]:
    """At least three dimensions each."""

def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: _Number = 1, alpha: _Number = 1
) -> Tensor:
    """beta * self + alpha * (batch1 x batch2), batch by batch."""

@overload
def bernoulli(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that each element gives, else 0."""

@overload
def bernoulli(input: Tensor, p: _Float, *, generator: Generator | None = None) -> Tensor:
    """1 with probability p, else 0, in the shape of `self`."""

def bitwise_and(input: _Operand, other: _Operand) -> Tensor:
    """Bitwise and of integers or bools."""

def bitwise_left_shift(input: _Operand, other: _Operand) -> Tensor:
    """self * 2^other for integers."""

def bitwise_not(input: Tensor) -> Tensor:
    """Every bit inverted; of a bool, logical not."""

def bitwise_or(input: _Operand, other: _Operand) -> Tensor:
    """Bitwise or of integers or bools."""

def bitwise_right_shift(input: _Operand, other: _Operand) -> Tensor:
    """self / 2^other for integers, rounded down."""

def bitwise_xor(input: _Operand, other: _Operand) -> Tensor:
    """Bitwise exclusive or of integers or bools."""

@overload
def block_diag(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors along the diagonal of a matrix of zeros; vectors are rows."""

@overload
def block_diag(*tensors: Tensor) -> Tensor:
    """The tensors along the diagonal of a matrix of zeros; vectors are rows."""

def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """[b, m, k] x [b, k, n] -> [b, m, n]."""

@overload
def broadcast_tensors(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """All tensors expanded to their common shape."""

@overload
def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All tensors expanded to their common shape."""

def broadcast_to(input: Tensor, size: _Ints) -> Tensor:
    """Repeats dimensions of size 1 without copying; -1 keeps a size."""

def cat(tensors: Sequence[Tensor], dim: _Int = 0) -> Tensor:
    """The tensors one after the other along dimension `dim`; other sizes must agree."""

def ceil(input: Tensor) -> Tensor:
    """The smallest integer that is not less."""

def chunk(input: Tensor, chunks: _Int, dim: _Int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` parts of equal size along `dim`; the last one may be smaller."""

def clamp(input: Tensor, min: _Operand | None = None, max: _Operand | None = None) -> Tensor:
    """self kept in [min, max]; max wins if they cross."""

def clamp_max(input: Tensor, max: _Operand) -> Tensor:
    """The smaller of self and max."""

def clamp_min(input: Tensor, min: _Operand) -> Tensor:
    """The larger of self and min."""

def clip(input: Tensor, min: _Operand | None = None, max: _Operand | None = None) -> Tensor:
    """The same as clamp."""

def clone(input: Tensor, *, memory_format: _memory_format | None = None) -> Tensor:
    """A copy with its own memory."""

def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Joins along dimension 1; vectors are columns."""

def concat(tensors: Sequence[Tensor], dim: _Int = 0) -> Tensor:
    """The tensors one after the other along dimension `dim`; other sizes must agree."""

def concatenate(tensors: Sequence[Tensor], dim: _Int = 0) -> Tensor:
    """The tensors one after the other along dimension `dim`; other sizes must agree."""

def copysign(input: _Operand, other: _Operand) -> Tensor:
    """The size of self with the sign of other."""

def cos(input: Tensor) -> Tensor:
    """The cosine of an angle in radians."""

def cosh(input: Tensor) -> Tensor:
    """The hyperbolic cosine."""

def count_nonzero(input: Tensor, dim: _Int | _Ints | None = None) -> Tensor:
    """How many elements are non-zero, as int64."""

def cummax(input: Tensor, dim: _Int) -> _ValuesIndices:
    """The largest element so far along a dimension and where it is."""

def cummin(input: Tensor, dim: _Int) -> _ValuesIndices:
    """The smallest element so far along a dimension and where it is."""

def cumprod(input: Tensor, dim: _Int, *, dtype: _DType | None = None) -> Tensor:
    """Running products along a dimension."""

def cumsum(input: Tensor, dim: _Int, *, dtype: _DType | None = None) -> Tensor:
    """Running sums along a dimension."""

def deg2rad(input: Tensor) -> Tensor:
    """Degrees to radians."""

def detach(input: Tensor) -> Tensor:
    """The same memory outside the graph."""

def diag(input: Tensor, diagonal: _Int = 0) -> Tensor:
    """The diagonal of a matrix, or the matrix with a vector as its diagonal."""

def diag_embed(input: Tensor, offset: _Int = 0, dim1: _Int = -2, dim2: _Int = -1) -> Tensor:
    """Matrices of zeros with the last dimension of `self` as their diagonals."""

def diagflat(input: Tensor, offset: _Int = 0) -> Tensor:
    """The matrix with all elements of `self` as its diagonal."""

def diagonal(input: Tensor, offset: _Int = 0, dim1: _Int = 0, dim2: _Int = 1) -> Tensor:
    """The diagonals of the matrices in dimensions dim1 and dim2, as a new last dimension."""

def diagonal_scatter(input: Tensor, src: Tensor, offset: _Int = 0, dim1: _Int = 0, dim2: _Int = 1) -> Tensor:
    """`self` with `src` in place of its diagonals."""

def digamma(input: Tensor) -> Tensor:
    """The derivative of lgamma."""

def div(input: _Operand, other: _Operand, *, rounding_mode: str | None = None) -> Tensor:
    """self / other: floating point also for integers, or rounded by 'trunc' or 'floor'."""

def divide(input: _Operand, other: _Operand, *, rounding_mode: str | None = None) -> Tensor:
    """self / other: floating point also for integers, or rounded by 'trunc' or 'floor'."""

def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The scalar product of two vectors."""

@overload
def dsplit(input: Tensor, sections: _Int) -> tuple[Tensor, ...]:
    """Equal parts along dimension 2."""

@overload
def dsplit(input: Tensor, indices: _Ints) -> tuple[Tensor, ...]:
    """Parts along dimension 2 that end before each of the indices."""

def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joins along dimension 2, after adding it where it is missing."""

@overload
def empty(
    size: _Ints,
    *,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
    memory_format: _memory_format | None = None,
) -> Tensor:
    """A tensor whose values are not set."""

@overload
def empty(
    *size: _Int,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
    memory_format: _memory_format | None = None,
) -> Tensor:
    """A tensor whose values are not set."""

def empty_like(
    input: Tensor,
    *,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
    memory_format: _memory_format | None = None,
) -> Tensor:
    """Unset values in the shape and dtype of `input`."""

def empty_strided(
    size: _Ints,
    stride: _Ints,
    *,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """A tensor with the given strides whose values are not set."""

def eq(input: _Operand, other: _Operand) -> Tensor:
    """Whether self == other."""

def equal(input: Tensor, other: Tensor) -> _bool:
    """Whether both have the same shape and values."""

def erf(input: Tensor) -> Tensor:
    """The error function, 2/sqrt(pi) times the integral of e^(-t^2) from 0 to x."""

def erfc(input: Tensor) -> Tensor:
    """The complementary error function, 1 - erf(x)."""

def erfinv(input: Tensor) -> Tensor:
    """The inverse of erf; infinite at -1 and 1, NaN beyond."""

def exp(input: Tensor) -> Tensor:
    """The exponential, e^x."""

def exp2(input: Tensor) -> Tensor:
    """2^x."""

def expm1(input: Tensor) -> Tensor:
    """e^x - 1, exact near 0."""

@overload
def eye(
    n: _Int, *, dtype: _DType | None = None, device: _Device | None = None, requires_grad: _bool = False
) -> Tensor:
    """[n, n] with ones on the diagonal."""

@overload
def eye(
    n: _Int,
    m: _Int,
    *,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """[n, m] with ones on the diagonal."""

def fix(input: Tensor) -> Tensor:
    """The same as trunc."""

def flatten(input: Tensor, start_dim: _Int = 0, end_dim: _Int = -1) -> Tensor:
    """Dimensions start_dim to end_dim as one; a view where strides allow it, else a copy."""

@overload
def flip(input: Tensor, dims: _Ints) -> Tensor:
    """A copy with the order of the dimensions reversed."""

@overload
def flip(input: Tensor, *dims: _Int) -> Tensor:
    """A copy with the order of the dimensions reversed."""

def fliplr(input: Tensor) -> Tensor:
    """A copy with the order of dimension 1 reversed."""

def flipud(input: Tensor) -> Tensor:
    """A copy with the order of dimension 0 reversed."""

def floor(input: Tensor) -> Tensor:
    """The largest integer that is not greater."""

def floor_divide(input: _Operand, other: _Operand) -> Tensor:
    """The quotient rounded down."""

def fmax(input: _Operand, other: _Operand) -> Tensor:
    """The larger of both operands; NaN only if both are."""

def fmin(input: _Operand, other: _Operand) -> Tensor:
    """The smaller of both operands; NaN only if both are."""

def fmod(input: _Operand, other: _Operand) -> Tensor:
    """a - b * trunc(a / b), with the sign of a."""

def frac(input: Tensor) -> Tensor:
    """What follows the point: x - trunc(x)."""

def full(
    size: _Ints,
    fill_value: _Number,
    *,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """A tensor of one value; its dtype is the value's unless given."""

def full_like(
    input: Tensor,
    fill_value: _Number,
    *,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
    memory_format: _memory_format | None = None,
) -> Tensor:
    """One value in the shape and dtype of `input`."""

def gather(input: Tensor, dim: _Int, index: Tensor) -> Tensor:
    """y[i, j, k] = self[index[i, j, k], j, k] for dim 0, and so on; the result has the shape of `index`."""

def gcd(input: _Operand, other: _Operand) -> Tensor:
    """The greatest common divisor of two integers."""

def ge(input: _Operand, other: _Operand) -> Tensor:
    """Whether self >= other."""

def greater(input: _Operand, other: _Operand) -> Tensor:
    """The same as gt."""

def greater_equal(input: _Operand, other: _Operand) -> Tensor:
    """The same as ge."""

@overload
def gru(
    input: Tensor,
    hx: Tensor,
    params: Sequence[Tensor],
    has_biases: _bool,
    num_layers: _Int,
    dropout: _Float,
    train: _bool,
    bidirectional: _bool,
    batch_first: _bool,
) -> tuple[Tensor, Tensor]:
    """Layers over sequences [T, N, I], with the weights of each layer and direction."""

@overload
def gru(
    data: Tensor,
    batch_sizes: Tensor,
    hx: Tensor,
    params: Sequence[Tensor],
    has_biases: _bool,
    num_layers: _Int,
    dropout: _Float,
    train: _bool,
    bidirectional: _bool,
) -> tuple[Tensor, Tensor]:
    """Layers over packed sequences [rows, I], of which step t has batch_sizes[t]."""

def gru_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of a GRU for input [N, I] and hx [N, H]."""

def gt(input: _Operand, other: _Operand) -> Tensor:
    """Whether self > other."""

@overload
def hsplit(input: Tensor, sections: _Int) -> tuple[Tensor, ...]:
    """Equal parts along dimension 1, or 0 for vectors."""

@overload
def hsplit(input: Tensor, indices: _Ints) -> tuple[Tensor, ...]:
    """Parts along dimension 1, or 0 for vectors, that end before each of the indices."""

def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joins along dimension 1, or 0 for vectors."""

def hypot(input: _Operand, other: _Operand) -> Tensor:
    """sqrt(self^2 + other^2)."""

def index_add(input: Tensor, dim: _Int, index: Tensor, source: Tensor, *, alpha: _Number = 1) -> Tensor:
    """`self` with alpha * source added to the entries `index` of dimension `dim`; repeated ones add up in order."""

def index_copy(input: Tensor, dim: _Int, index: Tensor, source: Tensor) -> Tensor:
    """`self` with `source` written over the entries `index` of dimension `dim`."""

def index_fill(input: Tensor, dim: _Int, index: Tensor, value: _Operand) -> Tensor:
    """`self` with `value` (0-d) written over the entries `index` of dimension `dim`."""

def index_put(input: Tensor, indices: Sequence[Tensor], values: Tensor, accumulate: _bool = False) -> Tensor:
    """A copy of `self` after index_put_."""

def index_select(input: Tensor, dim: _Int, index: Tensor) -> Tensor:
    """The entries `index` [n] of dimension `dim`, which becomes n long."""

def inner(input: Tensor, other: Tensor) -> Tensor:
    """Scalar products of the last dimension of both: [..., k] and [*, k] -> [..., *]."""

def isclose(
    input: Tensor, other: Tensor, rtol: _Float = 1e-05, atol: _Float = 1e-08, equal_nan: _bool = False
) -> Tensor:
    """Whether |self - other| <= atol + rtol * |other|, element by element."""

def isfinite(input: Tensor) -> Tensor:
    """Whether the element is neither NaN nor infinite."""

def isin(
    elements: _Operand, test_elements: _Operand, *, assume_unique: _bool = False, invert: _bool = False
) -> Tensor:
    """For each element, whether `test_elements` holds it."""

def isinf(input: Tensor) -> Tensor:
    """Whether the element is infinite."""

def isnan(input: Tensor) -> Tensor:
    """Whether the element is NaN."""

def isneginf(input: Tensor) -> Tensor:
    """Whether the element is negative infinity."""

def isposinf(input: Tensor) -> Tensor:
    """Whether the element is positive infinity."""

def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: `other` scaled by each element of `self`, as blocks."""

def kthvalue(input: Tensor, k: _Int, dim: _Int = -1, keepdim: _bool = False) -> _ValuesIndices:
    """The k-th smallest value along a dimension, counted from 1, and where it is."""

def lcm(input: _Operand, other: _Operand) -> Tensor:
    """The least common multiple of two integers."""

def ldexp(input: _Operand, other: _Operand) -> Tensor:
    """self * 2^other."""

def le(input: _Operand, other: _Operand) -> Tensor:
    """Whether self <= other."""

def lerp(input: Tensor, end: Tensor, weight: _Operand) -> Tensor:
    """self + weight * (end - self)."""

def less(input: _Operand, other: _Operand) -> Tensor:
    """The same as lt."""

def less_equal(input: _Operand, other: _Operand) -> Tensor:
    """The same as le."""

def lgamma(input: Tensor) -> Tensor:
    """The logarithm of |Gamma(x)|."""

def linspace(
    start: _Float,
    end: _Float,
    steps: _Int,
    *,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """`steps` numbers from start to end, both included."""

def log(input: Tensor) -> Tensor:
    """The natural logarithm."""

def log10(input: Tensor) -> Tensor:
    """The logarithm to base 10."""

def log1p(input: Tensor) -> Tensor:
    """ln(1 + x), exact near 0."""

def log2(input: Tensor) -> Tensor:
    """The logarithm to base 2."""

def log_softmax(input: Tensor, dim: _Int, dtype: _DType | None = None) -> Tensor:
    """x - log(sum(exp(x))) along a dimension."""

def logaddexp(input: _Operand, other: _Operand) -> Tensor:
    """ln(e^self + e^other), without overflow."""

def logaddexp2(input: _Operand, other: _Operand) -> Tensor:
    """log2(2^self + 2^other), without overflow."""

def logcumsumexp(input: Tensor, dim: _Int) -> Tensor:
    """log(cumsum(exp(x))) along a dimension, without overflow."""

def logical_and(input: _Operand, other: _Operand) -> Tensor:
    """Whether both operands are nonzero."""

def logical_not(input: Tensor) -> Tensor:
    """Whether the element is zero."""

def logical_or(input: _Operand, other: _Operand) -> Tensor:
    """Whether an operand is nonzero."""

def logical_xor(input: _Operand, other: _Operand) -> Tensor:
    """Whether exactly one operand is nonzero."""

def logit(input: Tensor, eps: _Float | None = None) -> Tensor:
    """ln(x / (1 - x)), of x kept in [eps, 1 - eps] if eps is given."""

def logspace(
    start: _Float,
    end: _Float,
    steps: _Int,
    base: _Float = 10.0,
    *,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """base to the power of `steps` numbers from start to end."""

def logsumexp(input: Tensor, dim: _Int | _Ints, keepdim: _bool = False) -> Tensor:
    """log(sum(exp(x))) over dimensions, without overflow."""

@overload
def lstm(
    input: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: _bool,
    num_layers: _Int,
    dropout: _Float,
    train: _bool,
    bidirectional: _bool,
    batch_first: _bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Layers over sequences [T, N, I], with the weights of each layer and direction."""

@overload
def lstm(
    data: Tensor,
    batch_sizes: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: _bool,
    num_layers: _Int,
    dropout: _Float,
    train: _bool,
    bidirectional: _bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Layers over packed sequences [rows, I], of which step t has batch_sizes[t]."""

def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of an LSTM for input [N, I] and hx = (h, c), [N, H] both."""

def lt(input: _Operand, other: _Operand) -> Tensor:
    """Whether self < other."""

def masked_fill(input: Tensor, mask: Tensor, value: _Operand) -> Tensor:
    """`value` (0-d) where `mask` is true, `self` elsewhere; both broadcast."""

def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`self` with the first elements of `source` in order where `mask` is true."""

def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements [count] where `mask` is true; both broadcast."""

def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product; vectors are rows or columns, leading dimensions broadcast."""

@overload
def max(input: Tensor) -> Tensor:
    """The largest element; NaN if there is one."""

@overload
def max(input: Tensor, dim: _Int, keepdim: _bool = False) -> _ValuesIndices:
    """The largest elements along a dimension and where they come first."""

@overload
def max(input: Tensor, other: Tensor) -> Tensor:
    """The larger of both, element by element."""

def maximum(input: _Operand, other: _Operand) -> Tensor:
    """The larger of both operands; NaN if either is. Equal operands share the gradient."""

def mean(
    input: Tensor, dim: _Int | _Ints | None = None, keepdim: _bool = False, *, dtype: _DType | None = None
) -> Tensor:
    """The mean over the given dimensions, all if none are given."""

@overload
def median(input: Tensor) -> Tensor:
    """The lower of the two middle values."""

@overload
def median(input: Tensor, dim: _Int, keepdim: _bool = False) -> _ValuesIndices:
    """The lower of the two middle values along a dimension and where one is."""

@overload
def meshgrid(tensors: Sequence[Tensor], *, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Grids of coordinates from vectors: one for each, in the shape of all; indexing 'ij' or 'xy'."""

@overload
def meshgrid(*tensors: Tensor, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Grids of coordinates from vectors: one for each, in the shape of all; indexing 'ij' or 'xy'."""

@overload
def min(input: Tensor) -> Tensor:
    """The smallest element; NaN if there is one."""

@overload
def min(input: Tensor, dim: _Int, keepdim: _bool = False) -> _ValuesIndices:
    """The smallest elements along a dimension and where they come first."""

@overload
def min(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of both, element by element."""

def minimum(input: _Operand, other: _Operand) -> Tensor:
    """The smaller of both operands; NaN if either is. Equal operands share the gradient."""

def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """[m, k] x [k, n] -> [m, n]."""

@overload
def moveaxis(input: Tensor, source: _Int, destination: _Int) -> Tensor:
    """Moves a dimension; the others keep their order."""

@overload
def moveaxis(input: Tensor, source: _Ints, destination: _Ints) -> Tensor:
    """Moves dimension source[i] to destination[i]; the others keep their order."""

@overload
def movedim(input: Tensor, source: _Int, destination: _Int) -> Tensor:
    """Moves a dimension; the others keep their order."""

@overload
def movedim(input: Tensor, source: _Ints, destination: _Ints) -> Tensor:
    """Moves dimension source[i] to destination[i]; the others keep their order."""

def mul(input: _Operand, other: _Operand) -> Tensor:
    """The product of both operands."""

def multinomial(
    input: Tensor, num_samples: _Int, replacement: _bool = False, *, generator: Generator | None = None
) -> Tensor:
    """`num_samples` column numbers for each row of weights [n] or [rows, n]."""

def multiply(input: _Operand, other: _Operand) -> Tensor:
    """The same as mul."""

def mv(input: Tensor, vec: Tensor) -> Tensor:
    """[m, k] x [k] -> [m]."""

def nan_to_num(
    input: Tensor, nan: _Float | None = None, posinf: _Float | None = None, neginf: _Float | None = None
) -> Tensor:
    """NaN and the infinities replaced, by default by 0 and the largest values of the dtype."""

def nanmean(
    input: Tensor, dim: _Int | _Ints | None = None, keepdim: _bool = False, *, dtype: _DType | None = None
) -> Tensor:
    """The mean of what is not NaN."""

def nansum(
    input: Tensor, dim: _Int | _Ints | None = None, keepdim: _bool = False, *, dtype: _DType | None = None
) -> Tensor:
    """As sum(), with NaN counted as zero."""

def narrow(input: Tensor, dim: _Int, start: _Int, length: _Int) -> Tensor:
    """`length` indices of dimension `dim` from `start`."""

def ne(input: _Operand, other: _Operand) -> Tensor:
    """Whether self != other."""

def neg(input: Tensor) -> Tensor:
    """The negative, -x."""

def negative(input: Tensor) -> Tensor:
    """The same as neg."""

@overload
def nonzero(input: Tensor, *, as_tuple: Literal[False] = False) -> Tensor:
    """The indices of the nonzero elements in row-major order, int64 [count, rank]; with as_tuple one tensor for each dimension."""

@overload
def nonzero(input: Tensor, *, as_tuple: Literal[True]) -> tuple[Tensor, ...]:
    """The indices of the nonzero elements in row-major order, int64 [count, rank]; with as_tuple one tensor for each dimension."""

@overload
def nonzero(input: Tensor, *, as_tuple: _bool = False) -> Tensor | tuple[Tensor, ...]:
    """The indices of the nonzero elements in row-major order, int64 [count, rank]; with as_tuple one tensor for each dimension."""

@overload
def norm(
    input: Tensor,
    p: _Number | None = 2,
    dim: _Int | _Ints | None = None,
    keepdim: _bool = False,
    dtype: _DType | None = None,
) -> Tensor:
    """The p-norm (sum |x|^p)^(1/p) of the elements over dimensions; p may be 0 and +-inf."""

@overload
def norm(
    input: Tensor,
    p: str,
    dim: _Int | _Ints | None = None,
    keepdim: _bool = False,
    dtype: _DType | None = None,
) -> Tensor:
    """The Frobenius norm for p='fro'."""

@overload
def normal(
    mean: _Float,
    std: _Float,
    size: _Ints,
    *,
    generator: Generator | None = None,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """Normal numbers of the given size."""

@overload
def normal(mean: _Operand, std: _Operand = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Normal numbers with mean and standard deviation for each element."""

def not_equal(input: _Operand, other: _Operand) -> Tensor:
    """The same as ne."""

@overload
def ones(
    size: _Ints, *, dtype: _DType | None = None, device: _Device | None = None, requires_grad: _bool = False
) -> Tensor:
    """A tensor of ones."""

@overload
def ones(
    *size: _Int, dtype: _DType | None = None, device: _Device | None = None, requires_grad: _bool = False
) -> Tensor:
    """A tensor of ones."""

def ones_like(
    input: Tensor,
    *,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
    memory_format: _memory_format | None = None,
) -> Tensor:
    """Ones in the shape and dtype of `input`."""

def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """[m] x [n] -> [m, n]."""

@overload
def permute(input: Tensor, dims: _Ints) -> Tensor:
    """Dimension i of the result is dimension dims[i] of `self`."""

@overload
def permute(input: Tensor, *dims: _Int) -> Tensor:
    """Dimension i of the result is dimension dims[i] of `self`."""

def polygamma(n: _Int, input: Tensor) -> Tensor:
    """The n-th derivative of digamma."""

def positive(input: Tensor) -> Tensor:
    """The tensor itself."""

def pow(input: _Operand, exponent: _Operand) -> Tensor:
    """self to the power of exponent."""

def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """The same as nn.functional.prelu."""

@overload
def prod(input: Tensor, *, dtype: _DType | None = None) -> Tensor:
    """The product of all elements; integers are multiplied as int64."""

@overload
def prod(input: Tensor, dim: _Int, keepdim: _bool = False, *, dtype: _DType | None = None) -> Tensor:
    """The product along a dimension."""

def rad2deg(input: Tensor) -> Tensor:
    """Radians to degrees."""

@overload
def rand(
    size: _Ints,
    *,
    generator: Generator | None = None,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """Uniform numbers in [0, 1)."""

@overload
def rand(
    *size: _Int,
    generator: Generator | None = None,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """Uniform numbers in [0, 1)."""

def rand_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
    memory_format: _memory_format | None = None,
) -> Tensor:
    """Uniform numbers in [0, 1) in the shape and dtype of `input`."""

@overload
def randint(
    high: _Int,
    size: _Ints,
    *,
    generator: Generator | None = None,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """Integers in [0, high)."""

@overload
def randint(
    low: _Int,
    high: _Int,
    size: _Ints,
    *,
    generator: Generator | None = None,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """Integers in [low, high)."""

@overload
def randint_like(
    input: Tensor,
    high: _Int,
    *,
    generator: Generator | None = None,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
    memory_format: _memory_format | None = None,
) -> Tensor:
    """Integers in [0, high) in the shape and dtype of `input`."""

@overload
def randint_like(
    input: Tensor,
    low: _Int,
    high: _Int,
    *,
    generator: Generator | None = None,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
    memory_format: _memory_format | None = None,
) -> Tensor:
    """Integers in [low, high) in the shape and dtype of `input`."""

@overload
def randn(
    size: _Ints,
    *,
    generator: Generator | None = None,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """Standard normal numbers."""

@overload
def randn(
    *size: _Int,
    generator: Generator | None = None,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """Standard normal numbers."""

def randn_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
    memory_format: _memory_format | None = None,
) -> Tensor:
    """Standard normal numbers in the shape and dtype of `input`."""

def randperm(
    n: _Int,
    *,
    generator: Generator | None = None,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """0 ... n - 1 in random order."""

def ravel(input: Tensor) -> Tensor:
    """All elements as one dimension."""

def reciprocal(input: Tensor) -> Tensor:
    """1 / x."""

def relu(input: Tensor) -> Tensor:
    """The rectified linear unit, max(0, x)."""

def remainder(input: _Operand, other: _Operand) -> Tensor:
    """a - b * floor(a / b), with the sign of b."""

@overload
def repeat_interleave(
    input: Tensor, repeats: _Int, dim: _Int | None = None, *, output_size: _Int | None = None
) -> Tensor:
    """Each element `repeats` times in place, along `dim` or flat."""

@overload
def repeat_interleave(
    input: Tensor, repeats: Tensor, dim: _Int | None = None, *, output_size: _Int | None = None
) -> Tensor:
    """Element i repeats[i] times in place, along `dim` or flat."""

@overload
def repeat_interleave(repeats: Tensor) -> Tensor:
    """Index i repeats[i] times."""

@overload
def reshape(input: Tensor, shape: _Ints) -> Tensor:
    """The same elements in another shape; a view where strides allow it, else a copy."""

@overload
def reshape(input: Tensor, *shape: _Int) -> Tensor:
    """The same elements in another shape; a view where strides allow it, else a copy."""

@overload
def rnn_relu(
    input: Tensor,
    hx: Tensor,
    params: Sequence[Tensor],
    has_biases: _bool,
    num_layers: _Int,
    dropout: _Float,
    train: _bool,
    bidirectional: _bool,
    batch_first: _bool,
) -> tuple[Tensor, Tensor]:
    """Layers over sequences [T, N, I], with the weights of each layer and direction."""

@overload
def rnn_relu(
    data: Tensor,
    batch_sizes: Tensor,
    hx: Tensor,
    params: Sequence[Tensor],
    has_biases: _bool,
    num_layers: _Int,
    dropout: _Float,
    train: _bool,
    bidirectional: _bool,
) -> tuple[Tensor, Tensor]:
    """Layers over packed sequences [rows, I], of which step t has batch_sizes[t]."""

def rnn_relu_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """relu(w_ih x + b_ih + w_hh h + b_hh), row by row."""

@overload
def rnn_tanh(
    input: Tensor,
    hx: Tensor,
    params: Sequence[Tensor],
    has_biases: _bool,
    num_layers: _Int,
    dropout: _Float,
    train: _bool,
    bidirectional: _bool,
    batch_first: _bool,
) -> tuple[Tensor, Tensor]:
    """Layers over sequences [T, N, I], with the weights of each layer and direction."""

@overload
def rnn_tanh(
    data: Tensor,
    batch_sizes: Tensor,
    hx: Tensor,
    params: Sequence[Tensor],
    has_biases: _bool,
    num_layers: _Int,
    dropout: _Float,
    train: _bool,
    bidirectional: _bool,
) -> tuple[Tensor, Tensor]:
    """Layers over packed sequences [rows, I], of which step t has batch_sizes[t]."""

def rnn_tanh_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """tanh(w_ih x + b_ih + w_hh h + b_hh), row by row."""

def roll(input: Tensor, shifts: _Int | _Ints, dims: _Int | _Ints = ...) -> Tensor:
    """Moved by `shifts` along `dims`, what falls off put back at the start; flat without `dims`."""

def rot90(input: Tensor, k: _Int = 1, dims: _Ints = ...) -> Tensor:
    """Turned by 90 degrees k times from dims[0] to dims[1]."""

def round(input: Tensor, *, decimals: _Int = 0) -> Tensor:
    """The nearest multiple of 10^-decimals; halves go to the even one."""

def row_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Joins along dimension 0; vectors are rows."""

def rsqrt(input: Tensor) -> Tensor:
    """1 / sqrt(x)."""

def rsub(input: _Operand, other: _Operand, *, alpha: _Number = 1) -> Tensor:
    """other - alpha * self."""

@overload
def scatter(input: Tensor, dim: _Int, index: Tensor, src: Tensor) -> Tensor:
    """`self` with self[index[i, j, k], j, k] = src[i, j, k] for dim 0, and so on; the last of repeated indices wins."""

@overload
def scatter(input: Tensor, dim: _Int, index: Tensor, value: _Number) -> Tensor:
    """`self` with `value` written at the indices."""

def scatter_add(input: Tensor, dim: _Int, index: Tensor, src: Tensor) -> Tensor:
    """As scatter, but values are added; repeated indices add up in order."""

def scatter_reduce(
    input: Tensor, dim: _Int, index: Tensor, src: Tensor, reduce: str, *, include_self: _bool = True
) -> Tensor:
    """As scatter, but values of one place are combined by 'sum', 'prod', 'mean', 'amax' or 'amin', with what was there before if `include_self`."""

def select(input: Tensor, dim: _Int, index: _Int) -> Tensor:
    """One index of a dimension, which goes away."""

def select_scatter(input: Tensor, src: Tensor, dim: _Int, index: _Int) -> Tensor:
    """`self` with `src` in place of index `index` of dimension `dim`."""

def sigmoid(input: Tensor) -> Tensor:
    """The logistic function, 1 / (1 + e^-x)."""

def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1."""

def signbit(input: Tensor) -> Tensor:
    """Whether the sign is negative, also of -0."""

def sin(input: Tensor) -> Tensor:
    """The sine of an angle in radians."""

def sinc(input: Tensor) -> Tensor:
    """sin(pi x) / (pi x); 1 at 0."""

def sinh(input: Tensor) -> Tensor:
    """The hyperbolic sine."""

def slice_scatter(
    input: Tensor,
    src: Tensor,
    dim: _Int = 0,
    start: _Int | None = None,
    end: _Int | None = None,
    step: _Int = 1,
) -> Tensor:
    """`self` with `src` in place of self[start:end:step] of dimension `dim`."""

def softmax(input: Tensor, dim: _Int, dtype: _DType | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along a dimension."""

@overload
def sort(input: Tensor, dim: _Int = -1, descending: _bool = False) -> _ValuesIndices:
    """Sorted values along a dimension and where they were; equal values keep their order."""

@overload
def sort(
    input: Tensor, *, stable: _bool | None = None, dim: _Int = -1, descending: _bool = False
) -> _ValuesIndices:
    """The same; sorting is always stable."""

@overload
def split(input: Tensor, split_size_or_sections: _Int, dim: _Int = 0) -> tuple[Tensor, ...]:
    """Parts of the given size along `dim`; the last one may be smaller."""

@overload
def split(input: Tensor, split_size_or_sections: _Ints, dim: _Int = 0) -> tuple[Tensor, ...]:
    """Parts of the given sizes along `dim`."""

def split_with_sizes(input: Tensor, split_sizes: _Ints, dim: _Int = 0) -> tuple[Tensor, ...]:
    """Parts of the given sizes along `dim`."""

def sqrt(input: Tensor) -> Tensor:
    """The square root; NaN below zero."""

def square(input: Tensor) -> Tensor:
    """x^2."""

@overload
def squeeze(input: Tensor) -> Tensor:
    """Drops all dimensions of size 1."""

@overload
def squeeze(input: Tensor, dim: _Int | _Ints) -> Tensor:
    """Drops the given dimensions where their size is 1."""

def stack(tensors: Sequence[Tensor], dim: _Int = 0) -> Tensor:
    """Tensors of one shape along a new dimension."""

@overload
def std(input: Tensor, unbiased: _bool = True) -> Tensor:
    """The standard deviation, the root of var()."""

@overload
def std(input: Tensor, dim: _Int | _Ints | None, unbiased: _bool = True, keepdim: _bool = False) -> Tensor:
    """The standard deviation, the root of var()."""

@overload
def std(
    input: Tensor, dim: _Int | _Ints | None = None, *, correction: _Number | None = 1, keepdim: _bool = False
) -> Tensor:
    """The standard deviation, the root of var()."""

@overload
def std_mean(input: Tensor, unbiased: _bool = True) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean."""

@overload
def std_mean(
    input: Tensor, dim: _Int | _Ints | None, unbiased: _bool = True, keepdim: _bool = False
) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean."""

@overload
def std_mean(
    input: Tensor, dim: _Int | _Ints | None = None, *, correction: _Number | None = 1, keepdim: _bool = False
) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean."""

def sub(input: _Operand, other: _Operand, *, alpha: _Number = 1) -> Tensor:
    """self - alpha * other."""

def subtract(input: _Operand, other: _Operand, *, alpha: _Number = 1) -> Tensor:
    """The same as sub."""

def sum(
    input: Tensor, dim: _Int | _Ints | None = None, keepdim: _bool = False, *, dtype: _DType | None = None
) -> Tensor:
    """The sum over the given dimensions, all if none are given; integers are summed as int64."""

def swapaxes(input: Tensor, axis0: _Int, axis1: _Int) -> Tensor:
    """Swaps two dimensions."""

def swapdims(input: Tensor, dim0: _Int, dim1: _Int) -> Tensor:
    """Swaps two dimensions."""

def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors as they are."""

def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements at the row-major positions `index`, in its shape."""

def take_along_dim(input: Tensor, indices: Tensor, dim: _Int | None = None) -> Tensor:
    """gather() with broadcasting; flat without `dim`."""

def tan(input: Tensor) -> Tensor:
    """The tangent of an angle in radians."""

def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""

@overload
def tensor_split(input: Tensor, indices_or_sections: _Int, dim: _Int = 0) -> tuple[Tensor, ...]:
    """Exactly that many parts along `dim`, the first ones one longer if it doesn't come out even."""

@overload
def tensor_split(input: Tensor, indices_or_sections: _Ints, dim: _Int = 0) -> tuple[Tensor, ...]:
    """Parts along `dim` that end before each of the indices, and the rest."""

@overload
def tensor_split(input: Tensor, indices_or_sections: Tensor, dim: _Int = 0) -> tuple[Tensor, ...]:
    """As above, from an int64 tensor."""

@overload
def tile(input: Tensor, dims: _Ints) -> Tensor:
    """As repeat, where missing leading entries are 1."""

@overload
def tile(input: Tensor, *dims: _Int) -> Tensor:
    """As repeat, where missing leading entries are 1."""

def topk(
    input: Tensor, k: _Int, dim: _Int = -1, largest: _bool = True, sorted: _bool = True
) -> _ValuesIndices:
    """The k largest or smallest values along a dimension, in order, and where they are."""

def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""

def transpose(input: Tensor, dim0: _Int, dim1: _Int) -> Tensor:
    """Swaps two dimensions."""

def tril(input: Tensor, diagonal: _Int = 0) -> Tensor:
    """The lower triangles of matrices [..., m, n], zeros elsewhere."""

def tril_indices(
    row: _Int,
    col: _Int,
    offset: _Int = 0,
    *,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """Positions [2, count] of the lower triangle of a [row, col] matrix."""

def triu(input: Tensor, diagonal: _Int = 0) -> Tensor:
    """The upper triangles of matrices [..., m, n], zeros elsewhere."""

def triu_indices(
    row: _Int,
    col: _Int,
    offset: _Int = 0,
    *,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
) -> Tensor:
    """Positions [2, count] of the upper triangle of a [row, col] matrix."""

def true_divide(input: _Operand, other: _Operand) -> Tensor:
    """The same as div."""

def trunc(input: Tensor) -> Tensor:
    """The integer part, towards 0."""

def unbind(input: Tensor, dim: _Int = 0) -> tuple[Tensor, ...]:
    """All indices of dimension `dim`, each without that dimension."""

def unflatten(input: Tensor, dim: _Int, sizes: _Ints) -> Tensor:
    """Dimension `dim` as several; one of the sizes may be -1."""

def unsqueeze(input: Tensor, dim: _Int) -> Tensor:
    """Inserts a dimension of size 1."""

@overload
def var(input: Tensor, unbiased: _bool = True) -> Tensor:
    """The variance; divides by n - correction (n - 1 if unbiased)."""

@overload
def var(input: Tensor, dim: _Int | _Ints | None, unbiased: _bool = True, keepdim: _bool = False) -> Tensor:
    """The variance; divides by n - correction (n - 1 if unbiased)."""

@overload
def var(
    input: Tensor, dim: _Int | _Ints | None = None, *, correction: _Number | None = 1, keepdim: _bool = False
) -> Tensor:
    """The variance; divides by n - correction (n - 1 if unbiased)."""

@overload
def var_mean(input: Tensor, unbiased: _bool = True) -> tuple[Tensor, Tensor]:
    """The variance and the mean."""

@overload
def var_mean(
    input: Tensor, dim: _Int | _Ints | None, unbiased: _bool = True, keepdim: _bool = False
) -> tuple[Tensor, Tensor]:
    """The variance and the mean."""

@overload
def var_mean(
    input: Tensor, dim: _Int | _Ints | None = None, *, correction: _Number | None = 1, keepdim: _bool = False
) -> tuple[Tensor, Tensor]:
    """The variance and the mean."""

@overload
def vsplit(input: Tensor, sections: _Int) -> tuple[Tensor, ...]:
    """Equal parts along dimension 0."""

@overload
def vsplit(input: Tensor, indices: _Ints) -> tuple[Tensor, ...]:
    """Parts along dimension 0 that end before each of the indices."""

def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joins along dimension 0; vectors are rows."""

@overload
def where(condition: Tensor) -> tuple[Tensor, ...]:
    """The indices where `condition` is nonzero, one tensor for each dimension."""

@overload
def where(condition: Tensor, input: _Operand, other: _Operand) -> Tensor:
    """`input` where condition is true, `other` elsewhere; all three broadcast."""

def xlogy(input: _Operand, other: _Operand) -> Tensor:
    """self * ln(other); 0 where self is 0, NaN where other is NaN."""

@overload
def zeros(
    size: _Ints, *, dtype: _DType | None = None, device: _Device | None = None, requires_grad: _bool = False
) -> Tensor:
    """A tensor of zeros."""

@overload
def zeros(
    *size: _Int, dtype: _DType | None = None, device: _Device | None = None, requires_grad: _bool = False
) -> Tensor:
    """A tensor of zeros."""

def zeros_like(
    input: Tensor,
    *,
    dtype: _DType | None = None,
    device: _Device | None = None,
    requires_grad: _bool = False,
    memory_format: _memory_format | None = None,
) -> Tensor:
    """Zeros in the shape and dtype of `input`."""
