"""Ops that give another view of the same memory, and those that rearrange it."""

from __future__ import annotations

import numpy as np
import pytest

import opsin
from tests.opcheck import ALL, FLOAT, DType, Err, Op, c, make_tests, t


def view(name: str, *cases, errors=(), **options) -> Op:
    """A view in every dtype: the peer's bits, strides and offset, and the memory of the argument."""
    return Op(
        name,
        cases,
        errors=errors,
        **{"dtypes": ALL, "tol": 0, "view": True, "method": "." not in name, **options},
    )


OPS = [
    view(
        "Tensor.view",
        c(t(2, 6), 3, 4),
        c(t(2, 6), (4, -1)),
        c(t(2, 6), -1),
        c(t(), 1, 1),
        c(t(1), ()),
        c(t(0, 3), 3, 0),
        c(t(2, 3), [6]),
        c(t(2, 0), 0, 5),
        layouts=False,
        errors=[
            Err(c(t(2, 3), 4), RuntimeError, r"\[4\].*\[2, 3\]|\[2, 3\].*\[4\]"),
            Err(c(t(2, 3), -1, -1), RuntimeError, "-1"),
            Err(c(t(2, 3), -2, 3), RuntimeError, "-2"),
            Err(c(t(0, 3), -1, 0), RuntimeError, "-1"),
        ],
    ),
    Op(
        "Tensor.view",
        [
            c(t(4), DType("int32")).but(dtypes=("float32",)),
            c(t(4), DType("float16")).but(dtypes=("float32",)),
            c(t(2, 4), DType("float64")).but(dtypes=("float32",)),
            c(t(3), DType("uint8")).but(dtypes=("int64",)),
        ],
        dtypes=ALL,
        tol=0,
        grad=False,
        layouts=False,
        errors=[Err(c(t(3), DType("float64")), RuntimeError, r"\[3\]")],
    ),
    view(
        "reshape",
        c(t(2, 6), (3, 4)),
        c(t(2, 6), [-1]),
        c(t(2, 6), (2, 2, -1)),
        c(t(), (1,)),
        c(t(0, 3), (3, 0)),
        features=("TA17",),
        errors=[
            Err(c(t(2, 3), (4,)), RuntimeError, r"\[4\].*\[2, 3\]|\[2, 3\].*\[4\]"),
            Err(c(t(2, 3), (-1, 4)), RuntimeError, "4"),
        ],
    ),
    view(
        "flatten",
        c(t(2, 3, 4)),
        c(t(2, 3, 4), 1),
        c(t(2, 3, 4), 0, 1),
        c(t(2, 3, 4), start_dim=-2),
        c(t(2, 3, 4), 1, 1),
        c(t()),
        features=("TA17", "PL12"),
        errors=[Err(c(t(2, 3), 1, 0), RuntimeError, "start_dim|end_dim")],
    ),
    view("ravel", c(t(2, 3)), c(t())),
    view(
        "unflatten",
        c(t(2, 6), 1, (2, 3)),
        c(t(6), 0, (-1, 2)),
        c(t(2, 6), -1, (3, -1)),
        errors=[Err(c(t(6), 0, (4, 2)), RuntimeError, "6")],
    ),
    view(
        "transpose",
        c(t(2, 3, 4), 0, 1),
        c(t(2, 3, 4), -1, 0),
        c(t(), 0, -1),
        c(t(3), 0, 0),
        aliases=("swapaxes", "swapdims"),
        errors=[Err(c(t(2, 3), 0, 2), IndexError, r"(?i)dim.*2")],
    ),
    view("t", c(t(2, 3)), c(t(3)), c(t()), errors=[Err(c(t(2, 3, 4)), RuntimeError, r"\[2, 3, 4\]|3")]),
    view(
        "permute",
        c(t(2, 3, 4), (2, 0, 1)),
        c(t(2, 3, 4), (-1, 0, 1)),
        c(t(), ()),
        c(t(2, 3), [1, 0]),
        errors=[
            Err(c(t(2, 3), (0, 0)), RuntimeError, "0"),
            Err(c(t(2, 3), (0,)), RuntimeError, "2"),
            Err(c(t(2, 3), (0, 2)), IndexError, r"(?i)dim.*2"),
        ],
    ),
    view(
        "movedim",
        c(t(2, 3, 4), 0, 2),
        c(t(2, 3, 4), (0, 1), (1, 2)),
        c(t(2, 3, 4), -1, 0),
        aliases=("moveaxis",),
    ),
    view(
        "squeeze",
        c(t(1, 3, 1)),
        c(t(1, 3, 1), 0),
        c(t(1, 3, 1), 1),
        c(t(1, 3, 1), -1),
        c(t(1, 3, 1), (0, 2)),
        c(t()),
        c(t(), 0),
        errors=[Err(c(t(2, 3), 2), IndexError, r"(?i)dim.*2")],
    ),
    view(
        "unsqueeze",
        c(t(2, 3), 0),
        c(t(2, 3), 2),
        c(t(2, 3), -1),
        c(t(2, 3), -3),
        c(t(), 0),
        errors=[Err(c(t(2, 3), 3), IndexError, r"(?i)dim.*3")],
    ),
    view(
        "Tensor.expand",
        c(t(3, 1), 3, 4),
        c(t(3, 1), -1, 4),
        c(t(3), 2, 3),
        c(t(), 2, 2),
        c(t(1), 0),
        c(t(2, 1), (2, 2, 5)),
        layouts=False,
        errors=[
            Err(c(t(3), 4), RuntimeError, r"3.*4|4.*3"),
            Err(c(t(3, 2), 2), RuntimeError, r"\[3, 2\]|2"),
            Err(c(t(3), -1, 3), RuntimeError, "-1"),
        ],
    ),
    view("broadcast_to", c(t(3, 1), (2, 3, 4)), c(t(), (2,)), features=("TA17",)),
    view("Tensor.expand_as", c(t(3, 1), t(3, 4)), features=("TA17",)),
    view("Tensor.view_as", c(t(2, 6), t(3, 4)), layouts=False),
    view("Tensor.reshape_as", c(t(2, 6), t(3, 4))),
    view(
        "narrow",
        c(t(5, 3), 0, 1, 3),
        c(t(5, 3), 1, 0, 0),
        c(t(5, 3), -1, 1, 2),
        c(t(5, 3), 0, -2, 2),
        errors=[
            Err(c(t(5), 0, 3, 3), RuntimeError, r"3.*5|5.*3"),
            Err(c(t(5), 0, 0, -1), RuntimeError, "-1"),
            Err(c(t(), 0, 0, 1), RuntimeError, r"0-d|\[\]|dim"),
        ],
    ),
    view(
        "select",
        c(t(3, 4), 0, 1),
        c(t(3, 4), 1, -1),
        c(t(3, 4), -1, 0),
        c(t(3), 0, 2),
        errors=[
            Err(c(t(3), 0, 3), IndexError, "3"),
            Err(c(t(3), 0, -4), IndexError, "-4"),
            Err(c(t(), 0, 0), IndexError, "0-dim"),
        ],
    ),
    view(
        "diagonal",
        c(t(3, 4)),
        c(t(3, 4), 1),
        c(t(3, 4), -2),
        c(t(2, 3, 4), 0, 1, 2),
        c(t(2, 3, 4), offset=1, dim1=-1, dim2=0),
        c(t(3, 4), 5),
        errors=[Err(c(t(2, 3), 0, 0, 0), RuntimeError, "0")],
    ),
    view(
        "unfold_method",
        c(t(7), 0, 3, 2),
        c(t(2, 8), 1, 2, 3),
        c(t(2, 8), -1, 8, 1),
        fn=lambda x, *a: x.unfold(*a),
        peer=lambda x, *a: x.unfold(*a),
        method=False,
        layouts=False,
    ),
    view(
        "as_strided",
        c(t(12), (2, 3), (1, 2)),
        c(t(12), (2, 2), (6, 1), 3),
        c(t(12), (3, 4), (0, 1)),
        c(t(12), (), ()),
        c(t(12), (3, 3), (2, 1)),
        layouts=False,
        errors=[
            Err(c(t(4), (5,), (1,)), RuntimeError, r"\[5\]|5"),
            Err(c(t(4), (2,), (-1,)), RuntimeError, "-1"),
            Err(c(t(4), (2, 2), (1,)), RuntimeError, "strides"),
        ],
    ),
    view("atleast_1d", c(t()), c(t(2)), method=False),
    view("atleast_2d", c(t()), c(t(2)), c(t(2, 3)), method=False),
    view("atleast_3d", c(t()), c(t(2)), c(t(2, 3)), method=False),
    view("Tensor.T", c(t(2, 3)), fn=lambda x: x.T, peer=lambda x: x.T),
    view("Tensor.mT", c(t(2, 3)), c(t(4, 2, 3)), fn=lambda x: x.mT, peer=lambda x: x.mT),
    view("detach", c(t(2, 3)), grad=False),
    # Copies.
    Op("clone", [c(t(2, 3)), c(t()), c(t(0, 2))], dtypes=ALL, tol=0, method=True),
    Op("Tensor.contiguous", [c(t(2, 3)), c(t(2, 3, 4, 5))], dtypes=ALL, tol=0),
    Op(
        "Tensor.repeat",
        [c(t(2, 3), 2, 1), c(t(3), 2, 2), c(t(), 3), c(t(2, 3), (1, 0)), c(t(2, 3), 1, 1)],
        dtypes=ALL,
        tol=0,
        grad_tol=2,
        errors=[Err(c(t(2, 3), 2), RuntimeError, r"\[2, 3\]|2")],
    ),
    Op(
        "tile",
        [c(t(2, 3), (2,)), c(t(3), (2, 2)), c(t(2, 3), (1, 2))],
        dtypes=FLOAT,
        tol=0,
        grad_tol=2,
        method=True,
    ),
    Op(
        "repeat_interleave",
        [c(t(2, 3), 2), c(t(2, 3), 2, 1), c(t(2, 3), 3, dim=0)],
        dtypes=FLOAT,
        tol=0,
        grad_tol=2,
        method=True,
    ),
    Op(
        "flip",
        [c(t(2, 3), (0,)), c(t(2, 3), (0, -1)), c(t(2, 3), ()), c(t(), ())],
        dtypes=ALL,
        tol=0,
        method=True,
        errors=[Err(c(t(2, 3), (0, 0)), RuntimeError, "0"), Err(c(t(2, 3), (2,)), IndexError, r"(?i)dim.*2")],
    ),
    Op("fliplr", [c(t(2, 3))], dtypes=FLOAT, tol=0, method=True),
    Op("flipud", [c(t(2, 3))], dtypes=FLOAT, tol=0, method=True),
    Op(
        "roll",
        [c(t(2, 3), 1), c(t(2, 3), 1, 1), c(t(2, 3), (1, -2), (0, 1)), c(t(2, 3), 7, 0), c(t(0), 1)],
        dtypes=ALL,
        tol=0,
        method=True,
    ),
    Op(
        "rot90",
        [c(t(2, 3)), c(t(2, 3), 2), c(t(2, 3), -1), c(t(2, 3, 4), 1, (1, 2))],
        dtypes=FLOAT,
        tol=0,
        method=True,
    ),
    Op(
        "tril",
        [c(t(3, 4)), c(t(3, 4), 1), c(t(3, 4), -1), c(t(2, 3, 3), -5), c(t(0, 3))],
        dtypes=ALL,
        tol=0,
        method=True,
        inplace=True,
    ),
    Op(
        "triu",
        [c(t(3, 4)), c(t(3, 4), 1), c(t(3, 4), -1), c(t(2, 3, 3), 5)],
        dtypes=ALL,
        tol=0,
        method=True,
        inplace=True,
    ),
    Op("diag", [c(t(3)), c(t(3), 1), c(t(3, 4)), c(t(3, 4), -1)], dtypes=ALL, tol=0, method=True),
    Op("diag_embed", [c(t(2, 3)), c(t(3), 1), c(t(2, 3), -1, 0, 2)], dtypes=FLOAT, tol=0, method=True),
    Op(
        "nn.functional.pad",
        [
            c(t(2, 3), (1, 2)),
            c(t(2, 3), (1, 2, 0, 1)),
            c(t(2, 3), (-1, 1)),
            c(t(2, 3), (1, 1), value=2.5),
            c(t(2, 3), (1, 1), "constant", 1.0),
            c(t(1, 2, 3, 4), (1, 1, 2, 2)),
            c(t(2, 3), ()),
            c(t(0, 3), (1, 1)),
        ],
        dtypes=FLOAT,
        tol=0,
        features=("CV05",),
        errors=[Err(c(t(2, 3), (1,)), RuntimeError, "1"), Err(c(t(2), (-2, -1)), RuntimeError, "-2")],
    ),
    Op(
        "Tensor.to",
        [
            c(t(2, 3), DType("float64")),
            c(t(2, 3), DType("float16")).but(numerical=False),
            c(t(2, 3), DType("bfloat16")).but(numerical=False),
            c(t(2, 3, low=0, high=100), DType("int32")).but(grad=False),
            c(t(2, 3), DType("bool")).but(grad=False),
            c(t(2, 3), t(2, dtype="float64", grad=False)).but(grad=False),
        ],
        dtypes=ALL,
        tol=0,
        gradgrad=False,
    ),
    *(
        Op(f"Tensor.{name}", [c(t(2, 3, low=0, high=100))], dtypes=ALL, tol=0, grad=False, layouts=False)
        for name in ("float", "double", "half", "bfloat16", "int", "long", "short", "char", "byte", "bool")
    ),
    Op("Tensor.type_as", [c(t(2, 3), t(1, dtype="float64", grad=False))], dtypes=ALL, tol=0, grad=False),
]

TestOps = make_tests(OPS)


def test_view_needs_compatible_strides_and_reshape_does_not() -> None:
    x = opsin.arange(12).reshape(3, 4).t()
    with pytest.raises(RuntimeError, match=r"^view: .*stride.*reshape"):
        x.view(12)
    assert x.reshape(12).tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert x.reshape(12).data_ptr() != x.data_ptr()
    assert opsin.arange(12).reshape(3, 4)[:, :2].reshape(3, 2).data_ptr() is not None


def test_contiguous_and_to_return_the_tensor_itself_when_nothing_changes() -> None:
    x = opsin.ones(2, 3)
    assert x.contiguous() is x and x.to(opsin.float32) is x and x.float() is x and x.to("cpu") is x
    assert x.to(opsin.float32, copy=True) is not x
    y = x.t()
    assert not y.is_contiguous() and y.contiguous().is_contiguous() and y.contiguous().stride() == (2, 1)


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("rows", [70, 256])
@pytest.mark.parametrize("threads", [1, 3])
def test_long_rows_across_memory(dtype: str, rows: int, threads: int) -> None:
    values = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 60, (3, 150, rows))
    x = opsin.tensor(values).to(getattr(opsin, dtype))
    before = opsin.get_num_threads()
    opsin.set_num_threads(threads)
    try:
        moved = x.permute(0, 2, 1)
        assert np.array_equal(moved.contiguous().to(opsin.float64).numpy(), values.transpose(0, 2, 1))
        if dtype != "bool":
            twice = (moved[:, 1:] + moved[:, 1:].contiguous()).to(opsin.float64)
            assert np.array_equal(
                twice.numpy(), (2 * values.transpose(0, 2, 1)[:, 1:]).astype(twice.numpy().dtype)
            )
    finally:
        opsin.set_num_threads(before)


@pytest.mark.parametrize("dtype", ALL)
def test_rows_of_one_value_mirrored_and_thinned(dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (5, 75))
    x = opsin.tensor(values).to(getattr(opsin, dtype))

    def same(got: opsin.Tensor, want: np.ndarray) -> bool:
        return got.dtype == x.dtype and np.array_equal(got.to(opsin.float64).numpy(), want)

    assert same(opsin.flip(x, (-1,)), values[:, ::-1])
    assert same(x[:, ::2].contiguous(), values[:, ::2])
    assert same(x[:, 1::2].contiguous(), values[:, 1::2])
    assert same(x[:, :1].expand(5, 75).contiguous(), np.repeat(values[:, :1], 75, 1))
    assert same(opsin.full((3, 75), values[0, 0].item(), dtype=x.dtype), np.full((3, 75), values[0, 0]))


def test_broadcast_tensors() -> None:
    a, b = opsin.broadcast_tensors(opsin.ones(3, 1), opsin.ones(4))
    assert a.shape == b.shape == (3, 4)


def test_to_out_of_range_integers_do_not_trap() -> None:
    assert opsin.tensor([1.9, -1.9]).to(opsin.int32).tolist() == [1, -1]
    assert opsin.tensor([300]).to(opsin.uint8).tolist() == [44]
    assert opsin.tensor([float("nan")]).to(opsin.bool).tolist() == [True]
    opsin.tensor([float("nan"), 1e30]).to(opsin.int64)
