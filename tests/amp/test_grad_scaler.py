"""GradScaler against PyTorch's, step by step."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest

import opsin
from tests.peer import torch

LIBRARIES = (opsin, torch)


def make(library: Any, **options: Any) -> tuple[Any, Any, Any]:
    """(parameter, optimizer, scaler) of a library."""
    parameter = library.nn.Parameter(library.tensor([1.0, 2.0]))
    options = {"init_scale": 8.0, "growth_interval": 2, **options}
    return parameter, library.optim.SGD([parameter], lr=0.5), library.amp.GradScaler("cpu", **options)


def train(library: Any, factors: list[float], **options: Any) -> list[Any]:
    """The parameter, the scale and the state after each step of losses `factor * sum(parameter)`."""
    parameter, optimizer, scaler = make(library, **options)
    seen = []
    for factor in factors:
        optimizer.zero_grad()
        scaler.scale((parameter * factor).sum()).backward()
        result = scaler.step(optimizer)
        assert result is None
        scaler.update()
        seen.append((parameter.tolist(), scaler.get_scale(), scaler.state_dict()))
    return seen


@pytest.mark.parametrize(
    "factors",
    [
        [1.0] * 5,
        [1.0, math.inf, 1.0, 1.0, math.nan, 1.0],
        [math.inf] * 3,
        [1.0, 3e38, 1.0],  # finite, and not after the scale
    ],
)
@pytest.mark.parametrize("options", [{}, {"growth_factor": 1.1, "backoff_factor": 0.3}, {"init_scale": 3e38}])
def test_steps_and_scales_are_those_of_pytorch(factors: list[float], options: dict[str, float]) -> None:
    assert train(opsin, factors, **options) == train(torch, factors, **options)


def test_unscaled_gradients_can_be_clipped_before_the_step() -> None:
    for library in LIBRARIES:
        parameter, optimizer, scaler = make(library)
        scaler.scale((parameter * 4).sum()).backward()
        assert parameter.grad.tolist() == [32, 32]
        scaler.unscale_(optimizer)
        assert parameter.grad.tolist() == [4, 4]
        library.nn.utils.clip_grad_value_([parameter], 1.0)
        scaler.step(optimizer)
        assert parameter.tolist() == [0.5, 1.5]


def test_two_optimizers_share_a_scale() -> None:
    for library in LIBRARIES:
        (a, one, scaler), (b, two, _) = make(library), make(library)
        scaler.scale((a * math.inf).sum() + b.sum()).backward()
        scaler.step(one)
        scaler.step(two)
        assert a.tolist() == [1, 2] and b.tolist() == [0.5, 1.5]
        scaler.update()
        assert scaler.get_scale() == 4


def test_scale_takes_nested_iterables() -> None:
    for library in LIBRARIES:
        scaler = library.amp.GradScaler("cpu", init_scale=4.0)
        x = library.ones(2)
        first, (second, third) = scaler.scale([x, (x, x * 2)])
        assert first.tolist() == second.tolist() == [4, 4] and third.tolist() == [8, 8]
        assert [y.tolist() for y in scaler.scale(x for _ in range(2))] == [[4, 4]] * 2
        # A loss in half precision becomes a float32 one, which does not overflow.
        scaled = scaler.scale(library.tensor(60000.0, dtype=library.float16))
        assert scaled.dtype == library.float32 and scaled.item() == 240000
        assert scaler.scale(x.to(library.float16)).dtype == library.float16


def test_a_scaler_that_is_off_passes_everything_through() -> None:
    for library in LIBRARIES:
        parameter, optimizer, scaler = make(library, enabled=False)
        loss = parameter.sum()
        assert scaler.scale(loss) is loss and not scaler.is_enabled()
        loss.backward()
        scaler.unscale_(optimizer)
        assert scaler.step(optimizer, closure=None) is None
        scaler.update()
        assert parameter.tolist() == [0.5, 1.5]
        assert scaler.get_scale() == 1.0 and scaler.state_dict() == {}
        scaler.load_state_dict({})


def test_step_passes_arguments_and_the_result_on() -> None:
    class Recorder(opsin.optim.SGD):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            return args, kwargs

    parameter, _, scaler = make(opsin)
    scaler.scale(parameter.sum()).backward()
    assert scaler.step(Recorder([parameter], lr=1.0), 1, flag=2) == ((1,), {"flag": 2})


def test_update_to_a_given_scale() -> None:
    for library in LIBRARIES:
        parameter, _, scaler = make(library)
        scaler.scale(parameter.sum())
        scaler.update(2.5)
        assert scaler.get_scale() == 2.5
        scaler.update(library.tensor(3.5))
        assert scaler.get_scale() == 3.5


def test_state_survives_checkpoints_and_pickling() -> None:
    state: dict[str, Any] = {}
    for library in LIBRARIES:
        parameter, optimizer, scaler = make(library)
        scaler.scale(parameter.sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        scaler.set_growth_factor(3.0)
        scaler.set_backoff_factor(0.25)
        scaler.set_growth_interval(7)
        state = scaler.state_dict()
        assert state == {
            "scale": 8.0,
            "growth_factor": 3.0,
            "backoff_factor": 0.25,
            "growth_interval": 7,
            "_growth_tracker": 1,
        }
        fresh, used = library.amp.GradScaler("cpu"), make(library)[2]
        used.scale(library.ones(1))
        for other in (fresh, used, pickle.loads(pickle.dumps(scaler))):
            other.load_state_dict(state)
            assert other.state_dict() == state
            assert other.scale(library.ones(())).item() == 8
        assert (scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()) == (
            3,
            0.25,
            7,
        )
    # A checkpoint of PyTorch goes on here.
    ours = opsin.amp.GradScaler("cpu")
    ours.load_state_dict(state)
    assert ours.state_dict() == state


def unscale(grads: list[opsin.Tensor], scale: float) -> bool:
    """Divides the gradients by `scale`; whether one was infinite or NaN."""
    found = opsin.zeros(())
    opsin._C._unscale(grads, opsin.tensor(scale), found)
    return bool(found)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_unscaling_any_dtype_and_layout(dtype: str) -> None:
    kind = getattr(opsin, dtype)
    values = np.linspace(-4, 4, 3 * 70000).reshape(3, 70000)
    for grad in (
        opsin.tensor(values, dtype=kind),
        opsin.tensor(values, dtype=kind).T,
        opsin.ones(0, dtype=kind),
    ):
        want, version = (grad * 0.25).tolist(), grad._version
        assert not unscale([grad], 4.0)
        assert grad.tolist() == want and grad._version > version
        for bad in (math.inf, -math.inf, math.nan) if grad.numel() else ():
            grad[-1, -1] = bad
            assert unscale([opsin.ones(2), grad], 1.0)
    with pytest.raises(TypeError, match="unscale_grads: expected floating-point tensors, got int64"):
        unscale([opsin.ones(2, dtype=opsin.int64)], 1.0)


def started(**options: Any) -> tuple[Any, Any]:
    """(optimizer, scaler) after a backward pass."""
    parameter, optimizer, scaler = make(opsin, **options)
    scaler.scale(parameter.sum()).backward()
    return optimizer, scaler


def test_errors() -> None:
    with pytest.raises(AssertionError, match=r"growth factor must be > 1\.0, got 1"):
        make(opsin, growth_factor=1)
    with pytest.raises(AssertionError, match=r"backoff factor must be < 1\.0, got 2"):
        make(opsin, backoff_factor=2)
    with pytest.warns(UserWarning, match=r"CUDA is not available\. Disabling"):
        assert not opsin.amp.GradScaler().is_enabled()

    optimizer, scaler = make(opsin)[1:]
    for method in (scaler.step, scaler.unscale_):
        with pytest.raises(AssertionError, match=f"Attempted {method.__name__} but _scale is None"):
            method(optimizer)
    with pytest.raises(AssertionError, match="Attempted update but _scale is None"):
        scaler.update()
    with pytest.raises(ValueError, match="outputs must be a Tensor or an iterable of Tensors, got int"):
        scaler.scale(3)

    optimizer, scaler = started()
    with pytest.raises(AssertionError, match=r"No inf checks were recorded prior to update"):
        scaler.update()
    with pytest.raises(RuntimeError, match="Closure use is not currently supported"):
        scaler.step(optimizer, closure=lambda: 0)
    with pytest.raises(AssertionError, match="new_scale should be a float or a 1-element tensor"):
        scaler.update(opsin.ones(2))
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) has already been called"):
        scaler.unscale_(optimizer)
    with pytest.raises(AssertionError, match="may only be pickled at the beginning of an iteration"):
        pickle.dumps(scaler)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) is being called after step\(\)"):
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"step\(\) has already been called"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="source state dict is empty"):
        scaler.load_state_dict({})

    optimizer, scaler = started()
    optimizer.zero_grad()
    with pytest.raises(AssertionError, match=r"No inf checks were recorded.*has a gradient"):
        scaler.step(optimizer)

    half = opsin.nn.Parameter(opsin.ones(2, dtype=opsin.float16))
    scaler.scale(half.sum()).backward()
    with pytest.raises(ValueError, match=r"Attempting to unscale FP16 gradients.*float32"):
        scaler.unscale_(opsin.optim.SGD([half], lr=1.0))
