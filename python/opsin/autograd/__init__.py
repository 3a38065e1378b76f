"""Gradients: `backward`, `grad` and the switches of gradient recording."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from opsin._C import Tensor, _run_backward
from opsin._left_out import explain as _explain
from opsin.autograd.grad_mode import enable_grad, inference_mode, no_grad, set_grad_enabled

if TYPE_CHECKING:
    from opsin.autograd import profiler
    from opsin.autograd._gradcheck import GradcheckError, gradcheck, gradgradcheck

__all__ = [
    "GradcheckError",
    "backward",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "no_grad",
    "profiler",
    "set_grad_enabled",
]

_TensorOrTensors = Tensor | Sequence[Tensor]


def _as_tuple(values: Any) -> tuple[Any, ...]:
    return (values,) if isinstance(values, Tensor) else tuple(values)


def _checked_tensors(op: str, name: str, values: Any) -> tuple[Tensor, ...]:
    values = _as_tuple(values)
    for i, value in enumerate(values):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{op}: {name} must be tensors, got {type(value).__name__} at index {i} (pass opsin tensors)"
            )
    return values


def _checked_seeds(op: str, seeds: Any, count: int) -> tuple[Tensor | None, ...]:
    """The gradients to start from, one per output.

    None stands for ones, which only a scalar output allows.
    """
    seeds = (None,) * count if seeds is None else _as_tuple(seeds)
    if len(seeds) != count:
        raise RuntimeError(
            f"{op}: expected one gradient per output, got {len(seeds)} for {count} outputs "
            "(pass None for a scalar)"
        )
    for i, seed in enumerate(seeds):
        if seed is not None and not isinstance(seed, Tensor):
            raise TypeError(
                f"{op}: gradients can be either Tensors or None, got {type(seed).__name__} at index {i} "
                "(pass a tensor)"
            )
    return seeds


def backward(
    tensors: _TensorOrTensors,
    grad_tensors: _TensorOrTensors | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: _TensorOrTensors | None = None,
    inputs: _TensorOrTensors | None = None,
) -> None:
    """Adds d(tensors)/d(leaf) to `leaf.grad` for every leaf, or for `inputs` alone when given.

    `grad_tensors` holds one gradient per tensor to start from; None stands for 1 and needs a tensor of one
    element. The graph is freed unless `retain_graph` (default: the value of `create_graph`) is true.
    """
    if grad_variables is not None:
        if grad_tensors is not None:
            raise RuntimeError(
                "backward: grad_variables is the old name of grad_tensors, got both (pass grad_tensors only)"
            )
        grad_tensors = grad_variables
    outputs = _checked_tensors("backward", "tensors", tensors)
    targets = () if inputs is None else _checked_tensors("backward", "inputs", inputs)
    if inputs is not None and not targets:
        raise RuntimeError("backward: inputs must not be empty, got [] (leave it out to reach every leaf)")
    seeds = _checked_seeds("backward", grad_tensors, len(outputs))
    keep = create_graph if retain_graph is None else retain_graph
    _run_backward(outputs, seeds, keep, create_graph, targets, True, True)


def grad(
    outputs: _TensorOrTensors,
    inputs: _TensorOrTensors,
    grad_outputs: _TensorOrTensors | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor, ...]:
    """Returns the sum of d(outputs)/d(input) for each input, and leaves every `.grad` as it is.

    An input that the outputs do not depend on is an error, or None with `allow_unused`, or zeros with
    `materialize_grads`. `is_grads_batched` runs once per leading index of `grad_outputs` and stacks the
    results.
    """
    if materialize_grads and allow_unused is False:
        raise ValueError(
            "grad: materialize_grads needs allow_unused, got allow_unused=False (leave allow_unused out)"
        )
    if not only_inputs:
        raise ValueError(
            "grad: only_inputs must be True, got False (use backward to accumulate into every leaf)"
        )
    sources = _checked_tensors("grad", "outputs", outputs)
    targets = _checked_tensors("grad", "inputs", inputs)
    seeds = _checked_seeds("grad", grad_outputs, len(sources))
    unused_ok = materialize_grads or bool(allow_unused)
    keep = create_graph if retain_graph is None else retain_graph

    if is_grads_batched:
        results = _batched_grad(sources, targets, seeds, keep, create_graph, unused_ok)
    else:
        results = _run_backward(sources, seeds, keep, create_graph, targets, unused_ok, False)
    if materialize_grads:
        from opsin import zeros_like

        results = tuple(
            zeros_like(x, requires_grad=create_graph) if g is None else g
            for g, x in zip(results, targets, strict=True)
        )
    return tuple(results)


def _batched_grad(
    sources: Any, targets: Any, seeds: Any, keep: bool, create_graph: bool, unused_ok: bool
) -> tuple[Any, ...]:
    from opsin import stack

    if any(seed is None for seed in seeds):
        raise RuntimeError(
            "grad: is_grads_batched needs a gradient for every output, got None "
            "(pass grad_outputs with a batch dimension)"
        )
    sizes = {len(seed) for seed in seeds}
    if len(sizes) != 1:
        raise RuntimeError(
            f"grad: batched grad_outputs must agree in their first size, got {sorted(sizes)} "
            "(stack them alike)"
        )
    count = sizes.pop()
    rows = []
    for i in range(count):
        last = i == count - 1
        rows.append(
            _run_backward(
                sources, tuple(s[i] for s in seeds), keep or not last, create_graph, targets, unused_ok, False
            )
        )
    return tuple(None if column[0] is None else stack(column) for column in zip(*rows, strict=True))


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "profiler":
            return _import_module("opsin.autograd.profiler")
        if name in ("GradcheckError", "gradcheck", "gradgradcheck"):
            value = getattr(_import_module("opsin.autograd._gradcheck"), name)
            globals()[name] = value
            return value
        raise AttributeError(_explain("opsin.autograd", name))
