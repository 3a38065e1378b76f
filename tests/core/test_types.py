"""dtypes, promotion, numbers in and out of tensors, printing and copying."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import numpy as np
import pytest

import opsin
from tests.opcases import torch
from tests.opcheck import dtype_name

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
NUMBERS = {"bool": True, "int": 2, "float": 2.5}


def both(name: str, shape: tuple[int, ...] = (2,)):
    return (lib.ones(shape, dtype=getattr(lib, name)) for lib in (opsin, torch))


@pytest.mark.parametrize("shapes", [((2,), (2,)), ((), (2,)), ((2,), ()), ((), ())], ids=str)
def test_promotion_of_every_pair(shapes) -> None:
    wrong = []
    for a, b in itertools.product(DTYPES, repeat=2):
        (xa, ya), (xb, yb) = both(a, shapes[0]), both(b, shapes[1])
        for name in ("add", "mul", "true_divide", "maximum"):
            got, want = dtype_name(getattr(opsin, name)(xa, xb)), dtype_name(getattr(torch, name)(ya, yb))
            if got != want:
                wrong.append(f"{name}({a}{list(shapes[0])}, {b}{list(shapes[1])}) -> {got}, expected {want}")
        if dtype_name_of(opsin.result_type(xa, xb)) != dtype_name_of(torch.result_type(ya, yb)):
            wrong.append(f"result_type({a}, {b})")
    assert not wrong, "\n".join(wrong)


def dtype_name_of(dtype) -> str:
    return str(dtype).split(".")[-1]


def test_promotion_with_numbers() -> None:
    wrong = []
    for name, (kind, number) in itertools.product(DTYPES, NUMBERS.items()):
        for shape in ((2,), ()):
            ours, theirs = both(name, shape)
            if dtype_name(ours * number) != dtype_name(theirs * number):
                wrong.append(f"{name}{list(shape)} * {kind} -> {dtype_name(ours * number)}")
    assert not wrong, "\n".join(wrong)


def test_promote_types_and_can_cast() -> None:
    for a, b in itertools.product(DTYPES, repeat=2):
        one, two = (lib.promote_types(getattr(lib, a), getattr(lib, b)) for lib in (opsin, torch))
        assert dtype_name_of(one) == dtype_name_of(two), (a, b)
        assert opsin.can_cast(getattr(opsin, a), getattr(opsin, b)) == torch.can_cast(
            getattr(torch, a), getattr(torch, b)
        ), (a, b)


@pytest.mark.parametrize("name", DTYPES)
def test_conversions_between_all_dtypes(name: str) -> None:
    values = [0, 1, 2, 100]
    for target in DTYPES:
        got = opsin.tensor(values, dtype=getattr(opsin, name)).to(getattr(opsin, target))
        want = torch.tensor(values, dtype=getattr(torch, name)).to(getattr(torch, target))
        assert got.tolist() == want.tolist() and dtype_name(got) == target


@pytest.mark.demand("B3")
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_rounding_is_to_nearest_even(name: str) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 50_000, dtype=np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    got = opsin.from_numpy(values).to(getattr(opsin, name)).to(opsin.float32).numpy()
    want = torch.from_numpy(values.copy()).to(getattr(torch, name)).float().numpy()
    assert np.array_equal(got, want, equal_nan=True)


def test_dtype_objects() -> None:
    assert opsin.float is opsin.float32 and opsin.double is opsin.float64 and opsin.half is opsin.float16
    assert opsin.long is opsin.int64 and opsin.int is opsin.int32 and opsin.short is opsin.int16
    assert str(opsin.float32) == "opsin.float32" and repr(opsin.int64) == "opsin.int64"
    assert opsin.float32.is_floating_point and not opsin.int8.is_floating_point and opsin.int8.is_signed
    assert opsin.float32.itemsize == 4 and opsin.bfloat16.itemsize == 2 and opsin.bool.itemsize == 1
    assert (
        pickle.loads(pickle.dumps(opsin.bfloat16)) is opsin.bfloat16
        and copy.deepcopy(opsin.int8) is opsin.int8
    )
    assert len({opsin.float32, opsin.float, opsin.float64}) == 2


@pytest.mark.parametrize("name", DTYPES)
def test_limits(name: str) -> None:
    ours, theirs = getattr(opsin, name), getattr(torch, name)
    if theirs.is_floating_point:
        a, b = opsin.finfo(ours), torch.finfo(theirs)
        fields = ("bits", "eps", "max", "min", "tiny", "smallest_normal", "resolution")
    elif name != "bool":
        a, b = opsin.iinfo(ours), torch.iinfo(theirs)
        fields = ("bits", "max", "min")
    else:
        with pytest.raises(TypeError):
            opsin.iinfo(ours)
        return
    for field in fields:
        assert getattr(a, field) == getattr(b, field), field


def test_default_dtype() -> None:
    before = opsin.get_default_dtype()
    try:
        opsin.set_default_dtype(opsin.float64)
        assert opsin.zeros(1).dtype == opsin.tensor([1.0]).dtype == opsin.float64
        assert (opsin.tensor([1]) / 2).dtype == opsin.float64
        with pytest.raises(TypeError, match="int64"):
            opsin.set_default_dtype(opsin.int64)
    finally:
        opsin.set_default_dtype(before)
    assert opsin.zeros(1).dtype == opsin.float32


def test_numbers_out_of_tensors() -> None:
    x = opsin.tensor([2.5])
    assert x.item() == 2.5 and float(x) == 2.5 and int(x) == 2 and isinstance(opsin.tensor(3).item(), int)
    assert [10, 20, 30][opsin.tensor(1)] == 20 and isinstance(opsin.tensor(True).item(), bool)
    assert f"{opsin.tensor(1.25):.1f}" == "1.2" and math.sqrt(opsin.tensor(4.0)) == 2
    with pytest.raises(RuntimeError, match=r"item.*\[2\]|item.*2 elements"):
        opsin.ones(2).item()
    with pytest.raises(TypeError, match=r"float32|[Ii]nteger"):
        [1, 2][opsin.tensor(1.0)]


def test_attributes() -> None:
    x = opsin.zeros(2, 3, dtype=opsin.float64)
    assert x.shape == x.size() == (2, 3) and x.size(-1) == 3 and x.dim() == x.ndim == 2
    assert x.numel() == x.nelement() == 6 and x.element_size() == x.itemsize == 8 and x.nbytes == 48
    assert (
        x.is_floating_point()
        and x.is_signed()
        and not x.is_complex()
        and opsin.is_tensor(x)
        and not opsin.is_tensor(1)
    )
    assert (
        x.device == opsin.device("cpu")
        and str(x.device) == "cpu"
        and not x.is_cuda
        and x.layout == opsin.strided
    )
    assert opsin.numel(x) == 6 and opsin.is_floating_point(x) and x.size().numel() == 6
    assert str(opsin.zeros(1, 2).shape) == "opsin.Size([1, 2])"
    with pytest.raises(IndexError, match=r"2"):
        x.size(2)


@pytest.mark.feature("TA02")
def test_device_argument() -> None:
    assert opsin.zeros(2, device="cpu").to("cpu").cpu().device.type == "cpu"
    assert opsin.device("cuda:1").index == 1 and opsin.device("cuda", 0) == opsin.device("cuda:0")
    with pytest.raises(RuntimeError, match="gpu"):
        opsin.device("gpu")
    if not opsin.cuda.is_available():
        with pytest.raises(RuntimeError, match=r"(?i)cuda"):
            opsin.zeros(2, device="cuda")


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.5],
        [1, 2],
        [True, False],
        [],
        [[1.0, -2.0], [3.0, 1e-8]],
        3.5,
        [1e10, 1.0],
        [float("nan"), float("inf")],
        [[[0]]],
        list(range(2000)),
        [0.00001, 1000.0],
        [1.0, 2.0, 3.0],
    ],
    ids=lambda v: str(v)[:24],
)
def test_printing_is_pytorchs(values) -> None:
    assert repr(opsin.tensor(values)) == repr(torch.tensor(values))


def test_printing_of_gradients_and_dtypes() -> None:
    assert repr(opsin.ones(2, requires_grad=True)) == "tensor([1., 1.], requires_grad=True)"
    assert repr(opsin.ones(2, dtype=opsin.float64)) == "tensor([1., 1.], dtype=opsin.float64)"
    assert "grad_fn=<" in repr(opsin.ones(2, requires_grad=True) * 2)
    assert repr(opsin.zeros(0, 3)) == "tensor([], size=(0, 3))"


def test_pickle_and_copies() -> None:
    for name in DTYPES:
        x = opsin.tensor([0, 1, 2], dtype=getattr(opsin, name))
        for twin in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x), copy.copy(x)):
            assert twin.tolist() == x.tolist() and twin.dtype == x.dtype
    x = opsin.arange(6.0).reshape(2, 3).t().requires_grad_()
    twin = pickle.loads(pickle.dumps(x))
    assert twin.requires_grad and twin.tolist() == x.tolist() and twin.shape == (3, 2)
    deep = copy.deepcopy(x)
    with opsin.no_grad():
        deep.zero_()
    assert float(x.detach().sum()) == 15
    with pytest.raises(RuntimeError, match=r"(?i)leaf|graph"):
        copy.deepcopy(x * 2)


def test_deepcopy_keeps_shared_tensors_shared() -> None:
    x = opsin.ones(2)
    a, b = copy.deepcopy([x, x])
    assert a is b and a is not x


def test_subclasses_keep_their_type() -> None:
    class Named(opsin.Tensor):
        pass

    x = opsin.ones(2).requires_grad_()
    assert isinstance(x, opsin.Tensor) and issubclass(Named, opsin.Tensor)


def test_broadcast_shapes() -> None:
    for shapes in [(), ((2,), (3, 1), (1, 1, 1)), (2, (3, 1)), ([2], (1,)), ((0,), (1,)), (opsin.Size([2]),)]:
        got, want = opsin.broadcast_shapes(*shapes), torch.broadcast_shapes(*map(_plain, shapes))
        assert type(got) is opsin.Size and got == tuple(want)
    with pytest.raises(RuntimeError, match=r"^broadcast_shapes: .*\[2, 3\] and \[4\]"):
        opsin.broadcast_shapes((2, 3), (4,))
    with pytest.raises(ValueError, match=r"^broadcast_shapes: expected non-negative sizes, got \[-1\]"):
        opsin.broadcast_shapes((-1,))
    for bad in ((2.0,), "ab"):
        with pytest.raises(TypeError, match=r"^broadcast_shapes: expected ints and tuples of ints"):
            opsin.broadcast_shapes(bad)  # type: ignore[arg-type]


def _plain(shape):
    return tuple(shape) if isinstance(shape, tuple) else shape
