# Made by `make stubs` from the schemas of the ops; edit bindings/_C.pyi.in or the schema.
import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import EllipsisType
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from typing_extensions import CapsuleType, Self

from opsin._tensor import TensorHookHandle
from opsin._types import layout as _layout

__all__ = [
    "Generator",
    "OutOfMemoryError",
    "ShapeError",
    "Size",
    "Tensor",
    "as_tensor",
    "bfloat16",
    "bool",
    "broadcast_shapes",
    "can_cast",
    "cdouble",
    "cfloat",
    "channels_last",
    "channels_last_3d",
    "clear_autocast_cache",
    "complex64",
    "complex128",
    "contiguous_format",
    "default_generator",
    "device",
    "double",
    "dtype",
    "empty_cache",
    "float",
    "float16",
    "float32",
    "float64",
    "from_dlpack",
    "from_numpy",
    "get_autocast_dtype",
    "get_default_dtype",
    "get_num_threads",
    "get_rng_state",
    "half",
    "initial_seed",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_autocast_cache_enabled",
    "is_autocast_enabled",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "long",
    "manual_seed",
    "memory_format",
    "memory_stats",
    "preserve_format",
    "promote_types",
    "reset_peak_memory_stats",
    "seed",
    "set_autocast_cache_enabled",
    "set_autocast_dtype",
    "set_autocast_enabled",
    "set_default_dtype",
    "set_memory_limit",
    "set_num_threads",
    "set_rng_state",
    "short",
    "tensor",
    "uint8",
]

# Members of Tensor and dtypes are called like Python's types.
_bool: TypeAlias = builtins.bool
_int: TypeAlias = builtins.int
_float: TypeAlias = builtins.float

_Int: TypeAlias = builtins.int | np.integer[Any]
_Ints: TypeAlias = Sequence[_Int]
_Float: TypeAlias = builtins.float | np.floating[Any] | np.integer[Any]
_Number: TypeAlias = builtins.complex | np.number[Any] | np.bool_
_Operand: TypeAlias = Tensor | _Number

_TensorT = TypeVar("_TensorT", bound=Tensor)

class dtype:
    @property
    def is_floating_point(self) -> _bool: ...
    @property
    def is_complex(self) -> _bool: ...
    @property
    def is_signed(self) -> _bool: ...
    @property
    def itemsize(self) -> _int: ...

class device:
    def __init__(self, type: str | _int | device, index: _int | None = None) -> None: ...
    @property
    def type(self) -> str: ...
    @property
    def index(self) -> _int | None: ...
    def __eq__(self, other: object, /) -> _bool: ...
    def __hash__(self) -> _int: ...

class memory_format: ...

_dtype: TypeAlias = dtype
_DType: TypeAlias = (
    dtype | type[builtins.bool] | type[builtins.int] | type[builtins.float] | type[builtins.complex]
)
_device: TypeAlias = device
_Device: TypeAlias = device | str | _int
_memory_format: TypeAlias = memory_format
_Index: TypeAlias = _Int | slice | EllipsisType | Tensor | NDArray[Any] | list[Any] | tuple[Any, ...] | None

uint8: dtype
int8: dtype
int16: dtype
short: dtype
int32: dtype
int: dtype
int64: dtype
long: dtype
float16: dtype
half: dtype
bfloat16: dtype
float32: dtype
float: dtype
float64: dtype
double: dtype
complex64: dtype
cfloat: dtype
complex128: dtype
cdouble: dtype
bool: dtype

contiguous_format: memory_format
channels_last: memory_format
channels_last_3d: memory_format
preserve_format: memory_format

class ShapeError(RuntimeError, ValueError): ...
class OutOfMemoryError(MemoryError, RuntimeError): ...

class Size(tuple[_int, ...]):
    def numel(self) -> _int: ...

class Generator:
    def __init__(self, device: _Device = "cpu") -> None: ...
    @property
    def device(self) -> _device: ...
    def manual_seed(self, seed: _int) -> Generator: ...
    def seed(self) -> _int: ...
    def initial_seed(self) -> _int: ...
    def get_state(self) -> Tensor: ...
    def set_state(self, state: Tensor) -> None: ...

class _AutocastRegion: ...

class _RecordFunction:
    def __init__(self, name: str, /) -> None: ...
    def close(self) -> None: ...

class _Profiler:
    def __init__(self, record_shapes: _bool, profile_memory: _bool, with_flops: _bool, /) -> None: ...
    # (duration in ns, events, samples of memory)
    def stop(self) -> tuple[_int, list[tuple[Any, ...]], list[tuple[_int, _int, _int, _int]]]: ...

class _ModuleBase:
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __getattr__(self, name: str, /) -> Any: ...
    @staticmethod
    def _prepare_class(cls: type[_ModuleBase], /) -> None: ...  # pyright: ignore[reportSelfClsParameterName]

class _Node:
    def name(self) -> str: ...
    @property
    def next_functions(self) -> tuple[tuple[_Node | None, _int], ...]: ...
    def __eq__(self, other: object, /) -> _bool: ...
    def __hash__(self) -> _int: ...

class _IndicesScores(NamedTuple):
    indices: Tensor
    scores: Tensor

class _MinMax(NamedTuple):
    min: Tensor
    max: Tensor

class _RowsColumns(NamedTuple):
    rows: Tensor
    columns: Tensor

class _ValuesIndices(NamedTuple):
    values: Tensor
    indices: Tensor

class Tensor:
    """A multi-dimensional array that records what is computed with it."""

    __array_priority__: ClassVar[_int]
    @overload
    def __new__(cls, data: ArrayLike | Tensor, /) -> Self: ...
    @overload
    def __new__(cls, *sizes: _int) -> Self: ...
    @staticmethod
    def _make_subclass(
        cls: type[_TensorT],  # pyright: ignore[reportSelfClsParameterName]
        data: Tensor,
        requires_grad: _bool = False,
    ) -> _TensorT: ...

    # Attributes
    data: Tensor
    grad: Tensor | None
    requires_grad: _bool
    @property
    def shape(self) -> Size: ...
    @property
    def dtype(self) -> _dtype: ...
    @property
    def device(self) -> _device: ...
    @property
    def ndim(self) -> _int: ...
    @property
    def itemsize(self) -> _int: ...
    @property
    def nbytes(self) -> _int: ...
    @property
    def is_leaf(self) -> _bool: ...
    @property
    def is_cuda(self) -> _bool: ...
    @property
    def grad_fn(self) -> _Node | None: ...
    @property
    def output_nr(self) -> _int: ...
    @property
    def retains_grad(self) -> _bool: ...
    @property
    def T(self) -> Tensor: ...
    @property
    def mT(self) -> Tensor: ...
    @property
    def _base(self) -> Tensor | None: ...
    @property
    def _version(self) -> _int: ...

    # Facts and values
    @overload
    def size(self, dim: None = None) -> Size: ...
    @overload
    def size(self, dim: _int) -> _int: ...
    @overload
    def stride(self, dim: None = None) -> tuple[_int, ...]: ...
    @overload
    def stride(self, dim: _int) -> _int: ...
    def dim(self) -> _int: ...
    def ndimension(self) -> _int: ...
    def numel(self) -> _int: ...
    def nelement(self) -> _int: ...
    def element_size(self) -> _int: ...
    def storage_offset(self) -> _int: ...
    def data_ptr(self) -> _int: ...
    def is_floating_point(self) -> _bool: ...
    def is_complex(self) -> _bool: ...
    def is_signed(self) -> _bool: ...
    def is_inference(self) -> _bool: ...
    # A bool, int, float or complex, by the dtype.
    def item(self) -> Any: ...
    # Nested lists of such numbers, or one number.
    def tolist(self) -> Any: ...
    def numpy(self, *, force: _bool = False) -> NDArray[Any]: ...
    def retain_grad(self) -> None: ...
    def __array__(self, dtype: DTypeLike | None = None, *, copy: _bool | None = None) -> NDArray[Any]: ...
    def __dlpack__(
        self,
        *,
        stream: _int | None = None,
        max_version: tuple[_int, _int] | None = None,
        dl_device: tuple[_int, _int] | None = None,
        copy: _bool | None = None,
    ) -> CapsuleType: ...
    def __dlpack_device__(self) -> tuple[_int, _int]: ...
    def __len__(self) -> _int: ...
    def __bool__(self) -> _bool: ...
    def __int__(self) -> _int: ...
    def __float__(self) -> _float: ...
    def __index__(self) -> _int: ...
    def __hash__(self) -> _int: ...
    def __getitem__(self, index: _Index, /) -> Tensor: ...
    def __setitem__(self, index: _Index, value: _Operand, /) -> None: ...

    # Operators
    def __eq__(self, other: _Operand, /) -> Tensor: ...  # type: ignore[override]
    def __ne__(self, other: _Operand, /) -> Tensor: ...  # type: ignore[override]
    def __lt__(self, other: _Operand, /) -> Tensor: ...
    def __le__(self, other: _Operand, /) -> Tensor: ...
    def __gt__(self, other: _Operand, /) -> Tensor: ...
    def __ge__(self, other: _Operand, /) -> Tensor: ...
    def __add__(self, other: _Operand, /) -> Tensor: ...
    def __radd__(self, other: _Number, /) -> Tensor: ...
    def __iadd__(self, other: _Operand, /) -> Self: ...
    def __sub__(self, other: _Operand, /) -> Tensor: ...
    def __rsub__(self, other: _Number, /) -> Tensor: ...
    def __isub__(self, other: _Operand, /) -> Self: ...
    def __mul__(self, other: _Operand, /) -> Tensor: ...
    def __rmul__(self, other: _Number, /) -> Tensor: ...
    def __imul__(self, other: _Operand, /) -> Self: ...
    def __truediv__(self, other: _Operand, /) -> Tensor: ...
    def __rtruediv__(self, other: _Number, /) -> Tensor: ...
    def __itruediv__(self, other: _Operand, /) -> Self: ...
    def __floordiv__(self, other: _Operand, /) -> Tensor: ...
    def __rfloordiv__(self, other: _Number, /) -> Tensor: ...
    def __ifloordiv__(self, other: _Operand, /) -> Self: ...
    def __mod__(self, other: _Operand, /) -> Tensor: ...
    def __rmod__(self, other: _Number, /) -> Tensor: ...
    def __imod__(self, other: _Operand, /) -> Self: ...
    def __pow__(self, other: _Operand, /) -> Tensor: ...
    def __rpow__(self, other: _Number, /) -> Tensor: ...
    def __ipow__(self, other: _Operand, /) -> Self: ...
    def __matmul__(self, other: Tensor, /) -> Tensor: ...
    def __and__(self, other: _Operand, /) -> Tensor: ...
    def __rand__(self, other: _Number, /) -> Tensor: ...
    def __iand__(self, other: _Operand, /) -> Self: ...
    def __or__(self, other: _Operand, /) -> Tensor: ...
    def __ror__(self, other: _Number, /) -> Tensor: ...
    def __ior__(self, other: _Operand, /) -> Self: ...
    def __xor__(self, other: _Operand, /) -> Tensor: ...
    def __rxor__(self, other: _Number, /) -> Tensor: ...
    def __ixor__(self, other: _Operand, /) -> Self: ...
    def __lshift__(self, other: _Operand, /) -> Tensor: ...
    def __rlshift__(self, other: _Number, /) -> Tensor: ...
    def __rshift__(self, other: _Operand, /) -> Tensor: ...
    def __rrshift__(self, other: _Number, /) -> Tensor: ...
    def __neg__(self) -> Tensor: ...
    def __pos__(self) -> Tensor: ...
    def __abs__(self) -> Tensor: ...
    def __invert__(self) -> Tensor: ...
    def __contains__(self, element: Any) -> _bool: ...
    def __deepcopy__(self, memo: dict[_int, Any]) -> Tensor: ...
    def __format__(self, format_spec: str) -> str: ...
    def __iter__(self) -> Iterator[Tensor]: ...
    def __reduce_ex__(self, protocol: Any) -> Any: ...
    def __reversed__(self) -> Tensor: ...
    def abs(self) -> Tensor:
        """The absolute value, |x|."""
    def abs_(self) -> Tensor:
        """In-place version of abs."""
    def absolute(self) -> Tensor:
        """The same as abs."""
    def absolute_(self) -> Tensor:
        """The same as abs_."""
    def acos(self) -> Tensor:
        """The inverse cosine, in [0, pi]."""
    def acos_(self) -> Tensor:
        """In-place version of acos."""
    def acosh(self) -> Tensor:
        """The inverse hyperbolic cosine."""
    def acosh_(self) -> Tensor:
        """In-place version of acosh."""
    def add(self, other: _Operand, *, alpha: _Number = 1) -> Tensor:
        """self + alpha * other."""
    def add_(self, other: _Operand, *, alpha: _Number = 1) -> Tensor:
        """In-place version of add."""
    def addbmm(self, batch1: Tensor, batch2: Tensor, *, beta: _Number = 1, alpha: _Number = 1) -> Tensor:
        """beta * self + alpha * the sum over batches of (batch1 x batch2)."""
    def addcdiv(self, tensor1: Tensor, tensor2: Tensor, *, value: _Number = 1) -> Tensor:
        """self + value * tensor1 / tensor2."""
    def addcdiv_(self, tensor1: Tensor, tensor2: Tensor, *, value: _Number = 1) -> Tensor:
        """In-place version of addcdiv."""
    def addcmul(self, tensor1: Tensor, tensor2: Tensor, *, value: _Number = 1) -> Tensor:
        """self + value * tensor1 * tensor2."""
    def addcmul_(self, tensor1: Tensor, tensor2: Tensor, *, value: _Number = 1) -> Tensor:
        """In-place version of addcmul."""
    def addmm(self, mat1: Tensor, mat2: Tensor, *, beta: _Number = 1, alpha: _Number = 1) -> Tensor:
        """beta * self + alpha * (mat1 x mat2)."""
    def addmv(self, mat: Tensor, vec: Tensor, *, beta: _Number = 1, alpha: _Number = 1) -> Tensor:
        """beta * self + alpha * (mat x vec)."""
    def addr(self, vec1: Tensor, vec2: Tensor, *, beta: _Number = 1, alpha: _Number = 1) -> Tensor:
        """beta * self + alpha * (vec1 outer vec2)."""
    def all(self, dim: _Int | _Ints | None = None, keepdim: _bool = False) -> Tensor:
        """Whether all elements are non-zero; bool, but uint8 for uint8."""
    def allclose(
        self, other: Tensor, rtol: _Float = 1e-05, atol: _Float = 1e-08, equal_nan: _bool = False
    ) -> _bool:
        """Whether |self - other| <= atol + rtol * |other| everywhere."""
    def amax(self, dim: _Int | _Ints = ..., keepdim: _bool = False) -> Tensor:
        """The largest elements over dimensions; ties share the gradient evenly."""
    def amin(self, dim: _Int | _Ints = ..., keepdim: _bool = False) -> Tensor:
        """The smallest elements over dimensions; ties share the gradient evenly."""
    def aminmax(self, *, dim: _Int | None = None, keepdim: _bool = False) -> _MinMax:
        """The smallest and the largest elements."""
    def any(self, dim: _Int | _Ints | None = None, keepdim: _bool = False) -> Tensor:
        """Whether any element is non-zero; bool, but uint8 for uint8."""
    def arccos(self) -> Tensor:
        """The same as acos."""
    def arccos_(self) -> Tensor:
        """The same as acos_."""
    def arccosh(self) -> Tensor:
        """The same as acosh."""
    def arccosh_(self) -> Tensor:
        """The same as acosh_."""
    def arcsin(self) -> Tensor:
        """The same as asin."""
    def arcsin_(self) -> Tensor:
        """The same as asin_."""
    def arcsinh(self) -> Tensor:
        """The same as asinh."""
    def arcsinh_(self) -> Tensor:
        """The same as asinh_."""
    def arctan(self) -> Tensor:
        """The same as atan."""
    def arctan2(self, other: _Operand) -> Tensor:
        """The same as atan2."""
    def arctan2_(self, other: _Operand) -> Tensor:
        """In-place version of arctan2."""
    def arctan_(self) -> Tensor:
        """The same as atan_."""
    def arctanh(self) -> Tensor:
        """The same as atanh."""
    def arctanh_(self) -> Tensor:
        """The same as atanh_."""
    def argmax(self, dim: _Int | None = None, keepdim: _bool = False) -> Tensor:
        """Where the largest element comes first; in the flattened tensor without `dim`."""
    def argmin(self, dim: _Int | None = None, keepdim: _bool = False) -> Tensor:
        """Where the smallest element comes first; in the flattened tensor without `dim`."""
    @overload
    def argsort(self, dim: _Int = -1, descending: _bool = False) -> Tensor:
        """Where the sorted values are."""
    @overload
    def argsort(self, *, stable: _bool = False, dim: _Int = -1, descending: _bool = False) -> Tensor:
        """The same; sorting is always stable."""
    def argwhere(self) -> Tensor:
        """The indices of the nonzero elements in row-major order, int64 [count, rank]."""
    def as_strided(self, size: _Ints, stride: _Ints, storage_offset: _Int | None = None) -> Tensor:
        """Any geometry over the storage of `self`."""
    def asin(self) -> Tensor:
        """The inverse sine, in [-pi/2, pi/2]."""
    def asin_(self) -> Tensor:
        """In-place version of asin."""
    def asinh(self) -> Tensor:
        """The inverse hyperbolic sine."""
    def asinh_(self) -> Tensor:
        """In-place version of asinh."""
    def atan(self) -> Tensor:
        """The inverse tangent, in [-pi/2, pi/2]."""
    def atan2(self, other: _Operand) -> Tensor:
        """The angle of the point (x=other, y=self), in [-pi, pi]."""
    def atan2_(self, other: _Operand) -> Tensor:
        """In-place version of atan2."""
    def atan_(self) -> Tensor:
        """In-place version of atan."""
    def atanh(self) -> Tensor:
        """The inverse hyperbolic tangent."""
    def atanh_(self) -> Tensor:
        """In-place version of atanh."""
    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: _bool | None = None,
        create_graph: _bool = False,
        inputs: Any = None,
    ) -> None: ...
    def baddbmm(self, batch1: Tensor, batch2: Tensor, *, beta: _Number = 1, alpha: _Number = 1) -> Tensor:
        """beta * self + alpha * (batch1 x batch2), batch by batch."""
    @overload
    def bernoulli(self, *, generator: Generator | None = None) -> Tensor:
        """1 with the probability that each element gives, else 0."""
    @overload
    def bernoulli(self, p: _Float, *, generator: Generator | None = None) -> Tensor:
        """1 with probability p, else 0, in the shape of `self`."""
    @overload
    def bernoulli_(self, p: _Float = 0.5, *, generator: Generator | None = None) -> Tensor:
        """Overwrites this tensor with 1 with probability p, else 0."""
    @overload
    def bernoulli_(self, p: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Overwrites this tensor with 1 with the given probabilities, else 0."""
    def bfloat16(self, memory_format: _memory_format | None = None) -> Tensor:
        """This tensor as bfloat16; itself if it already is."""
    def bitwise_and(self, other: _Operand) -> Tensor:
        """Bitwise and of integers or bools."""
    def bitwise_and_(self, other: _Operand) -> Tensor:
        """In-place version of bitwise_and."""
    def bitwise_left_shift(self, other: _Operand) -> Tensor:
        """self * 2^other for integers."""
    def bitwise_left_shift_(self, other: _Operand) -> Tensor:
        """In-place version of bitwise_left_shift."""
    def bitwise_not(self) -> Tensor:
        """Every bit inverted; of a bool, logical not."""
    def bitwise_not_(self) -> Tensor:
        """In-place version of bitwise_not."""
    def bitwise_or(self, other: _Operand) -> Tensor:
        """Bitwise or of integers or bools."""
    def bitwise_or_(self, other: _Operand) -> Tensor:
        """In-place version of bitwise_or."""
    def bitwise_right_shift(self, other: _Operand) -> Tensor:
        """self / 2^other for integers, rounded down."""
    def bitwise_right_shift_(self, other: _Operand) -> Tensor:
        """In-place version of bitwise_right_shift."""
    def bitwise_xor(self, other: _Operand) -> Tensor:
        """Bitwise exclusive or of integers or bools."""
    def bitwise_xor_(self, other: _Operand) -> Tensor:
        """In-place version of bitwise_xor."""
    def bmm(self, mat2: Tensor) -> Tensor:
        """[b, m, k] x [b, k, n] -> [b, m, n]."""
    def bool(self, memory_format: _memory_format | None = None) -> Tensor:
        """This tensor as bool; itself if it already is."""
    def broadcast_to(self, size: _Ints) -> Tensor:
        """Repeats dimensions of size 1 without copying; -1 keeps a size."""
    def byte(self, memory_format: _memory_format | None = None) -> Tensor:
        """This tensor as uint8; itself if it already is."""
    def ceil(self) -> Tensor:
        """The smallest integer that is not less."""
    def ceil_(self) -> Tensor:
        """In-place version of ceil."""
    def char(self, memory_format: _memory_format | None = None) -> Tensor:
        """This tensor as int8; itself if it already is."""
    def chunk(self, chunks: _Int, dim: _Int = 0) -> tuple[Tensor, ...]:
        """At most `chunks` parts of equal size along `dim`; the last one may be smaller."""
    def clamp(self, min: _Operand | None = None, max: _Operand | None = None) -> Tensor:
        """self kept in [min, max]; max wins if they cross."""
    def clamp_(self, min: _Operand | None = None, max: _Operand | None = None) -> Tensor:
        """In-place version of clamp."""
    def clamp_max(self, max: _Operand) -> Tensor:
        """The smaller of self and max."""
    def clamp_max_(self, max: _Operand) -> Tensor:
        """In-place version of clamp_max."""
    def clamp_min(self, min: _Operand) -> Tensor:
        """The larger of self and min."""
    def clamp_min_(self, min: _Operand) -> Tensor:
        """In-place version of clamp_min."""
    def clip(self, min: _Operand | None = None, max: _Operand | None = None) -> Tensor:
        """The same as clamp."""
    def clip_(self, min: _Operand | None = None, max: _Operand | None = None) -> Tensor:
        """In-place version of clip."""
    def clone(self, *, memory_format: _memory_format | None = None) -> Tensor:
        """A copy with its own memory."""
    def contiguous(self, memory_format: _memory_format = contiguous_format) -> Tensor:
        """This tensor with row-major strides; itself if it already has them."""
    def copy_(self, other: Tensor, non_blocking: _bool = False) -> Tensor:
        """Writes `src`, broadcast and converted, over this tensor."""
    def copysign(self, other: _Operand) -> Tensor:
        """The size of self with the sign of other."""
    def copysign_(self, other: _Operand) -> Tensor:
        """In-place version of copysign."""
    def cos(self) -> Tensor:
        """The cosine of an angle in radians."""
    def cos_(self) -> Tensor:
        """In-place version of cos."""
    def cosh(self) -> Tensor:
        """The hyperbolic cosine."""
    def cosh_(self) -> Tensor:
        """In-place version of cosh."""
    def count_nonzero(self, dim: _Int | _Ints | None = None) -> Tensor:
        """How many elements are non-zero, as int64."""
    def cpu(self, memory_format: Any = None) -> Tensor: ...
    def cuda(self, device: Any = None, non_blocking: _bool = False, memory_format: Any = None) -> Tensor: ...
    def cummax(self, dim: _Int) -> _ValuesIndices:
        """The largest element so far along a dimension and where it is."""
    def cummin(self, dim: _Int) -> _ValuesIndices:
        """The smallest element so far along a dimension and where it is."""
    def cumprod(self, dim: _Int, *, dtype: _DType | None = None) -> Tensor:
        """Running products along a dimension."""
    def cumsum(self, dim: _Int, *, dtype: _DType | None = None) -> Tensor:
        """Running sums along a dimension."""
    def deg2rad(self) -> Tensor:
        """Degrees to radians."""
    def deg2rad_(self) -> Tensor:
        """In-place version of deg2rad."""
    def detach(self) -> Tensor:
        """The same memory outside the graph."""
    def detach_(self) -> Tensor:
        """Takes this tensor out of the graph."""
    def diag(self, diagonal: _Int = 0) -> Tensor:
        """The diagonal of a matrix, or the matrix with a vector as its diagonal."""
    def diag_embed(self, offset: _Int = 0, dim1: _Int = -2, dim2: _Int = -1) -> Tensor:
        """Matrices of zeros with the last dimension of `self` as their diagonals."""
    def diagflat(self, offset: _Int = 0) -> Tensor:
        """The matrix with all elements of `self` as its diagonal."""
    def diagonal(self, offset: _Int = 0, dim1: _Int = 0, dim2: _Int = 1) -> Tensor:
        """The diagonals of the matrices in dimensions dim1 and dim2, as a new last dimension."""
    def diagonal_scatter(self, src: Tensor, offset: _Int = 0, dim1: _Int = 0, dim2: _Int = 1) -> Tensor:
        """`self` with `src` in place of its diagonals."""
    def digamma(self) -> Tensor:
        """The derivative of lgamma."""
    def digamma_(self) -> Tensor:
        """In-place version of digamma."""
    def div(self, other: _Operand, *, rounding_mode: str | None = None) -> Tensor:
        """self / other: floating point also for integers, or rounded by 'trunc' or 'floor'."""
    def div_(self, other: _Operand, *, rounding_mode: str | None = None) -> Tensor:
        """In-place version of div."""
    def divide(self, other: _Operand, *, rounding_mode: str | None = None) -> Tensor:
        """self / other: floating point also for integers, or rounded by 'trunc' or 'floor'."""
    def divide_(self, other: _Operand, *, rounding_mode: str | None = None) -> Tensor:
        """In-place version of div."""
    def dot(self, tensor: Tensor) -> Tensor:
        """The scalar product of two vectors."""
    def double(self, memory_format: _memory_format | None = None) -> Tensor:
        """This tensor as float64; itself if it already is."""
    @overload
    def dsplit(self, sections: _Int) -> tuple[Tensor, ...]:
        """Equal parts along dimension 2."""
    @overload
    def dsplit(self, indices: _Ints) -> tuple[Tensor, ...]:
        """Parts along dimension 2 that end before each of the indices."""
    def eq(self, other: _Operand) -> Tensor:
        """Whether self == other."""
    def eq_(self, other: _Operand) -> Tensor:
        """In-place version of eq."""
    def equal(self, other: Tensor) -> _bool:
        """Whether both have the same shape and values."""
    def erf(self) -> Tensor:
        """The error function, 2/sqrt(pi) times the integral of e^(-t^2) from 0 to x."""
    def erf_(self) -> Tensor:
        """In-place version of erf."""
    def erfc(self) -> Tensor:
        """The complementary error function, 1 - erf(x)."""
    def erfc_(self) -> Tensor:
        """In-place version of erfc."""
    def erfinv(self) -> Tensor:
        """The inverse of erf; infinite at -1 and 1, NaN beyond."""
    def erfinv_(self) -> Tensor:
        """In-place version of erfinv."""
    def exp(self) -> Tensor:
        """The exponential, e^x."""
    def exp2(self) -> Tensor:
        """2^x."""
    def exp2_(self) -> Tensor:
        """In-place version of exp2."""
    def exp_(self) -> Tensor:
        """In-place version of exp."""
    @overload
    def expand(self, size: _Ints) -> Tensor:
        """Repeats dimensions of size 1 without copying; -1 keeps a size."""
    @overload
    def expand(self, *size: _Int) -> Tensor:
        """Repeats dimensions of size 1 without copying; -1 keeps a size."""
    def expand_as(self, other: Tensor) -> Tensor:
        """expand() to the shape of `other`."""
    def expm1(self) -> Tensor:
        """e^x - 1, exact near 0."""
    def expm1_(self) -> Tensor:
        """In-place version of expm1."""
    @overload
    def fill_(self, value: Tensor) -> Tensor:
        """Writes a 0-d tensor to every element."""
    @overload
    def fill_(self, value: _Number) -> Tensor:
        """Writes `value` to every element."""
    def fill_diagonal_(self, fill_value: _Number, wrap: _bool = False) -> Tensor:
        """Writes a number to the main diagonal; `wrap` restarts it below for tall matrices."""
    def fix(self) -> Tensor:
        """The same as trunc."""
    def fix_(self) -> Tensor:
        """The same as trunc_."""
    def flatten(self, start_dim: _Int = 0, end_dim: _Int = -1) -> Tensor:
        """Dimensions start_dim to end_dim as one; a view where strides allow it, else a copy."""
    @overload
    def flip(self, dims: _Ints) -> Tensor:
        """A copy with the order of the dimensions reversed."""
    @overload
    def flip(self, *dims: _Int) -> Tensor:
        """A copy with the order of the dimensions reversed."""
    def fliplr(self) -> Tensor:
        """A copy with the order of dimension 1 reversed."""
    def flipud(self) -> Tensor:
        """A copy with the order of dimension 0 reversed."""
    def float(self, memory_format: _memory_format | None = None) -> Tensor:
        """This tensor as float32; itself if it already is."""
    def floor(self) -> Tensor:
        """The largest integer that is not greater."""
    def floor_(self) -> Tensor:
        """In-place version of floor."""
    def floor_divide(self, other: _Operand) -> Tensor:
        """The quotient rounded down."""
    def floor_divide_(self, other: _Operand) -> Tensor:
        """In-place version of floor_divide."""
    def fmax(self, other: _Operand) -> Tensor:
        """The larger of both operands; NaN only if both are."""
    def fmin(self, other: _Operand) -> Tensor:
        """The smaller of both operands; NaN only if both are."""
    def fmod(self, other: _Operand) -> Tensor:
        """a - b * trunc(a / b), with the sign of a."""
    def fmod_(self, other: _Operand) -> Tensor:
        """In-place version of fmod."""
    def frac(self) -> Tensor:
        """What follows the point: x - trunc(x)."""
    def frac_(self) -> Tensor:
        """In-place version of frac."""
    def gather(self, dim: _Int, index: Tensor) -> Tensor:
        """y[i, j, k] = self[index[i, j, k], j, k] for dim 0, and so on; the result has the shape of `index`."""
    def gcd(self, other: _Operand) -> Tensor:
        """The greatest common divisor of two integers."""
    def gcd_(self, other: _Operand) -> Tensor:
        """In-place version of gcd."""
    def ge(self, other: _Operand) -> Tensor:
        """Whether self >= other."""
    def ge_(self, other: _Operand) -> Tensor:
        """In-place version of ge."""
    def get_device(self) -> _int: ...
    def greater(self, other: _Operand) -> Tensor:
        """The same as gt."""
    def greater_(self, other: _Operand) -> Tensor:
        """In-place version of greater."""
    def greater_equal(self, other: _Operand) -> Tensor:
        """The same as ge."""
    def greater_equal_(self, other: _Operand) -> Tensor:
        """In-place version of greater_equal."""
    def gt(self, other: _Operand) -> Tensor:
        """Whether self > other."""
    def gt_(self, other: _Operand) -> Tensor:
        """In-place version of gt."""
    def half(self, memory_format: _memory_format | None = None) -> Tensor:
        """This tensor as float16; itself if it already is."""
    @overload
    def hsplit(self, sections: _Int) -> tuple[Tensor, ...]:
        """Equal parts along dimension 1, or 0 for vectors."""
    @overload
    def hsplit(self, indices: _Ints) -> tuple[Tensor, ...]:
        """Parts along dimension 1, or 0 for vectors, that end before each of the indices."""
    def hypot(self, other: _Operand) -> Tensor:
        """sqrt(self^2 + other^2)."""
    def hypot_(self, other: _Operand) -> Tensor:
        """In-place version of hypot."""
    def index_add(self, dim: _Int, index: Tensor, source: Tensor, *, alpha: _Number = 1) -> Tensor:
        """`self` with alpha * source added to the entries `index` of dimension `dim`; repeated ones add up in order."""
    def index_add_(self, dim: _Int, index: Tensor, source: Tensor, *, alpha: _Number = 1) -> Tensor:
        """In-place version of index_add."""
    def index_copy(self, dim: _Int, index: Tensor, source: Tensor) -> Tensor:
        """`self` with `source` written over the entries `index` of dimension `dim`."""
    def index_copy_(self, dim: _Int, index: Tensor, source: Tensor) -> Tensor:
        """In-place version of index_copy."""
    def index_fill(self, dim: _Int, index: Tensor, value: _Operand) -> Tensor:
        """`self` with `value` (0-d) written over the entries `index` of dimension `dim`."""
    def index_fill_(self, dim: _Int, index: Tensor, value: _Operand) -> Tensor:
        """In-place version of index_fill."""
    def index_put(self, indices: Sequence[Tensor], values: Tensor, accumulate: _bool = False) -> Tensor:
        """A copy of `self` after index_put_."""
    def index_put_(self, indices: Sequence[Tensor], values: Tensor, accumulate: _bool = False) -> Tensor:
        """self[indices] = values, or += values with `accumulate`; the index tensors broadcast together."""
    def index_select(self, dim: _Int, index: Tensor) -> Tensor:
        """The entries `index` [n] of dimension `dim`, which becomes n long."""
    def inner(self, other: Tensor) -> Tensor:
        """Scalar products of the last dimension of both: [..., k] and [*, k] -> [..., *]."""
    def int(self, memory_format: _memory_format | None = None) -> Tensor:
        """This tensor as int32; itself if it already is."""
    def is_contiguous(self, memory_format: Any = None) -> _bool: ...
    def is_pinned(self, device: Any = None) -> _bool: ...
    def isclose(
        self, other: Tensor, rtol: _Float = 1e-05, atol: _Float = 1e-08, equal_nan: _bool = False
    ) -> Tensor:
        """Whether |self - other| <= atol + rtol * |other|, element by element."""
    def isfinite(self) -> Tensor:
        """Whether the element is neither NaN nor infinite."""
    def isinf(self) -> Tensor:
        """Whether the element is infinite."""
    def isnan(self) -> Tensor:
        """Whether the element is NaN."""
    def isneginf(self) -> Tensor:
        """Whether the element is negative infinity."""
    def isposinf(self) -> Tensor:
        """Whether the element is positive infinity."""
    def kron(self, other: Tensor) -> Tensor:
        """The Kronecker product: `other` scaled by each element of `self`, as blocks."""
    def kthvalue(self, k: _Int, dim: _Int = -1, keepdim: _bool = False) -> _ValuesIndices:
        """The k-th smallest value along a dimension, counted from 1, and where it is."""
    @property
    def layout(self) -> _layout: ...
    def lcm(self, other: _Operand) -> Tensor:
        """The least common multiple of two integers."""
    def lcm_(self, other: _Operand) -> Tensor:
        """In-place version of lcm."""
    def ldexp(self, other: _Operand) -> Tensor:
        """self * 2^other."""
    def ldexp_(self, other: _Operand) -> Tensor:
        """In-place version of ldexp."""
    def le(self, other: _Operand) -> Tensor:
        """Whether self <= other."""
    def le_(self, other: _Operand) -> Tensor:
        """In-place version of le."""
    def lerp(self, end: Tensor, weight: _Operand) -> Tensor:
        """self + weight * (end - self)."""
    def lerp_(self, end: Tensor, weight: _Operand) -> Tensor:
        """In-place version of lerp."""
    def less(self, other: _Operand) -> Tensor:
        """The same as lt."""
    def less_(self, other: _Operand) -> Tensor:
        """In-place version of less."""
    def less_equal(self, other: _Operand) -> Tensor:
        """The same as le."""
    def less_equal_(self, other: _Operand) -> Tensor:
        """In-place version of less_equal."""
    def lgamma(self) -> Tensor:
        """The logarithm of |Gamma(x)|."""
    def lgamma_(self) -> Tensor:
        """In-place version of lgamma."""
    def log(self) -> Tensor:
        """The natural logarithm."""
    def log10(self) -> Tensor:
        """The logarithm to base 10."""
    def log10_(self) -> Tensor:
        """In-place version of log10."""
    def log1p(self) -> Tensor:
        """ln(1 + x), exact near 0."""
    def log1p_(self) -> Tensor:
        """In-place version of log1p."""
    def log2(self) -> Tensor:
        """The logarithm to base 2."""
    def log2_(self) -> Tensor:
        """In-place version of log2."""
    def log_(self) -> Tensor:
        """In-place version of log."""
    def log_softmax(self, dim: _Int, dtype: _DType | None = None) -> Tensor:
        """x - log(sum(exp(x))) along a dimension."""
    def logaddexp(self, other: _Operand) -> Tensor:
        """ln(e^self + e^other), without overflow."""
    def logaddexp2(self, other: _Operand) -> Tensor:
        """log2(2^self + 2^other), without overflow."""
    def logcumsumexp(self, dim: _Int) -> Tensor:
        """log(cumsum(exp(x))) along a dimension, without overflow."""
    def logical_and(self, other: _Operand) -> Tensor:
        """Whether both operands are nonzero."""
    def logical_and_(self, other: _Operand) -> Tensor:
        """In-place version of logical_and."""
    def logical_not(self) -> Tensor:
        """Whether the element is zero."""
    def logical_not_(self) -> Tensor:
        """In-place version of logical_not."""
    def logical_or(self, other: _Operand) -> Tensor:
        """Whether an operand is nonzero."""
    def logical_or_(self, other: _Operand) -> Tensor:
        """In-place version of logical_or."""
    def logical_xor(self, other: _Operand) -> Tensor:
        """Whether exactly one operand is nonzero."""
    def logical_xor_(self, other: _Operand) -> Tensor:
        """In-place version of logical_xor."""
    def logit(self, eps: _Float | None = None) -> Tensor:
        """ln(x / (1 - x)), of x kept in [eps, 1 - eps] if eps is given."""
    def logit_(self, eps: _Float | None = None) -> Tensor:
        """In-place version of logit."""
    def logsumexp(self, dim: _Int | _Ints, keepdim: _bool = False) -> Tensor:
        """log(sum(exp(x))) over dimensions, without overflow."""
    def long(self, memory_format: _memory_format | None = None) -> Tensor:
        """This tensor as int64; itself if it already is."""
    def lt(self, other: _Operand) -> Tensor:
        """Whether self < other."""
    def lt_(self, other: _Operand) -> Tensor:
        """In-place version of lt."""
    def masked_fill(self, mask: Tensor, value: _Operand) -> Tensor:
        """`value` (0-d) where `mask` is true, `self` elsewhere; both broadcast."""
    def masked_fill_(self, mask: Tensor, value: _Operand) -> Tensor:
        """In-place version of masked_fill."""
    def masked_scatter(self, mask: Tensor, source: Tensor) -> Tensor:
        """`self` with the first elements of `source` in order where `mask` is true."""
    def masked_scatter_(self, mask: Tensor, source: Tensor) -> Tensor:
        """In-place version of masked_scatter."""
    def masked_select(self, mask: Tensor) -> Tensor:
        """The elements [count] where `mask` is true; both broadcast."""
    def matmul(self, other: Tensor) -> Tensor:
        """The matrix product; vectors are rows or columns, leading dimensions broadcast."""
    @overload
    def max(self) -> Tensor:
        """The largest element; NaN if there is one."""
    @overload
    def max(self, dim: _Int, keepdim: _bool = False) -> _ValuesIndices:
        """The largest elements along a dimension and where they come first."""
    @overload
    def max(self, other: Tensor) -> Tensor:
        """The larger of both, element by element."""
    def maximum(self, other: _Operand) -> Tensor:
        """The larger of both operands; NaN if either is. Equal operands share the gradient."""
    def mean(
        self, dim: _Int | _Ints | None = None, keepdim: _bool = False, *, dtype: _DType | None = None
    ) -> Tensor:
        """The mean over the given dimensions, all if none are given."""
    @overload
    def median(self) -> Tensor:
        """The lower of the two middle values."""
    @overload
    def median(self, dim: _Int, keepdim: _bool = False) -> _ValuesIndices:
        """The lower of the two middle values along a dimension and where one is."""
    @overload
    def min(self) -> Tensor:
        """The smallest element; NaN if there is one."""
    @overload
    def min(self, dim: _Int, keepdim: _bool = False) -> _ValuesIndices:
        """The smallest elements along a dimension and where they come first."""
    @overload
    def min(self, other: Tensor) -> Tensor:
        """The smaller of both, element by element."""
    def minimum(self, other: _Operand) -> Tensor:
        """The smaller of both operands; NaN if either is. Equal operands share the gradient."""
    def mm(self, mat2: Tensor) -> Tensor:
        """[m, k] x [k, n] -> [m, n]."""
    @overload
    def moveaxis(self, source: _Int, destination: _Int) -> Tensor:
        """Moves a dimension; the others keep their order."""
    @overload
    def moveaxis(self, source: _Ints, destination: _Ints) -> Tensor:
        """Moves dimension source[i] to destination[i]; the others keep their order."""
    @overload
    def movedim(self, source: _Int, destination: _Int) -> Tensor:
        """Moves a dimension; the others keep their order."""
    @overload
    def movedim(self, source: _Ints, destination: _Ints) -> Tensor:
        """Moves dimension source[i] to destination[i]; the others keep their order."""
    def mul(self, other: _Operand) -> Tensor:
        """The product of both operands."""
    def mul_(self, other: _Operand) -> Tensor:
        """In-place version of mul."""
    def multinomial(
        self, num_samples: _Int, replacement: _bool = False, *, generator: Generator | None = None
    ) -> Tensor:
        """`num_samples` column numbers for each row of weights [n] or [rows, n]."""
    def multiply(self, other: _Operand) -> Tensor:
        """The same as mul."""
    def multiply_(self, other: _Operand) -> Tensor:
        """In-place version of multiply."""
    def mv(self, vec: Tensor) -> Tensor:
        """[m, k] x [k] -> [m]."""
    def nan_to_num(
        self, nan: _Float | None = None, posinf: _Float | None = None, neginf: _Float | None = None
    ) -> Tensor:
        """NaN and the infinities replaced, by default by 0 and the largest values of the dtype."""
    def nan_to_num_(
        self, nan: _Float | None = None, posinf: _Float | None = None, neginf: _Float | None = None
    ) -> Tensor:
        """In-place version of nan_to_num."""
    def nanmean(
        self, dim: _Int | _Ints | None = None, keepdim: _bool = False, *, dtype: _DType | None = None
    ) -> Tensor:
        """The mean of what is not NaN."""
    def nansum(
        self, dim: _Int | _Ints | None = None, keepdim: _bool = False, *, dtype: _DType | None = None
    ) -> Tensor:
        """As sum(), with NaN counted as zero."""
    def narrow(self, dim: _Int, start: _Int, length: _Int) -> Tensor:
        """`length` indices of dimension `dim` from `start`."""
    def ne(self, other: _Operand) -> Tensor:
        """Whether self != other."""
    def ne_(self, other: _Operand) -> Tensor:
        """In-place version of ne."""
    def neg(self) -> Tensor:
        """The negative, -x."""
    def neg_(self) -> Tensor:
        """In-place version of neg."""
    def negative(self) -> Tensor:
        """The same as neg."""
    def negative_(self) -> Tensor:
        """The same as neg_."""
    @overload
    def new_empty(
        self,
        size: _Ints,
        *,
        dtype: _DType | None = None,
        device: _Device | None = None,
        requires_grad: _bool = False,
    ) -> Tensor:
        """Unset values in this dtype."""
    @overload
    def new_empty(
        self,
        *size: _Int,
        dtype: _DType | None = None,
        device: _Device | None = None,
        requires_grad: _bool = False,
    ) -> Tensor:
        """Unset values in this dtype."""
    def new_full(
        self,
        size: _Ints,
        fill_value: _Number,
        *,
        dtype: _DType | None = None,
        device: _Device | None = None,
        requires_grad: _bool = False,
    ) -> Tensor:
        """One value in this dtype."""
    @overload
    def new_ones(
        self,
        size: _Ints,
        *,
        dtype: _DType | None = None,
        device: _Device | None = None,
        requires_grad: _bool = False,
    ) -> Tensor:
        """Ones in this dtype."""
    @overload
    def new_ones(
        self,
        *size: _Int,
        dtype: _DType | None = None,
        device: _Device | None = None,
        requires_grad: _bool = False,
    ) -> Tensor:
        """Ones in this dtype."""
    def new_tensor(
        self, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: _bool = False
    ) -> Tensor: ...
    @overload
    def new_zeros(
        self,
        size: _Ints,
        *,
        dtype: _DType | None = None,
        device: _Device | None = None,
        requires_grad: _bool = False,
    ) -> Tensor:
        """Zeros in this dtype."""
    @overload
    def new_zeros(
        self,
        *size: _Int,
        dtype: _DType | None = None,
        device: _Device | None = None,
        requires_grad: _bool = False,
    ) -> Tensor:
        """Zeros in this dtype."""
    @overload
    def nonzero(self, *, as_tuple: Literal[False] = False) -> Tensor:
        """The indices of the nonzero elements in row-major order, int64 [count, rank]; with as_tuple one tensor for each dimension."""
    @overload
    def nonzero(self, *, as_tuple: Literal[True]) -> tuple[Tensor, ...]:
        """The indices of the nonzero elements in row-major order, int64 [count, rank]; with as_tuple one tensor for each dimension."""
    @overload
    def nonzero(self, *, as_tuple: _bool = False) -> Tensor | tuple[Tensor, ...]:
        """The indices of the nonzero elements in row-major order, int64 [count, rank]; with as_tuple one tensor for each dimension."""
    @overload
    def norm(
        self,
        p: _Number | None = 2,
        dim: _Int | _Ints | None = None,
        keepdim: _bool = False,
        dtype: _DType | None = None,
    ) -> Tensor:
        """The p-norm (sum |x|^p)^(1/p) of the elements over dimensions; p may be 0 and +-inf."""
    @overload
    def norm(
        self, p: str, dim: _Int | _Ints | None = None, keepdim: _bool = False, dtype: _DType | None = None
    ) -> Tensor:
        """The Frobenius norm for p='fro'."""
    def normal_(self, mean: _Float = 0.0, std: _Float = 1.0, *, generator: Generator | None = None) -> Tensor:
        """Overwrites this tensor with normal numbers."""
    def not_equal(self, other: _Operand) -> Tensor:
        """The same as ne."""
    def not_equal_(self, other: _Operand) -> Tensor:
        """In-place version of not_equal."""
    def outer(self, vec2: Tensor) -> Tensor:
        """[m] x [n] -> [m, n]."""
    @overload
    def permute(self, dims: _Ints) -> Tensor:
        """Dimension i of the result is dimension dims[i] of `self`."""
    @overload
    def permute(self, *dims: _Int) -> Tensor:
        """Dimension i of the result is dimension dims[i] of `self`."""
    def pin_memory(self, device: Any = None) -> Tensor: ...
    def positive(self) -> Tensor:
        """The tensor itself."""
    def pow(self, exponent: _Operand) -> Tensor:
        """self to the power of exponent."""
    def pow_(self, exponent: _Operand) -> Tensor:
        """In-place version of pow."""
    def prelu(self, weight: Tensor) -> Tensor:
        """The same as nn.functional.prelu."""
    @overload
    def prod(self, *, dtype: _DType | None = None) -> Tensor:
        """The product of all elements; integers are multiplied as int64."""
    @overload
    def prod(self, dim: _Int, keepdim: _bool = False, *, dtype: _DType | None = None) -> Tensor:
        """The product along a dimension."""
    def rad2deg(self) -> Tensor:
        """Radians to degrees."""
    def rad2deg_(self) -> Tensor:
        """In-place version of rad2deg."""
    @overload
    def random_(self, to: _Int, *, generator: Generator | None = None) -> Tensor:
        """Overwrites this tensor with integers in [0, to)."""
    @overload
    def random_(
        self, from_: _Int = 0, /, to: _Int | None = None, *, generator: Generator | None = None
    ) -> Tensor:
        """Overwrites this tensor with integers in [from, to); all that the dtype holds exactly if `to` is not given."""
    def ravel(self) -> Tensor:
        """All elements as one dimension."""
    def reciprocal(self) -> Tensor:
        """1 / x."""
    def reciprocal_(self) -> Tensor:
        """In-place version of reciprocal."""
    def record_stream(self, stream: Any) -> None: ...
    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> TensorHookHandle: ...
    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> TensorHookHandle: ...
    def relu(self) -> Tensor:
        """The rectified linear unit, max(0, x)."""
    def relu_(self) -> Tensor:
        """In-place version of relu."""
    def remainder(self, other: _Operand) -> Tensor:
        """a - b * floor(a / b), with the sign of b."""
    def remainder_(self, other: _Operand) -> Tensor:
        """In-place version of remainder."""
    @overload
    def repeat(self, repeats: _Ints) -> Tensor:
        """A copy repeated repeats[i] times along dimension i; extra leading entries add dimensions."""
    @overload
    def repeat(self, *repeats: _Int) -> Tensor:
        """A copy repeated repeats[i] times along dimension i; extra leading entries add dimensions."""
    @overload
    def repeat_interleave(
        self, repeats: _Int, dim: _Int | None = None, *, output_size: _Int | None = None
    ) -> Tensor:
        """Each element `repeats` times in place, along `dim` or flat."""
    @overload
    def repeat_interleave(
        self, repeats: Tensor, dim: _Int | None = None, *, output_size: _Int | None = None
    ) -> Tensor:
        """Element i repeats[i] times in place, along `dim` or flat."""
    def requires_grad_(self, requires_grad: _bool = True) -> Tensor: ...
    @overload
    def reshape(self, shape: _Ints) -> Tensor:
        """The same elements in another shape; a view where strides allow it, else a copy."""
    @overload
    def reshape(self, *shape: _Int) -> Tensor:
        """The same elements in another shape; a view where strides allow it, else a copy."""
    def reshape_as(self, other: Tensor) -> Tensor:
        """reshape() to the shape of `other`."""
    def roll(self, shifts: _Int | _Ints, dims: _Int | _Ints = ...) -> Tensor:
        """Moved by `shifts` along `dims`, what falls off put back at the start; flat without `dims`."""
    def rot90(self, k: _Int = 1, dims: _Ints = ...) -> Tensor:
        """Turned by 90 degrees k times from dims[0] to dims[1]."""
    def round(self, *, decimals: _Int = 0) -> Tensor:
        """The nearest multiple of 10^-decimals; halves go to the even one."""
    def round_(self, *, decimals: _Int = 0) -> Tensor:
        """In-place version of round."""
    def rsqrt(self) -> Tensor:
        """1 / sqrt(x)."""
    def rsqrt_(self) -> Tensor:
        """In-place version of rsqrt."""
    def rsub(self, other: _Operand, *, alpha: _Number = 1) -> Tensor:
        """other - alpha * self."""
    @overload
    def scatter(self, dim: _Int, index: Tensor, src: Tensor) -> Tensor:
        """`self` with self[index[i, j, k], j, k] = src[i, j, k] for dim 0, and so on; the last of repeated indices wins."""
    @overload
    def scatter(self, dim: _Int, index: Tensor, value: _Number) -> Tensor:
        """`self` with `value` written at the indices."""
    @overload
    def scatter_(self, dim: _Int, index: Tensor, src: Tensor) -> Tensor:
        """In-place version of scatter."""
    @overload
    def scatter_(self, dim: _Int, index: Tensor, value: _Number) -> Tensor:
        """In-place version of scatter."""
    def scatter_add(self, dim: _Int, index: Tensor, src: Tensor) -> Tensor:
        """As scatter, but values are added; repeated indices add up in order."""
    def scatter_add_(self, dim: _Int, index: Tensor, src: Tensor) -> Tensor:
        """In-place version of scatter_add."""
    def scatter_reduce(
        self, dim: _Int, index: Tensor, src: Tensor, reduce: str, *, include_self: _bool = True
    ) -> Tensor:
        """As scatter, but values of one place are combined by 'sum', 'prod', 'mean', 'amax' or 'amin', with what was there before if `include_self`."""
    def scatter_reduce_(
        self, dim: _Int, index: Tensor, src: Tensor, reduce: str, *, include_self: _bool = True
    ) -> Tensor:
        """In-place version of scatter_reduce."""
    def select(self, dim: _Int, index: _Int) -> Tensor:
        """One index of a dimension, which goes away."""
    def select_scatter(self, src: Tensor, dim: _Int, index: _Int) -> Tensor:
        """`self` with `src` in place of index `index` of dimension `dim`."""
    def short(self, memory_format: _memory_format | None = None) -> Tensor:
        """This tensor as int16; itself if it already is."""
    def sigmoid(self) -> Tensor:
        """The logistic function, 1 / (1 + e^-x)."""
    def sigmoid_(self) -> Tensor:
        """In-place version of sigmoid."""
    def sign(self) -> Tensor:
        """-1, 0 or 1."""
    def sign_(self) -> Tensor:
        """In-place version of sign."""
    def signbit(self) -> Tensor:
        """Whether the sign is negative, also of -0."""
    def sin(self) -> Tensor:
        """The sine of an angle in radians."""
    def sin_(self) -> Tensor:
        """In-place version of sin."""
    def sinc(self) -> Tensor:
        """sin(pi x) / (pi x); 1 at 0."""
    def sinc_(self) -> Tensor:
        """In-place version of sinc."""
    def sinh(self) -> Tensor:
        """The hyperbolic sine."""
    def sinh_(self) -> Tensor:
        """In-place version of sinh."""
    def slice_scatter(
        self, src: Tensor, dim: _Int = 0, start: _Int | None = None, end: _Int | None = None, step: _Int = 1
    ) -> Tensor:
        """`self` with `src` in place of self[start:end:step] of dimension `dim`."""
    def softmax(self, dim: _Int, dtype: _DType | None = None) -> Tensor:
        """exp(x) / sum(exp(x)) along a dimension."""
    @overload
    def sort(self, dim: _Int = -1, descending: _bool = False) -> _ValuesIndices:
        """Sorted values along a dimension and where they were; equal values keep their order."""
    @overload
    def sort(
        self, *, stable: _bool | None = None, dim: _Int = -1, descending: _bool = False
    ) -> _ValuesIndices:
        """The same; sorting is always stable."""
    @overload
    def split(self, split_size_or_sections: _Int, dim: _Int = 0) -> tuple[Tensor, ...]:
        """Parts of the given size along `dim`; the last one may be smaller."""
    @overload
    def split(self, split_size_or_sections: _Ints, dim: _Int = 0) -> tuple[Tensor, ...]:
        """Parts of the given sizes along `dim`."""
    @overload
    def split(self, split_size: _Int, dim: _Int = 0) -> tuple[Tensor, ...]:
        """Parts of the given size along `dim`; the last one may be smaller."""
    @overload
    def split(self, split_size: _Ints, dim: _Int = 0) -> tuple[Tensor, ...]:
        """Parts of the given sizes along `dim`."""
    def split_with_sizes(self, split_sizes: _Ints, dim: _Int = 0) -> tuple[Tensor, ...]:
        """Parts of the given sizes along `dim`."""
    def sqrt(self) -> Tensor:
        """The square root; NaN below zero."""
    def sqrt_(self) -> Tensor:
        """In-place version of sqrt."""
    def square(self) -> Tensor:
        """x^2."""
    def square_(self) -> Tensor:
        """In-place version of square."""
    @overload
    def squeeze(self) -> Tensor:
        """Drops all dimensions of size 1."""
    @overload
    def squeeze(self, dim: _Int | _Ints) -> Tensor:
        """Drops the given dimensions where their size is 1."""
    @overload
    def squeeze_(self) -> Tensor:
        """In-place version of squeeze."""
    @overload
    def squeeze_(self, dim: _Int | _Ints) -> Tensor:
        """In-place version of squeeze."""
    @overload
    def std(self, unbiased: _bool = True) -> Tensor:
        """The standard deviation, the root of var()."""
    @overload
    def std(self, dim: _Int | _Ints | None, unbiased: _bool = True, keepdim: _bool = False) -> Tensor:
        """The standard deviation, the root of var()."""
    @overload
    def std(
        self, dim: _Int | _Ints | None = None, *, correction: _Number | None = 1, keepdim: _bool = False
    ) -> Tensor:
        """The standard deviation, the root of var()."""
    @overload
    def std_mean(self, unbiased: _bool = True) -> tuple[Tensor, Tensor]:
        """The standard deviation and the mean."""
    @overload
    def std_mean(
        self, dim: _Int | _Ints | None, unbiased: _bool = True, keepdim: _bool = False
    ) -> tuple[Tensor, Tensor]:
        """The standard deviation and the mean."""
    @overload
    def std_mean(
        self, dim: _Int | _Ints | None = None, *, correction: _Number | None = 1, keepdim: _bool = False
    ) -> tuple[Tensor, Tensor]:
        """The standard deviation and the mean."""
    def sub(self, other: _Operand, *, alpha: _Number = 1) -> Tensor:
        """self - alpha * other."""
    def sub_(self, other: _Operand, *, alpha: _Number = 1) -> Tensor:
        """In-place version of sub."""
    def subtract(self, other: _Operand, *, alpha: _Number = 1) -> Tensor:
        """The same as sub."""
    def subtract_(self, other: _Operand, *, alpha: _Number = 1) -> Tensor:
        """In-place version of subtract."""
    def sum(
        self, dim: _Int | _Ints | None = None, keepdim: _bool = False, *, dtype: _DType | None = None
    ) -> Tensor:
        """The sum over the given dimensions, all if none are given; integers are summed as int64."""
    @overload
    def sum_to_size(self, size: _Ints) -> Tensor:
        """Sums what broadcasting from `size` to the shape of this tensor repeats."""
    @overload
    def sum_to_size(self, *size: _Int) -> Tensor:
        """Sums what broadcasting from `size` to the shape of this tensor repeats."""
    def swapaxes(self, axis0: _Int, axis1: _Int) -> Tensor:
        """Swaps two dimensions."""
    def swapaxes_(self, axis0: _Int, axis1: _Int) -> Tensor:
        """In-place version of swapaxes."""
    def swapdims(self, dim0: _Int, dim1: _Int) -> Tensor:
        """Swaps two dimensions."""
    def swapdims_(self, dim0: _Int, dim1: _Int) -> Tensor:
        """In-place version of swapdims."""
    def t(self) -> Tensor:
        """The transpose of a matrix; vectors as they are."""
    def t_(self) -> Tensor:
        """In-place version of t."""
    def take(self, index: Tensor) -> Tensor:
        """The elements at the row-major positions `index`, in its shape."""
    def take_along_dim(self, indices: Tensor, dim: _Int | None = None) -> Tensor:
        """gather() with broadcasting; flat without `dim`."""
    def tan(self) -> Tensor:
        """The tangent of an angle in radians."""
    def tan_(self) -> Tensor:
        """In-place version of tan."""
    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
    def tanh_(self) -> Tensor:
        """In-place version of tanh."""
    @overload
    def tensor_split(self, indices_or_sections: _Int, dim: _Int = 0) -> tuple[Tensor, ...]:
        """Exactly that many parts along `dim`, the first ones one longer if it doesn't come out even."""
    @overload
    def tensor_split(self, indices_or_sections: _Ints, dim: _Int = 0) -> tuple[Tensor, ...]:
        """Parts along `dim` that end before each of the indices, and the rest."""
    @overload
    def tensor_split(self, indices_or_sections: Tensor, dim: _Int = 0) -> tuple[Tensor, ...]:
        """As above, from an int64 tensor."""
    @overload
    def tile(self, dims: _Ints) -> Tensor:
        """As repeat, where missing leading entries are 1."""
    @overload
    def tile(self, *dims: _Int) -> Tensor:
        """As repeat, where missing leading entries are 1."""
    @overload
    def to(
        self,
        dtype: _DType,
        non_blocking: _bool = False,
        copy: _bool = False,
        *,
        memory_format: _memory_format | None = None,
    ) -> Tensor:
        """This tensor as `dtype`; itself if it already is, unless `copy` is set."""
    @overload
    def to(
        self,
        device: _Device | None = None,
        dtype: _DType | None = None,
        non_blocking: _bool = False,
        copy: _bool = False,
        *,
        memory_format: _memory_format | None = None,
    ) -> Tensor:
        """This tensor on `device` as `dtype`; itself if it already is, unless `copy` is set."""
    @overload
    def to(
        self,
        other: Tensor,
        non_blocking: _bool = False,
        copy: _bool = False,
        *,
        memory_format: _memory_format | None = None,
    ) -> Tensor:
        """This tensor with the dtype and device of `other`."""
    def topk(self, k: _Int, dim: _Int = -1, largest: _bool = True, sorted: _bool = True) -> _ValuesIndices:
        """The k largest or smallest values along a dimension, in order, and where they are."""
    def trace(self) -> Tensor:
        """The sum of the diagonal of a matrix."""
    def transpose(self, dim0: _Int, dim1: _Int) -> Tensor:
        """Swaps two dimensions."""
    def transpose_(self, dim0: _Int, dim1: _Int) -> Tensor:
        """In-place version of transpose."""
    def tril(self, diagonal: _Int = 0) -> Tensor:
        """The lower triangles of matrices [..., m, n], zeros elsewhere."""
    def tril_(self, diagonal: _Int = 0) -> Tensor:
        """In-place version of tril."""
    def triu(self, diagonal: _Int = 0) -> Tensor:
        """The upper triangles of matrices [..., m, n], zeros elsewhere."""
    def triu_(self, diagonal: _Int = 0) -> Tensor:
        """In-place version of triu."""
    def true_divide(self, other: _Operand) -> Tensor:
        """The same as div."""
    def true_divide_(self, other: _Operand) -> Tensor:
        """In-place version of true_divide."""
    def trunc(self) -> Tensor:
        """The integer part, towards 0."""
    def trunc_(self) -> Tensor:
        """In-place version of trunc."""
    def type(self, dtype: Any = None, non_blocking: _bool = False) -> Any: ...
    def type_as(self, other: Tensor) -> Tensor:
        """This tensor with the dtype of `other`."""
    def unbind(self, dim: _Int = 0) -> tuple[Tensor, ...]:
        """All indices of dimension `dim`, each without that dimension."""
    def unflatten(self, dim: _Int, sizes: _Ints) -> Tensor:
        """Dimension `dim` as several; one of the sizes may be -1."""
    def unfold(self, dimension: _Int, size: _Int, step: _Int) -> Tensor:
        """All windows of `size` elements, `step` apart, of a dimension; their elements come last."""
    def uniform_(
        self, from_: _Float = 0.0, /, to: _Float = 1.0, *, generator: Generator | None = None
    ) -> Tensor:
        """Overwrites this tensor with numbers uniform in [from, to)."""
    def unsqueeze(self, dim: _Int) -> Tensor:
        """Inserts a dimension of size 1."""
    def unsqueeze_(self, dim: _Int) -> Tensor:
        """In-place version of unsqueeze."""
    @overload
    def var(self, unbiased: _bool = True) -> Tensor:
        """The variance; divides by n - correction (n - 1 if unbiased)."""
    @overload
    def var(self, dim: _Int | _Ints | None, unbiased: _bool = True, keepdim: _bool = False) -> Tensor:
        """The variance; divides by n - correction (n - 1 if unbiased)."""
    @overload
    def var(
        self, dim: _Int | _Ints | None = None, *, correction: _Number | None = 1, keepdim: _bool = False
    ) -> Tensor:
        """The variance; divides by n - correction (n - 1 if unbiased)."""
    @overload
    def var_mean(self, unbiased: _bool = True) -> tuple[Tensor, Tensor]:
        """The variance and the mean."""
    @overload
    def var_mean(
        self, dim: _Int | _Ints | None, unbiased: _bool = True, keepdim: _bool = False
    ) -> tuple[Tensor, Tensor]:
        """The variance and the mean."""
    @overload
    def var_mean(
        self, dim: _Int | _Ints | None = None, *, correction: _Number | None = 1, keepdim: _bool = False
    ) -> tuple[Tensor, Tensor]:
        """The variance and the mean."""
    @overload
    def view(self, size: _Ints) -> Tensor:
        """The same memory in another shape; one entry may be -1."""
    @overload
    def view(self, *size: _Int) -> Tensor:
        """The same memory in another shape; one entry may be -1."""
    @overload
    def view(self, dtype: _DType) -> Tensor:
        """The same bytes as another dtype; the last dimension grows or shrinks with the size of an element."""
    def view_as(self, other: Tensor) -> Tensor:
        """view() with the shape of `other`."""
    @overload
    def vsplit(self, sections: _Int) -> tuple[Tensor, ...]:
        """Equal parts along dimension 0."""
    @overload
    def vsplit(self, indices: _Ints) -> tuple[Tensor, ...]:
        """Parts along dimension 0 that end before each of the indices."""
    def where(self, condition: Tensor, other: _Operand) -> Tensor:
        """`self` where condition is true, `other` elsewhere."""
    def xlogy(self, other: _Operand) -> Tensor:
        """self * ln(other); 0 where self is 0, NaN where other is NaN."""
    def xlogy_(self, other: _Operand) -> Tensor:
        """In-place version of xlogy."""
    def zero_(self) -> Tensor:
        """Writes 0 to every element."""

def tensor(
    data: Any, *, dtype: _DType | None = None, device: _Device | None = None, requires_grad: _bool = False
) -> Tensor: ...
def as_tensor(data: Any, dtype: _DType | None = None, device: _Device | None = None) -> Tensor: ...
def from_numpy(ndarray: NDArray[Any]) -> Tensor: ...
def from_dlpack(ext_tensor: Any) -> Tensor: ...

default_generator: Generator

def manual_seed(seed: _int) -> Generator: ...
def seed() -> _int: ...
def initial_seed() -> _int: ...
def get_rng_state() -> Tensor: ...
def set_rng_state(new_state: Tensor) -> None: ...
def get_num_threads() -> _int: ...
def set_num_threads(int: _int) -> None: ...
def get_default_dtype() -> _dtype: ...
def set_default_dtype(d: _DType) -> None: ...
def promote_types(type1: _DType, type2: _DType) -> _dtype: ...
def can_cast(from_: _DType, to: _DType) -> _bool: ...
def is_grad_enabled() -> _bool: ...
def is_inference_mode_enabled() -> _bool: ...
def is_autocast_enabled(device_type: str) -> _bool: ...
def set_autocast_enabled(device_type: str, enabled: _bool) -> None: ...
def get_autocast_dtype(device_type: str) -> _dtype: ...
def set_autocast_dtype(device_type: str, dtype: _DType) -> None: ...
def is_autocast_cache_enabled() -> _bool: ...
def set_autocast_cache_enabled(enabled: _bool) -> None: ...
def clear_autocast_cache() -> None: ...
def broadcast_shapes(*shapes: _int | Sequence[_int]) -> Size: ...
def memory_stats() -> dict[str, _int]: ...
def reset_peak_memory_stats() -> None: ...
def empty_cache() -> None: ...
def set_memory_limit(bytes: _int) -> None: ...

# For the package itself
__version__: str

def _schemas() -> list[dict[str, Any]]: ...
def _info() -> dict[str, Any]: ...
def _kernel_slots() -> list[tuple[_int, str, str, str]]: ...
def _set_grad_enabled(enabled: _bool, /) -> None: ...
def _set_inference_mode(enabled: _bool, /) -> None: ...
def _enter_autocast(
    device_type: str, dtype: _DType, enabled: _bool, cache_enabled: _bool, /
) -> _AutocastRegion: ...
def _leave_autocast(region: _AutocastRegion, /) -> None: ...
def _run_backward(
    tensors: tuple[Tensor, ...],
    gradients: tuple[Tensor | None, ...],
    retain_graph: _bool,
    create_graph: _bool,
    inputs: tuple[Tensor, ...],
    allow_unused: _bool,
    accumulate: _bool,
    /,
) -> tuple[Any, ...]: ...
def _add_hook(tensor: Tensor, hook: Callable[[Tensor], Tensor | None], /) -> _int: ...
def _add_post_accumulate_grad_hook(tensor: Tensor, hook: Callable[[Tensor], None], /) -> _int: ...
def _remove_hook(tensor: Tensor, id: _int, /) -> None: ...
def _same_devices(params: list[Tensor], *columns: list[Tensor]) -> _bool: ...
def _sgd_step(
    params: Iterable[Tensor],
    grads: Iterable[Tensor],
    buffers: Iterable[Tensor],
    lr: _float | Tensor,
    momentum: _float,
    dampening: _float,
    weight_decay: _float,
    nesterov: _bool,
    maximize: _bool,
    first_step: _bool,
    /,
) -> None: ...
def _adam_step(
    params: Iterable[Tensor],
    grads: Iterable[Tensor],
    exp_avgs: Iterable[Tensor],
    exp_avg_sqs: Iterable[Tensor],
    max_exp_avg_sqs: Iterable[Tensor],
    step: _int | Iterable[Tensor],
    lr: _float | Tensor,
    beta1: _float,
    beta2: _float,
    eps: _float,
    weight_decay: _float,
    amsgrad: _bool,
    maximize: _bool,
    decoupled: _bool,
    /,
) -> None: ...
def _unscale(grads: Iterable[Tensor], scale: Tensor, found_inf: Tensor, /) -> None: ...
def _update_scale(
    scale: Tensor,
    growth_tracker: Tensor,
    found_inf: Tensor,
    growth_factor: _float,
    backoff_factor: _float,
    growth_interval: _int,
    /,
) -> None: ...
def _save_safetensors(path: str, tensors: dict[str, Tensor], metadata: Mapping[str, str], /) -> None: ...
def _load_safetensors(path: str, /) -> tuple[dict[str, Tensor], dict[str, str]]: ...
