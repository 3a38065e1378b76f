"""autocast: the dtype of every op as PyTorch picks it, gradients, the cache of casts, nesting."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import opsin
from opsin import nn
from opsin.nn import functional as F
from tests.opcheck import FLOAT, Call, Op, load_tables
from tests.opvalues import dtype_name, nested_to_opsin, outputs_of
from tests.peer import torch

# PyTorch lists max_pool3d without positions only; its tensordot takes other routes for outer and inner
# products.
DIFFERENT = {
    ("nn.functional.max_pool3d", "return_indices"),
    ("tensordot", "2x3_4x5_0"),
    ("tensordot", "2x1_3x2_1"),
    ("tensordot", "3_3_1"),
}
# Ops that take other mixtures of dtypes than PyTorch's, autocast or not.
PARTICULAR = {"addr", "ldexp", "Tensor.index_put", "nn.functional.fractional_max_pool3d"}
# PyTorch's results are those of the region's dtype where oneDNN computes them, which depends on far more than
# dtypes; Opsin's always are.
IRREGULAR = {"lstm"}
# The dtypes of the floating-point arguments, in turn.
MIXES = (
    ("float32",),
    ("bfloat16",),
    ("float16",),
    ("float64",),
    ("float32", "bfloat16"),
    ("bfloat16", "float32"),
)


def cast_in_turn(tensors: Any, mix: tuple[str, ...]) -> Any:
    """The arguments with the floating-point tensors among them in the dtypes of `mix`, over and over."""
    count = -1

    def one(value: Any) -> Any:
        nonlocal count
        if isinstance(value, (list, tuple)):
            return type(value)(one(v) for v in value)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            count += 1
            return value.to(getattr(torch, mix[count % len(mix)]))
        return value

    return one(tensors)


def dtypes_of(fn: Any, args: Any, kwargs: Any) -> list[str]:
    return [dtype_name(y) for y in outputs_of(fn(*args, **kwargs)) if hasattr(y, "dtype")]


def calls_in(op: Op, mix: tuple[str, ...]) -> Iterator[tuple[Call, Any, dict[str, Any]]]:
    for call in op.calls():
        if any((op.name, key) in DIFFERENT for key in (call.label(), *call.kwargs)):
            continue
        args, kwargs = call.make("float32")
        values = cast_in_turn([args, tuple(kwargs.values())], mix)
        yield call, values[0], dict(zip(kwargs, values[1], strict=True))


@pytest.mark.feature("HW02")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "name",
    [name for name, op in load_tables().items() if set(op.dtypes) & set(FLOAT) and name not in IRREGULAR],
)
def test_every_op_runs_in_the_dtype_that_pytorch_picks(name: str, dtype: str) -> None:
    op = load_tables()[name]
    for mix in MIXES[: 4 if name in PARTICULAR else None]:
        for call, args, kwargs in calls_in(op, mix):
            with torch.autocast("cpu", getattr(torch, dtype)), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch says which mixes keep it from its fast kernels.
                try:
                    want = dtypes_of(op.torch_fn(), args, kwargs)
                except RuntimeError:
                    continue  # No kernel, or a mix of dtypes that PyTorch does not take.
            ours = nested_to_opsin(args), {k: nested_to_opsin(v) for k, v in kwargs.items()}
            with opsin.autocast("cpu", getattr(opsin, dtype)):
                got = dtypes_of(op.opsin_fn(), *ours)
            assert got == want, f"{name} of {mix}, {call.label()}"


LOSSES: dict[str, Any] = {
    "binary_cross_entropy": lambda f, x, y: f.binary_cross_entropy(x.sigmoid(), y.sigmoid()),
    "binary_cross_entropy_with_logits": lambda f, x, y: f.binary_cross_entropy_with_logits(x, y.sigmoid()),
    "kl_div": lambda f, x, y: f.kl_div(x, y, reduction="batchmean"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_without_a_table_run_in_float32(name: str) -> None:
    x, y = torch.rand(3, 4), torch.rand(3, 4)
    with torch.autocast("cpu"):
        want = LOSSES[name](torch.nn.functional, x.bfloat16(), y.bfloat16())
    x, y = nested_to_opsin([x, y])
    with opsin.autocast("cpu"):
        got = LOSSES[name](F, x.bfloat16(), y.bfloat16())
    assert dtype_name(got) == dtype_name(want) == "float32"
    assert got.item() == pytest.approx(want.item(), rel=1e-5)


def make_net(library: Any) -> Any:
    nn_ = library.nn
    return nn_.Sequential(
        nn_.Conv2d(1, 8, 3, padding=1), nn_.BatchNorm2d(8), nn_.ReLU(), nn_.MaxPool2d(2), nn_.Flatten(),
        nn_.Linear(8 * 16, 10),
    )  # fmt: skip


def test_gradients_are_those_of_pytorch() -> None:
    peer, ours = make_net(torch), make_net(opsin)
    ours.load_state_dict({k: nested_to_opsin(v) for k, v in peer.state_dict().items()})
    images, labels = torch.randn(16, 1, 8, 8), torch.randint(0, 10, (16,))
    with torch.autocast("cpu"):
        want = torch.nn.functional.cross_entropy(peer(images), labels)
    want.backward()
    with opsin.autocast("cpu"):
        scores = ours(nested_to_opsin(images))
        got = F.cross_entropy(scores, nested_to_opsin(labels))
    assert scores.dtype == opsin.bfloat16 and got.dtype == opsin.float32
    got.backward()
    assert got.item() == pytest.approx(want.item(), rel=1e-2)
    for (name, a), b in zip(ours.named_parameters(), peer.parameters(), strict=True):
        assert a.dtype == opsin.float32 and a.grad is not None and a.grad.dtype == opsin.float32, name
        error = (torch.tensor(a.grad.numpy()) - b.grad).norm() / b.grad.norm()
        # Rounding errors of bfloat16 add up in an order of each library's own; a bias before a batch norm has
        # no gradient but them.
        assert error < 0.1 or name == "0.bias", f"{name}: {error}"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_training_with_float32_weights_converges(dtype: str) -> None:
    net = make_net(opsin)
    optimizer = opsin.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    scaler = opsin.amp.GradScaler("cpu", enabled=dtype == "float16")
    images, labels = opsin.randn(64, 1, 8, 8), opsin.randint(0, 10, (64,))
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        with opsin.autocast("cpu", getattr(opsin, dtype)):
            loss = F.cross_entropy(net(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < 0.05 < 2 < losses[0]
    # Steps too small for the lower precision still reach the float32 weights.
    assert any(bool((p != p.to(getattr(opsin, dtype))).any()) for p in net.parameters())


def casts(*results: opsin.Tensor) -> list[Any]:
    """The nodes that cast the weights of results of `linear`."""
    return [y.grad_fn.next_functions[1][0] for y in results if y.grad_fn]


def test_each_parameter_is_cast_once() -> None:
    layer, x = nn.Linear(4, 3), opsin.ones(2, 4)
    with opsin.autocast("cpu"):
        first, second = casts(layer(x), layer(x))
        assert first == second and first.name() == "ToBackward"
        with opsin.autocast("cpu"):
            assert casts(layer(x)) == [first]
        assert casts(layer(x)) == [first]
        opsin.clear_autocast_cache()
        assert casts(layer(x)) != [first]
    with opsin.autocast("cpu"):
        assert casts(layer(x)) != [first]
    with opsin.autocast("cpu", cache_enabled=False):
        assert not opsin.is_autocast_cache_enabled()
        assert len(set(casts(layer(x), layer(x)))) == 2
    assert opsin.is_autocast_cache_enabled()


def test_a_cast_of_a_parameter_is_never_stale() -> None:
    layer, x = nn.Linear(4, 3, bias=False), opsin.ones(2, 4)
    with opsin.autocast("cpu"):
        with opsin.no_grad():
            before = layer(x)
            layer.weight.zero_()
        assert before.abs().sum().item() > 0 and layer(x).abs().sum().item() == 0
        # Recorded again, although the last cast under no_grad was not.
        layer(x).sum().backward()
        layer.weight.data = opsin.ones(3, 4)
        assert bool((layer(x) == 4).all())
    assert layer.weight.grad is not None and bool((layer.weight.grad == 2).all())


def test_graphs_of_one_region_share_casts_and_may_be_freed_one_by_one() -> None:
    layer, x = nn.Linear(4, 3, bias=False), opsin.ones(2, 4)
    with opsin.autocast("cpu"):
        for _ in range(3):
            layer(x).sum().backward()
    assert layer.weight.grad is not None and bool((layer.weight.grad == 6).all())


def test_regions_nest() -> None:
    x = opsin.ones(2, 2)
    assert not opsin.is_autocast_enabled("cpu")
    with opsin.autocast("cpu", opsin.float16) as region:
        assert region.fast_dtype is opsin.float16 and opsin.get_autocast_dtype("cpu") is opsin.float16
        y = x @ x
        with opsin.autocast("cpu", enabled=False):
            assert not opsin.is_autocast_enabled("cpu")
            assert (x @ x).dtype == opsin.float32
            with pytest.raises(RuntimeError, match="matmul: expected both operands to have the same dtype"):
                opsin.matmul(x, y)
        assert (x @ y).dtype == opsin.float16
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            opsin.matmul(x, opsin.ones(3, 3))
        assert opsin.is_autocast_enabled("cpu")
        with region, opsin.autocast("cpu"):
            assert (x @ y).dtype == opsin.float16
            with opsin.autocast("cpu", opsin.bfloat16):
                assert (x @ y).dtype == opsin.bfloat16
    assert not opsin.is_autocast_enabled("cpu")
    assert opsin.get_autocast_dtype("cpu") is opsin.bfloat16
    with pytest.raises(KeyError), opsin.autocast("cpu"):
        raise KeyError
    assert not opsin.is_autocast_enabled("cpu")


def test_decorator() -> None:
    region = opsin.amp.autocast("cpu")

    @region
    def product(x: opsin.Tensor, depth: int = 1) -> opsin.Tensor:
        assert opsin.is_autocast_enabled("cpu")
        return product(x, depth - 1) if depth else x @ x

    @opsin.autocast("cpu", dtype=opsin.float16)
    def steps(x: opsin.Tensor) -> Iterator[opsin.Tensor]:
        for _ in range(2):
            yield x @ x

    x = opsin.ones(2, 2)
    assert product(x).dtype == opsin.bfloat16 and product.__name__ == "product"
    for y in steps(x):
        assert y.dtype == opsin.float16 and not opsin.is_autocast_enabled("cpu")


def test_state_belongs_to_the_thread() -> None:
    seen = []
    with opsin.autocast("cpu"):
        thread = threading.Thread(target=lambda: seen.append(opsin.is_autocast_enabled("cpu")))
        thread.start()
        thread.join()
    assert seen == [False]


def test_backward_started_inside_is_not_cast() -> None:
    x = opsin.full((1, 2), 1 + 2.0**-12)
    w = opsin.ones(2, 2, requires_grad=True)
    y = x @ w
    with opsin.autocast("cpu"):
        y.sum().backward()
    assert w.grad is not None and bool((w.grad == 1 + 2.0**-12).all())


def test_second_gradients() -> None:
    w = opsin.ones(2, 2, requires_grad=True)
    with opsin.autocast("cpu"):
        y = (w @ w) ** 2
    (g,) = opsin.autograd.grad(y.sum(), w, create_graph=True)
    assert g.dtype == opsin.float32
    g.sum().backward()
    assert w.grad is not None and w.grad.dtype == opsin.float32 and bool((w.grad == 48).all())


def test_settings() -> None:
    try:
        opsin.set_autocast_dtype("cpu", opsin.float16)
        opsin.set_autocast_enabled("cpu", True)
        assert (opsin.ones(2, 2) @ opsin.ones(2, 2)).dtype == opsin.float16
        opsin.set_autocast_cache_enabled(False)
        with opsin.autocast("cpu") as region:
            assert region.fast_dtype is opsin.float16 and not opsin.is_autocast_cache_enabled()
    finally:
        opsin.set_autocast_enabled("cpu", False)
        opsin.set_autocast_dtype("cpu", opsin.bfloat16)
        opsin.set_autocast_cache_enabled(True)
    assert opsin.get_autocast_dtype("cuda") is opsin.float16
    assert opsin.amp.is_autocast_available("cpu") and not opsin.amp.is_autocast_available("tpu")


def test_what_cannot_be_cast_to_warns_and_is_off() -> None:
    with pytest.warns(UserWarning, match=r"In CPU autocast.*Disabling autocast.*got opsin\.float32"):
        region = opsin.autocast("cpu", opsin.float32)
    with region:
        assert not opsin.is_autocast_enabled("cpu")
    with pytest.warns(UserWarning, match=r"CUDA is not available\. Disabling"):
        region = opsin.autocast("cuda")
    with region:
        assert not opsin.is_autocast_enabled("cuda")


def test_errors() -> None:
    with pytest.raises(
        RuntimeError, match=r"unsupported autocast device_type 'tpu' \(expected 'cpu' or 'cuda'\)"
    ):
        opsin.autocast("tpu")
    with pytest.raises(ValueError, match="Expected `device_type` of type `str`, got: `<class 'int'>`"):
        opsin.autocast(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="autocast: expected dtype float16 or bfloat16, got float64"):
        opsin.set_autocast_dtype("cpu", opsin.float64)
