"""Gradient modes as context managers and decorators, and the checks of `backward` and `grad`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import opsin
from opsin import autograd
from tests.opcases import torch


def test_modes_nest_and_restore() -> None:
    with opsin.no_grad():
        assert not opsin.is_grad_enabled()
        with opsin.enable_grad():
            assert opsin.is_grad_enabled()
            with opsin.set_grad_enabled(False):
                assert not opsin.is_grad_enabled()
            assert opsin.is_grad_enabled()
        assert not opsin.is_grad_enabled()
    assert opsin.is_grad_enabled()


def test_set_grad_enabled_acts_at_once_as_a_function() -> None:
    mode = opsin.set_grad_enabled(False)
    try:
        assert not opsin.is_grad_enabled()
        assert repr(mode) == "set_grad_enabled(mode=False)"
    finally:
        opsin.set_grad_enabled(True)


def test_modes_as_decorators() -> None:
    @opsin.no_grad
    def bare() -> bool:
        return opsin.is_grad_enabled()

    @opsin.no_grad()
    def called() -> bool:
        return opsin.is_grad_enabled()

    @opsin.set_grad_enabled(False)
    def set_off() -> bool:
        return opsin.is_grad_enabled()

    @opsin.enable_grad
    def on() -> bool:
        return opsin.is_grad_enabled()

    @opsin.inference_mode
    def inference() -> tuple[bool, bool]:
        return opsin.is_grad_enabled(), opsin.is_inference_mode_enabled()

    @opsin.inference_mode(False)
    def not_inference() -> tuple[bool, bool]:
        return opsin.is_grad_enabled(), opsin.is_inference_mode_enabled()

    assert opsin.is_grad_enabled()
    assert not bare() and not called() and not set_off()
    assert bare.__name__ == "bare"
    with opsin.no_grad():
        assert on()
    assert inference() == (False, True)
    assert not_inference() == (True, False)
    assert opsin.is_grad_enabled() and not opsin.is_inference_mode_enabled()


def test_generators_hold_the_mode_only_while_they_run() -> None:
    log: list[Any] = []

    @opsin.no_grad()
    def numbers() -> Iterator[Any]:
        try:
            sent = yield opsin.is_grad_enabled()
            log.append((sent, opsin.is_grad_enabled()))
            try:
                yield 2
            except KeyError:
                log.append("caught")
            yield 3
        finally:
            log.append(("closed", opsin.is_grad_enabled()))

    generator: Any = numbers()
    assert next(generator) is False
    assert opsin.is_grad_enabled()
    assert generator.send("hello") == 2
    assert generator.throw(KeyError()) == 3
    generator.close()
    assert log == [("hello", False), "caught", ("closed", False)]
    assert opsin.is_grad_enabled()

    @opsin.no_grad()
    def returning() -> Any:
        yield 1
        return "result"

    def delegate() -> Any:
        log.append((yield from returning()))

    assert list(delegate()) == [1]
    assert log[-1] == "result"


def test_batched_gradients() -> None:
    x = opsin.tensor([1.0, 2.0], requires_grad=True)
    y = x * x
    (rows,) = autograd.grad(y, x, opsin.tensor([[1.0, 0.0], [0.0, 1.0]]), is_grads_batched=True)
    assert rows.tolist() == [[2.0, 0.0], [0.0, 4.0]]


def test_missing_gradients_can_be_zeros() -> None:
    x, unused = opsin.ones(2, requires_grad=True), opsin.ones(3, requires_grad=True)
    _, zeros = autograd.grad(x.sum(), (x, unused), materialize_grads=True)
    assert zeros.tolist() == [0.0, 0.0, 0.0]


def test_errors() -> None:
    x = opsin.ones(2, requires_grad=True)
    y = x * 2
    with pytest.raises(TypeError, match=r"backward: tensors must be tensors, got int at index 0"):
        autograd.backward([3])  # type: ignore[list-item]
    with pytest.raises(
        RuntimeError, match=r"backward: expected one gradient per output, got 2 for 1 outputs"
    ):
        autograd.backward(y, [opsin.ones(2), opsin.ones(2)])
    with pytest.raises(
        TypeError, match=r"backward: gradients can be either Tensors or None, got float at index 0"
    ):
        autograd.backward(y, [1.0])  # type: ignore[list-item]
    with pytest.raises(RuntimeError, match=r"backward: inputs must not be empty"):
        autograd.backward(y.sum(), inputs=[])
    with pytest.raises(
        RuntimeError, match=r"backward: grad_variables is the old name of grad_tensors, got both"
    ):
        autograd.backward(y, opsin.ones(2), grad_variables=opsin.ones(2))
    with pytest.raises(TypeError, match=r"grad: inputs must be tensors, got str at index 1"):
        autograd.grad(y.sum(), [x, "x"])  # type: ignore[list-item]
    with pytest.raises(
        ValueError, match=r"grad: materialize_grads needs allow_unused, got allow_unused=False"
    ):
        autograd.grad(y.sum(), x, allow_unused=False, materialize_grads=True)
    with pytest.raises(ValueError, match=r"grad: only_inputs must be True, got False"):
        autograd.grad(y.sum(), x, only_inputs=False)
    with pytest.raises(
        RuntimeError, match=r"grad: is_grads_batched needs a gradient for every output, got None"
    ):
        autograd.grad(y.sum(), x, is_grads_batched=True)
    with pytest.raises(
        RuntimeError, match=r"grad: batched grad_outputs must agree in their first size, got \[2, 3\]"
    ):
        autograd.grad((y, y), x, (opsin.ones(2, 2), opsin.ones(3, 2)), is_grads_batched=True)
    with pytest.raises(AttributeError, match=r"module 'opsin.autograd' has no attribute 'nonsense'"):
        _ = autograd.nonsense  # type: ignore[attr-defined]


def test_tensors_made_in_inference_mode_are_marked() -> None:
    for lib in (opsin, torch):
        x = lib.ones(3, requires_grad=True)
        plain = lib.ones(3)
        with lib.inference_mode():
            assert lib.is_inference_mode_enabled()
            y = x * 2
            assert y.is_inference() and not y.requires_grad and lib.ones(2).is_inference()
            assert y[1:].is_inference() and y.detach().is_inference()
            # Views of other tensors, and what is written to them, stay ordinary.
            assert not x.is_inference() and not x[1:].is_inference()
            version = plain._version
            assert plain.add_(1) is plain and not plain.is_inference() and plain._version == version + 1
            y.add_(1)
            with lib.inference_mode(False):
                assert not lib.is_inference_mode_enabled() and (x * 2).requires_grad
                assert not (x * 2).is_inference()
            with lib.enable_grad():
                assert not (x * 2).requires_grad
        assert not lib.is_inference_mode_enabled() and lib.is_grad_enabled()
        assert y.is_inference() and y[1:].is_inference() and not (y + 1).is_inference()
        assert not y.clone().is_inference() and y.tolist() == [3, 3, 3]


def test_inference_tensors_outside_inference_mode() -> None:
    for lib in (opsin, torch):
        x = lib.ones(3, requires_grad=True)
        with lib.inference_mode():
            y = x * 2
            made = lib.ones(3, requires_grad=True)
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
            x * y
        with pytest.raises(RuntimeError, match="Setting requires_grad=True on inference tensor outside"):
            y.requires_grad_()
        with pytest.raises(RuntimeError, match="Inference tensors do not track version counter"):
            _ = y._version
        assert made.requires_grad and made.is_leaf
        (x + y).sum().backward()
        (x * y.clone()).sum().backward()
        assert x.grad.tolist() == [3, 3, 3]
        with lib.inference_mode():
            y.add_(1)
        assert y.tolist() == [3, 3, 3]
        # PyTorch writes before it raises.
        for change, args in (("add_", (1,)), ("zero_", ()), ("unsqueeze_", (0,))):
            for target in (y, y[:2]):
                with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside Infer"):
                    getattr(target, change)(*args)
        with lib.no_grad(), pytest.raises(RuntimeError, match="Inplace update to inference tensor outside"):
            y.add_(1)


def test_random_writes_respect_inference_mode() -> None:
    with opsin.inference_mode():
        y = opsin.ones(3)
    with pytest.raises(RuntimeError, match=r"^uniform_: Inplace update to inference tensor"):
        y.uniform_()


def test_a_network_trains_after_it_was_evaluated() -> None:
    net = opsin.nn.Sequential(opsin.nn.Conv2d(1, 2, 3), opsin.nn.BatchNorm2d(2), opsin.nn.Flatten())
    x = opsin.randn(2, 1, 4, 4)
    for _ in range(2):
        with opsin.inference_mode():
            assert net(x).is_inference()
        net(x).square().mean().backward()
    assert net[0].weight.grad is not None and not net[1].running_mean.is_inference()
