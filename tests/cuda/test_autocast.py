"""The dtype of every op under autocast on a GPU, as PyTorch picks it; its GPU need not be there for that."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import opsin
from tests.amp.test_autocast import DIFFERENT, MIXES, PARTICULAR, calls_in, dtypes_of
from tests.opcases import TORCH_VERSION, map_nested
from tests.opcheck import FLOAT, load_tables
from tests.opvalues import nested_to_opsin
from tests.peer import torch

pytestmark = pytest.mark.device

# PyTorch composes these of functions that have policies on GPUs; Opsin computes them in one piece.
COMPOSED = {"block_diag", "index_add", "Tensor.index_copy", "inner", "square", "trace"}
# An older PyTorch has other policies for these, or for the functions that tests write them out with.
CHANGED = {
    "ops.box_convert", "ops.crop_and_resize", *(f"nn.functional.conv_local{n}d" for n in (1, 2, 3)),
    "nn.functional.rms_norm", "lstm", "gru", "rnn_tanh", "rnn_relu",
}  # fmt: skip
LEFT_OUT = COMPOSED | (CHANGED if TORCH_VERSION < (2, 13) else set())
NAMES = [name for name, op in load_tables().items() if set(op.dtypes) & set(FLOAT) and name not in LEFT_OUT]


def on_fake_gpu(value: Any) -> Any:
    """Tensors without memory that PyTorch takes for tensors on a GPU."""

    def one(v: Any) -> Any:
        if not isinstance(v, torch.Tensor):
            return v
        return torch.empty_strided(v.size(), v.stride(), dtype=v.dtype, device="cuda")

    return map_nested(one, value)


def wanted(op: Any, args: Any, kwargs: Any, dtype: str) -> list[str] | None:
    """What PyTorch's autocast gives; None where it has no kernel, or needs values that are not there."""
    fake_tensor = importlib.import_module("torch._subclasses.fake_tensor")
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    # torch.autocast() turns itself off where there is no GPU.
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", getattr(torch, dtype))
    try:
        with fake_tensor.FakeTensorMode():
            fakes = on_fake_gpu(list(args)), {k: on_fake_gpu(v) for k, v in kwargs.items()}
            return dtypes_of(op.torch_fn(), *fakes)
    except Exception:
        return None
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
        torch.clear_autocast_cache()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_every_op_runs_in_the_dtype_that_pytorch_picks(name: str, dtype: str) -> None:
    op = load_tables()[name]
    for mix in MIXES[: 4 if name in PARTICULAR else None]:
        for call, args, kwargs in calls_in(op, mix):
            want = wanted(op, args, kwargs, dtype)
            if want is None:
                continue
            ours = nested_to_opsin(args), {k: nested_to_opsin(v) for k, v in kwargs.items()}
            with opsin.autocast("cuda", getattr(opsin, dtype)):
                got = dtypes_of(op.opsin_fn(), *ours)
            assert got == want, f"{name} of {mix}, {call.label()}"


def test_some_ops_have_a_policy() -> None:
    """Guards the test above: PyTorch's answers do come from its lists."""
    x = opsin.ones(3, 3, device="cuda", dtype=opsin.float16)
    with opsin.autocast("cuda"):
        assert x.exp().dtype == x.sum().dtype == (x**2).dtype == x.softmax(0).dtype == opsin.float32
        assert (x.float() @ x.float()).dtype == (x + x).dtype == opsin.float16
    op = load_tables()["exp"]
    assert any(
        wanted(op, args, kwargs, "float16") == ["float32"] for _, args, kwargs in calls_in(op, ("float16",))
    )
    assert len(DIFFERENT) < 10


def test_a_probability_is_not_for_float16() -> None:
    x = opsin.rand(3, device="cuda")
    with opsin.autocast("cuda"), pytest.raises(RuntimeError, match="unsafe to autocast"):
        opsin.nn.functional.binary_cross_entropy(x, x)
