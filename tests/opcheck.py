r"""The one harness for ops: a table of cases per op gives every test that the op must pass.

A family's file under `tests/ops/` is a list of `Op` rows and one line:

    from tests.opcheck import Err, Op, c, make_tests, t

    OPS = [
        Op("exp", cases=[c(t(3, 4))], dtypes=REAL, tol=2, inplace=True, features=("AC01",)),
        Op("matmul", cases=[c(t(2, 3), t(3, 4))], tol=3, bench=[c(t(512, 512), t(512, 512))],
           errors=[Err(c(t(2, 3), t(2, 3)), RuntimeError, r"\[2, 3\]")]),
    ]
    TestOps = make_tests(OPS)

`c(...)` is a call; `t(...)`, `ints(...)`, `bools(...)` and `const(...)` stand for tensors in it, made from a
seed that depends on the case alone. For each op there are: forward in every dtype, first gradients in every
floating dtype, `gradcheck` and `gradgradcheck` in float64, the same values through other memory layouts
(transposed, strided, channels-last, expanded), 1 and 2 threads bit for bit, the in-place form, aliases, and
the error table. `tests/device.py` says on which device.

The peer runs in float64 on the inputs as rounded to the dtype under test, so the tolerance measures the error
of Opsin alone, in units of that dtype's eps: |got - want| <= eps * (tol * |want| + atol). tol=0 asks for the
peer's own bits.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import math
import pkgutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import opsin
from tests import device
from tests.opcases import (
    ALL,
    FLOAT,
    HALF,
    INT,
    REAL,
    Call,
    DType,
    Err,
    Op,
    Spec,
    bools,
    c,
    const,
    ints,
    lookup,
    map_nested,
    t,
    torch,
    walk,
)
from tests.opvalues import assert_close, dtype_name, nested_to_opsin, outputs_of, to_opsin, to_torch, upcast

__all__ = [
    "ALL",
    "FLOAT",
    "HALF",
    "INT",
    "REAL",
    "Call",
    "DType",
    "Err",
    "Op",
    "Spec",
    "bools",
    "c",
    "const",
    "ints",
    "t",
]
__all__ += ["load_tables", "make_tests", "to_opsin", "to_torch"]


def _ours(op: Op, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]]:
    """The arguments for Opsin, on the device under test."""
    named = {k: nested_to_opsin(v) for k, v in kwargs.items()}
    return nested_to_opsin(args), {**named, **device.options(op.name)}


def check_forward(op: Op, call: Call, dtype: str) -> None:
    args, kwargs = call.make(dtype)
    try:
        like = outputs_of(op.torch_fn()(*args, **kwargs))
    except RuntimeError as error:
        # PyTorch lacks kernels for some dtypes; any other refusal would be a fault of the table.
        if "not implemented for" not in str(error) and "not supported" not in str(error):
            raise
        like = None
    ours, named = _ours(op, args, kwargs)
    got = outputs_of(op.opsin_fn()(*ours, **named))
    is_float = dtype in FLOAT
    if like is None and not is_float:
        pytest.skip(f"no peer for {op.name} in {dtype}")
    if is_float:
        up = op.torch_fn()(*(upcast(a) for a in args), **{k: upcast(v) for k, v in kwargs.items()})
        want = outputs_of(up)
    else:
        want = like or []
    assert len(got) == len(want), f"{op.name}: {len(got)} outputs, expected {len(want)}"
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        what = f"{op.name} output {i}"
        if not isinstance(w, torch.Tensor):
            assert type(g).__name__ == type(w).__name__ or not isinstance(w, (bool, int, float)), what
            assert g == w or (isinstance(w, float) and math.isclose(g, w, rel_tol=1e-3)), what
            continue
        expected_dtype = dtype_name(like[i]) if like is not None else dtype
        assert dtype_name(g) == expected_dtype, f"{what}: dtype {dtype_name(g)}, expected {expected_dtype}"
        exact = op.tol == 0 and like is not None
        reference = like[i] if exact and like is not None else w
        rtol, atol = (0.0, 0.0) if exact or expected_dtype not in FLOAT else op.tolerance(expected_dtype)
        assert_close(g, reference, rtol, atol, what)
        if op.view:
            peer = like[i] if like is not None else w
            # The strides of nothing mean nothing.
            assert g.numel() == 0 or tuple(g.stride()) == tuple(peer.stride()), (
                f"{what}: strides {g.stride()}, expected {peer.stride()}"
            )
            assert g.numel() == 0 or g.storage_offset() == peer.storage_offset(), what


def _leaves(args: tuple[Any, ...], kwargs: dict[str, Any], call: Call) -> list[bool]:
    """Which of the tensors, in order, take part in gradients."""
    specs = [s for s in walk([*call.args, *call.kwargs.values()]) if isinstance(s, Spec)]
    tensors = [x for x in walk([*args, *kwargs.values()]) if hasattr(x, "requires_grad")]
    return [s.grad and x.is_floating_point() for s, x in zip(specs, tensors, strict=True)]


def _require(values: Any, flags: list[bool]) -> tuple[Any, list[Any]]:
    flag = iter(flags)
    found: list[Any] = []

    def one(v: Any) -> Any:
        if not hasattr(v, "requires_grad"):
            return v
        if next(flag):
            v = v.detach().requires_grad_()
            found.append(v)
        return v

    return map_nested(one, values), found


def _gradients(
    fn: Callable[..., Any], args: Any, kwargs: Any, flags: list[bool], grad: Any, seeds: Any
) -> Any:
    """(outputs, gradients of the flagged tensors) with `seeds(i, y)` as the gradient of output i."""
    (args, values), leaves = _require((tuple(args), tuple(kwargs.values())), flags)
    outputs = outputs_of(fn(*args, **dict(zip(kwargs, values, strict=True))))
    ys = [y for y in outputs if hasattr(y, "requires_grad") and y.requires_grad]
    assert ys, "no output requires a gradient"
    result = grad(ys, leaves, [seeds(i, y) for i, y in enumerate(ys)], allow_unused=True)
    return outputs, [g if g is not None else x.detach() * 0 for g, x in zip(result, leaves, strict=True)]


def _seed(call: Call, i: int, shape: tuple[int, ...], dtype: str) -> Any:
    rng = np.random.default_rng([zlib.crc32(call.label().encode()), i])
    # Multiples of 1/8 are exact in every dtype.
    return torch.from_numpy(np.array(rng.integers(-8, 9, shape) / 8)).to(getattr(torch, dtype))


def _reference_gradients(op: Op, call: Call, args: Any, kwargs: Any) -> Any:
    up = tuple(upcast(a) for a in args), {k: upcast(v) for k, v in kwargs.items()}
    flags = _leaves(*up, call)
    seeds = lambda i, y: _seed(call, i, tuple(y.shape), "float64")  # noqa: E731
    try:
        return flags, _gradients(op.torch_fn(), *up, flags, torch.autograd.grad, seeds)
    except RuntimeError as error:
        if "derivative for" not in str(error):
            raise
        pytest.skip(f"this PyTorch has no derivative of {op.name}")


def check_gradient(op: Op, call: Call, dtype: str) -> None:
    args, kwargs = call.make(dtype)
    flags, (_, want) = _reference_gradients(op, call, args, kwargs)
    seeds = lambda i, y: to_opsin(_seed(call, i, tuple(y.shape), dtype_name(y)))  # noqa: E731
    ours = _ours(op, args, kwargs)
    _, got = _gradients(op.opsin_fn(), *ours, flags, opsin.autograd.grad, seeds)
    rtol, atol = op.tolerance(dtype, grad=True)
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        assert dtype_name(g) == dtype, f"{op.name}: gradient {i} has dtype {dtype_name(g)}"
        assert_close(g, w, rtol, atol, f"{op.name}: gradient {i} in {dtype}")


def check_numerically(op: Op, call: Call, second: bool) -> None:
    args, kwargs = call.make("float64")
    flags = _leaves(args, kwargs, call)
    ours, named = _ours(op, args, kwargs)
    (args, values), leaves = _require((ours, tuple(named.values())), flags)
    slots = {id(x): i for i, x in enumerate(leaves)}

    def fn(*tensors: Any) -> Any:
        a, v = map_nested(lambda x: tensors[slots[id(x)]] if id(x) in slots else x, (args, values))
        return op.opsin_fn()(*a, **dict(zip(named, v, strict=True)))

    check = opsin.autograd.gradgradcheck if second else opsin.autograd.gradcheck
    # A full Jacobian costs a backward per output element: beyond this size a random projection must do.
    fast = sum(x.numel() for x in leaves) > 100
    assert check(fn, leaves, fast_mode=fast)


LAYOUTS = ("transposed", "strided", "channels_last", "expanded")


def relayout(tensor: Any, layout: str) -> Any:
    """The same values (for "expanded": the first slice, repeated) behind other strides."""
    n = tensor.dim()
    if n == 0 or (layout == "channels_last" and n < 3) or (layout == "transposed" and n < 2):
        return tensor
    if layout == "transposed":
        order = list(reversed(range(n)))
        return tensor.permute(order).contiguous().permute(order)
    if layout == "strided":
        wide = tensor.new_zeros((*tensor.shape[:-1], 2 * tensor.shape[-1] + 1))
        wide[..., 1::2] = tensor
        return wide[..., 1::2]
    if layout == "channels_last":
        order = [0, *range(2, n), 1]
        back = [0, n - 1, *range(1, n - 1)]
        return tensor.permute(order).contiguous().permute(back)
    return tensor[:1].expand(tensor.shape) if tensor.shape[0] else tensor


def check_layout(op: Op, call: Call, layout: str) -> None:
    dtype = "float32" if "float32" in op.dtypes else op.dtypes[0]
    args, kwargs = call.make(dtype)

    def values_of(v: Any) -> Any:
        return (
            relayout(v, "expanded").contiguous()
            if layout == "expanded" and isinstance(v, torch.Tensor)
            else v
        )

    args, kwargs = map_nested(values_of, args), {k: map_nested(values_of, v) for k, v in kwargs.items()}
    move = functools.partial(map_nested, lambda v: relayout(v, layout) if isinstance(v, opsin.Tensor) else v)
    ours, named = _ours(op, args, kwargs)
    ours = move(ours), {k: move(v) for k, v in named.items()}
    rtol, atol = op.tolerance(dtype) if dtype in FLOAT else (0.0, 0.0)
    if op.grad and call.grad and dtype in FLOAT:
        flags, (want, gradients) = _reference_gradients(op, call, args, kwargs)
        seeds = lambda i, y: relayout(to_opsin(_seed(call, i, tuple(y.shape), dtype_name(y))), layout)  # noqa: E731
        if layout == "expanded":
            seeds = lambda i, y: to_opsin(_seed(call, i, tuple(y.shape), dtype_name(y)))  # noqa: E731
        got, ours_grad = _gradients(op.opsin_fn(), *ours, flags, opsin.autograd.grad, seeds)
        grad_rtol, grad_atol = op.tolerance(dtype, grad=True)
        for i, (g, w) in enumerate(zip(ours_grad, gradients, strict=True)):
            assert_close(g, w, grad_rtol, grad_atol, f"{op.name}: gradient {i}, {layout}")
    else:
        up = (
            (args, kwargs) if op.tol == 0 else (upcast(list(args)), {k: upcast(v) for k, v in kwargs.items()})
        )
        want = outputs_of(op.torch_fn()(*up[0], **up[1]))
        got = outputs_of(op.opsin_fn()(*ours[0], **ours[1]))
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        if isinstance(w, torch.Tensor):
            assert_close(g, w.detach(), rtol, atol, f"{op.name} output {i}, {layout}")


def check_threads(op: Op, call: Call) -> None:
    dtype = "float32" if "float32" in op.dtypes else op.dtypes[0]
    args, kwargs = call.make(dtype)
    flags = _leaves(args, kwargs, call)
    ours = _ours(op, args, kwargs)
    seeds = lambda i, y: to_opsin(_seed(call, i, tuple(y.shape), dtype_name(y)))  # noqa: E731
    before = opsin.get_num_threads()
    runs = []
    try:
        for threads in (1, 2):
            opsin.set_num_threads(threads)
            if op.grad and call.grad and any(flags):
                outputs, gradients = _gradients(op.opsin_fn(), *ours, flags, opsin.autograd.grad, seeds)
            else:
                outputs, gradients = outputs_of(op.opsin_fn()(*ours[0], **ours[1])), []
            runs.append(
                [
                    np.asarray(to_torch(x).double())
                    for x in [*outputs, *gradients]
                    if isinstance(x, opsin.Tensor)
                ]
            )
    finally:
        opsin.set_num_threads(before)
    for one, two in zip(*runs, strict=True):
        assert np.array_equal(one, two, equal_nan=True), f"{op.name}: two runs differ"


def check_inplace(op: Op, call: Call) -> None:
    args, kwargs = call.make("float32" if "float32" in op.dtypes else op.dtypes[0])
    ours, named = _ours(op, args, kwargs)
    want = op.opsin_fn()(*ours, **named)
    if tuple(want.shape) != tuple(ours[0].shape) or want.dtype != ours[0].dtype:
        return  # the result does not fit into the first argument: check_errors has such rows

    def inplace(x: Any, *rest: Any, **more: Any) -> Any:
        if op.inplace_kw:
            return op.opsin_fn()(x, *rest, **{**more, op.inplace_kw: True})
        return getattr(x, op.name.rsplit(".", 1)[-1] + "_")(*rest, **more)

    target = ours[0].clone()
    version = target._version
    result = inplace(target, *ours[1:], **named)
    assert result is target, f"{op.name}_ must return its argument"
    assert target._version > version, f"{op.name}_ must count as a change"
    assert_close(target, to_torch(want), 0.0, 0.0, f"{op.name}_")
    if not (op.grad and call.grad and ours[0].is_floating_point()):
        return
    flags = _leaves(ours, named, call)
    seeds = lambda i, y: to_opsin(_seed(call, i, tuple(y.shape), dtype_name(y)))  # noqa: E731
    _, one = _gradients(op.opsin_fn(), ours, named, flags, opsin.autograd.grad, seeds)
    _, two = _gradients(
        lambda x, *r, **k: inplace(x * 1, *r, **k), ours, named, flags, opsin.autograd.grad, seeds
    )
    rtol, atol = op.tolerance("float32", grad=True)
    for i, (a, b) in enumerate(zip(two, one, strict=True)):
        assert_close(a, to_torch(b), rtol, atol, f"{op.name}_: gradient {i}")


def check_alias(op: Op, call: Call, alias: str) -> None:
    dtype = op.dtypes[0]
    args, kwargs = call.make(dtype)
    ours, named = _ours(op, args, kwargs)
    want = outputs_of(op.opsin_fn()(*ours, **named))
    got = outputs_of(lookup(opsin, alias)(*ours, **named))
    for g, w in zip(got, want, strict=True):
        assert_close(g, to_torch(w), 0.0, 0.0, alias) if isinstance(w, opsin.Tensor) else None


def check_shares_memory(op: Op, call: Call) -> None:
    args, kwargs = call.make("float32")
    ours, named = _ours(op, args, kwargs)
    for view in outputs_of(op.opsin_fn()(*ours, **named)):
        if view.numel() == 0 or any(n > 1 and s == 0 for n, s in zip(view.shape, view.stride(), strict=True)):
            continue  # Nothing to write, or elements that share their memory.
        version = ours[0]._version
        view.zero_()
        assert ours[0]._version > version, f"{op.name}: a change of the view must count for its base"
        if view is not ours[0] and op.grad:
            assert view._base is not None, f"{op.name}: a view must know its base"
        again = outputs_of(op.opsin_fn()(*ours, **named))
        assert all(float(v.abs().sum()) == 0 for v in again if v.data_ptr() == view.data_ptr())


def check_error(op: Op, error: Err) -> None:
    args, kwargs = error.call.make(error.dtype)
    if error.peer:
        kinds = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError, AssertionError)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(kinds):
                op.torch_fn()(*args, **kwargs)
    # Without tensors the rule is the CPU's.
    ours, named = nested_to_opsin(args), {k: nested_to_opsin(v) for k, v in kwargs.items()}
    with pytest.raises(error.kind, match=error.match) as caught:
        device.synchronize(op.opsin_fn()(*ours, **named))
    short = op.name.rsplit(".", 1)[-1].rstrip("_")
    # Indexing is done by ops of other names.
    names = (
        ("index", "select", "slice", "copy_", "invalid index")
        if "item" in op.name
        else (short, short.removeprefix("r"))
    )
    assert str(caught.value).startswith(names) or error.kind is TypeError, f"must name the op: {caught.value}"


ALL_OPS: dict[str, Op] = {}


def make_tests(ops: Sequence[Op]) -> type:
    """The class of tests for a table; assign it to a name that starts with `Test`."""
    for op in ops:
        ALL_OPS.setdefault(op.name, op)
        for other in op.aliases:
            ALL_OPS.setdefault(other, op)

    def rows(make: Callable[[Op], Iterator[tuple[str, tuple[Any, ...]]]]) -> list[Any]:
        found, seen = [], set()
        for op in ops:
            marks = [pytest.mark.feature(*op.features)] if op.features else []
            marks += [pytest.mark.demand(*op.demands)] if op.demands else []
            for label, values in make(op):
                name = unique = f"{op.name}-{label}"
                for n in itertools.count(2):
                    if unique not in seen:
                        break
                    unique = f"{name}~{n}"
                seen.add(unique)
                found.append(pytest.param((op, *values), id=unique, marks=marks))
        return found

    def forward(op: Op) -> Iterator[tuple[str, tuple[Any, ...]]]:
        for call in op.calls():
            for dtype in call.dtypes or op.dtypes:
                yield f"{call.label()}-{dtype}", (call, dtype)

    def gradient(op: Op) -> Iterator[tuple[str, tuple[Any, ...]]]:
        for call in op.calls():
            for dtype in op.floats() if op.grad and call.grad else ():
                if dtype in (call.dtypes or op.dtypes):
                    yield f"{call.label()}-{dtype}", (call, dtype)

    def numerical(op: Op) -> Iterator[tuple[str, tuple[Any, ...]]]:
        for call in op.calls() if op.grad and "float64" in op.dtypes else ():
            if call.grad and call.numerical:
                yield call.label(), (call,)

    def second(op: Op) -> Iterator[tuple[str, tuple[Any, ...]]]:
        return ((label, values) for label, values in numerical(op) if op.gradgrad and values[0].gradgrad)

    def layouts(op: Op) -> Iterator[tuple[str, tuple[Any, ...]]]:
        for call in op.calls() if op.layouts else ():
            dims = [len(s.shape) for s in walk([*call.args, *call.kwargs.values()]) if isinstance(s, Spec)]
            for layout in LAYOUTS:
                least = {"transposed": 2, "channels_last": 4}.get(layout, 1)
                if max(dims, default=0) >= least:
                    yield f"{call.label()}-{layout}", (call, layout)

    def threads(op: Op) -> Iterator[tuple[str, tuple[Any, ...]]]:
        wide = t(3, 50_000, low=op.low, high=op.high)
        for call in [*op.bench, *([c(*[wide] * op.elementwise)] if op.elementwise else [])]:
            yield call.label(), (call,)

    def inplace(op: Op) -> Iterator[tuple[str, tuple[Any, ...]]]:
        for call in op.calls() if op.inplace or op.inplace_kw else ():
            if isinstance(call.args[0], Spec):
                yield call.label(), (call,)

    def alias(op: Op) -> Iterator[tuple[str, tuple[Any, ...]]]:
        for name in [*op.aliases, *(["Tensor." + op.name] if op.method else [])]:
            call = next(call for call in op.calls() if isinstance(call.args[0], Spec) or not op.method)
            yield name, (call, name)

    def views(op: Op) -> Iterator[tuple[str, tuple[Any, ...]]]:
        for call in op.calls() if op.view else ():
            yield call.label(), (call,)

    def errors(op: Op) -> Iterator[tuple[str, tuple[Any, ...]]]:
        for error in op.errors:
            yield error.call.label(), (error,)

    body: dict[str, Any] = {}
    for name, make, check in (
        ("test_forward", forward, check_forward),
        ("test_gradient", gradient, check_gradient),
        ("test_gradcheck", numerical, functools.partial(check_numerically, second=False)),
        ("test_gradgradcheck", second, functools.partial(check_numerically, second=True)),
        ("test_layout", layouts, check_layout),
        ("test_threads", threads, check_threads),
        ("test_inplace", inplace, check_inplace),
        ("test_alias", alias, check_alias),
        ("test_shares_memory", views, check_shares_memory),
        ("test_error", errors, check_error),
    ):
        found = rows(make)
        if found:
            body[name] = pytest.mark.parametrize("case", found)(_method(check))
    return pytest.mark.device(type("TestOps", (), body))


def _method(check: Callable[..., None]) -> Callable[..., None]:
    @staticmethod
    def method(case: tuple[Any, ...]) -> None:
        check(*case)

    return method


def load_tables() -> dict[str, Op]:
    """Every op of every table, by name; bench/ops.py reads its shapes from here."""
    package = importlib.import_module("tests.ops")
    for module in pkgutil.iter_modules(package.__path__, "tests.ops."):
        importlib.import_module(module.name)
    return ALL_OPS
