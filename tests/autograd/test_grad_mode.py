"""Gradient modes as context managers and decorators, and the checks of `backward` and `grad`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import opsin
from opsin import autograd


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
