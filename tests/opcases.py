"""What a table of `tests/opcheck.py` is written in: tensors to be made, calls, error rows and ops."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import opsin

torch = pytest.importorskip("torch")
# The machine with a GPU may have an older release than the one that is installed for CI, which has all of it.
TORCH_VERSION = tuple(map(int, torch.__version__.split(".")[:2]))

HALF = ("float16", "bfloat16")
FLOAT = ("float64", "float32", *HALF)
INT = ("int64", "int32", "int16", "int8", "uint8")
REAL = FLOAT + INT
ALL = (*REAL, "bool")


@dataclass(frozen=True)
class Spec:
    """A tensor that does not exist yet. `dtype` None follows the dtype under test."""

    shape: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    dtype: str | None = None
    grad: bool = True
    distinct: bool = False
    values: Any = None

    def make(self, rng: np.random.Generator, dtype: str) -> Any:
        """The tensor as a torch tensor of its dtype."""
        dtype = self.dtype or dtype
        kind = "float" if dtype in FLOAT else "bool" if dtype == "bool" else "int"
        if self.values is not None:
            array = np.asarray(self.values)
        elif self.distinct:
            # Values at least 1/8 apart: no ties, and far from kinks for differences of 1e-6.
            count = math.prod(self.shape)
            array = (rng.permutation(count).reshape(self.shape) - count // 2 + 0.5) / (
                8 if kind == "float" else 1
            )
        elif kind == "bool":
            array = rng.integers(0, 2, self.shape).astype(bool)
        elif kind == "int":
            low = 0 if dtype == "uint8" and (self.low or 0) < 0 else int(-9 if self.low is None else self.low)
            low = 0 if dtype == "uint8" and self.low is None else low
            array = rng.integers(low, max(int(10 if self.high is None else self.high), low + 1), self.shape)
        elif self.low is None and self.high is None:
            array = rng.standard_normal(self.shape)
        else:
            array = rng.uniform(
                -1.0 if self.low is None else self.low, 1.0 if self.high is None else self.high, self.shape
            )
        return torch.tensor(np.asarray(array)).to(getattr(torch, dtype))


def t(*shape: int, **options: Any) -> Spec:
    """A tensor of the dtype under test: standard normal, or uniform when `low` and `high` are given."""
    return Spec(shape, **options)


def ints(*shape: int, low: int = 0, high: int = 10, dtype: str = "int64") -> Spec:
    """Integers in [low, high), whatever the dtype under test: indices and labels."""
    return Spec(shape, low=low, high=high, dtype=dtype, grad=False)


def bools(*shape: int) -> Spec:
    """A random mask."""
    return Spec(shape, dtype="bool", grad=False)


def const(values: Any, dtype: str | None = None, grad: bool = True) -> Spec:
    """Given values; `dtype` None follows the dtype under test."""
    return Spec(np.shape(values), values=values, dtype=dtype, grad=grad)


@dataclass(frozen=True)
class DType:
    """A dtype argument, the same name in both libraries."""

    name: str


@dataclass(frozen=True)
class Call:
    """Arguments of one call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    id: str = ""
    grad: bool = True
    gradgrad: bool = True
    numerical: bool = True  # False where differences mean nothing: kinks, results stored in half precision
    dtypes: tuple[str, ...] | None = None

    def but(self, **changes: Any) -> Call:
        """The same call with other settings: `id`, `grad`, `gradgrad`, `numerical`, `dtypes`."""
        return replace(self, **changes)

    def make(self, dtype: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with torch tensors in the place of specs."""
        rng = np.random.default_rng(zlib.crc32(repr((self.args, sorted(self.kwargs.items()))).encode()))

        def one(value: Any) -> Any:
            if isinstance(value, Spec):
                return value.make(rng, dtype)
            return getattr(torch, value.name) if isinstance(value, DType) else value

        return tuple(map_nested(one, a) for a in self.args), {
            k: map_nested(one, v) for k, v in self.kwargs.items()
        }

    def label(self) -> str:
        def short(value: Any) -> str:
            if isinstance(value, Spec):
                return "x".join(map(str, value.shape)) or "scalar"
            if isinstance(value, (list, tuple)):
                return "(" + ",".join(map(short, value)) + ")"
            return value.name if isinstance(value, DType) else str(value).replace(" ", "")

        parts = [short(a) for a in self.args] + [f"{k}={short(v)}" for k, v in self.kwargs.items()]
        return self.id or "_".join(parts)[:80]


def c(*args: Any, **kwargs: Any) -> Call:
    """A call with these arguments."""
    return Call(args, kwargs)


@dataclass(frozen=True)
class Err:
    """A call that must raise `kind` with a message that matches `match`, after the name of the op."""

    call: Call
    kind: type[Exception] | tuple[type[Exception], ...]
    match: str
    dtype: str = "float32"
    peer: bool = True  # PyTorch refuses it too; False where Opsin is stricter on purpose


@dataclass(frozen=True, repr=False)
class Op:
    """One op and everything it is tested with.

    name: dotted name under `opsin` and `torch`; `Tensor.x` is a method. `fn` and `peer` replace either side.
    cases: calls; `elementwise=N` adds calls with N tensors that are scalar, empty and broadcast.
    dtypes: the dtypes of the forward test; gradients run in the floating ones of them.
    tol, atol: see the module; grad_tol, grad_atol for first gradients (default: four times as much).
    half_tol: replaces tol for float16 and bfloat16 where intermediate results are stored in them.
    inplace: there is a method `name_`; inplace_kw: or a keyword that asks for it.
    view: the result shares memory with the first argument, with PyTorch's strides and offset.
    bench: larger calls, read by bench/ops.py and run with 1 and 2 threads.
    """

    name: str
    cases: Sequence[Call] = ()
    fn: Callable[..., Any] | None = None
    peer: Callable[..., Any] | None = None
    dtypes: tuple[str, ...] = FLOAT
    elementwise: int = 0
    low: float | None = None
    high: float | None = None
    tol: float = 4
    atol: float | None = None
    grad_tol: float | None = None
    grad_atol: float | None = None
    half_tol: float | None = None
    grad: bool = True
    gradgrad: bool = True
    inplace: bool = False
    inplace_kw: str = ""
    view: bool = False
    layouts: bool = True
    aliases: tuple[str, ...] = ()
    method: bool = False
    errors: Sequence[Err] = ()
    bench: Sequence[Call] = ()
    features: tuple[str, ...] = ()
    demands: tuple[str, ...] = ()

    def calls(self) -> list[Call]:
        if not self.elementwise:
            return list(self.cases)
        shapes: list[tuple[tuple[int, ...], ...]] = {
            1: [((),), ((2, 0, 3),), ((3, 5),), ((2, 3, 17),)],
            2: [
                ((), ()),
                ((2, 0, 3), (3,)),
                ((2, 0), ()),
                ((3, 1, 5), (4, 1)),
                ((3, 5), ()),
                ((5,), (2, 3, 5)),
                ((2, 33),) * 2,
            ],
            3: [((), (), ()), ((2, 1), (3,), ()), ((2, 3),) * 3, ((0,), (2, 1), (1,))],
        }[self.elementwise]
        made = [c(*(t(*s, low=self.low, high=self.high) for s in group)) for group in shapes]
        return made + list(self.cases)

    def floats(self) -> tuple[str, ...]:
        return tuple(d for d in self.dtypes if d in FLOAT)

    def __repr__(self) -> str:
        return f"Op({self.name!r})"

    def opsin_fn(self) -> Callable[..., Any]:
        return self.fn or lookup(opsin, self.name)

    def torch_fn(self) -> Callable[..., Any]:
        return self.peer or lookup(torch, self.name)

    def tolerance(self, dtype: str, grad: bool = False) -> tuple[float, float]:
        """Relative and absolute tolerance as plain numbers."""
        tol = self.half_tol if dtype in HALF and self.half_tol is not None else self.tol
        atol = tol if self.atol is None else self.atol
        if grad:
            tol = 4 * tol if self.grad_tol is None else self.grad_tol
            atol = max(4 * atol, tol) if self.grad_atol is None else self.grad_atol
        eps = torch.finfo(getattr(torch, dtype)).eps
        # A rounded half-precision result is half an eps off even when the arithmetic is perfect.
        floor = 0.5 if dtype in HALF else 0.0
        return max(tol, floor) * eps, atol * eps


def lookup(root: Any, name: str) -> Any:
    # Submodules may be lazy, so a plain attribute walk is the way in.
    return functools.reduce(getattr, name.split("."), root)


def map_nested(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map_nested(function, v) for v in value)
    if isinstance(value, slice):
        return slice(*(map_nested(function, v) for v in (value.start, value.stop, value.step)))
    return function(value)


def walk(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for v in value:
            yield from walk(v)
    else:
        yield value
