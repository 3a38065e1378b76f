"""Every op of the test tables on their larger calls, so that a new op is measured without a line here.

The calls are the `bench` rows of `tests/ops/`, and for elementwise ops without one, a million elements.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from timeit import Timer
from typing import Any

from harness import OPSIN, Plan, Row, one_line, threads, timed_row

PART = "tables"
_WIDE = (1024, 1024)


def _tests() -> Any:
    """The package of the tests, which is part of the repository and not installed."""
    root = str(Path(__file__).resolve().parents[1])
    if root not in sys.path:
        sys.path.insert(1, root)
    from tests import opcases, opcheck

    return opcases, opcheck.load_tables()


def _calls(opcases: Any, op: Any) -> list[Any]:
    if op.bench or not op.elementwise:
        return list(op.bench)
    return [opcases.c(*[opcases.t(*_WIDE, low=op.low, high=op.high)] * op.elementwise)]


def _convert(value: Any) -> Any:
    """Opsin tensors and dtypes in the place of PyTorch's, inside lists and tuples too."""
    import torch

    import opsin

    if isinstance(value, torch.Tensor):
        return opsin.tensor(value.numpy())
    if isinstance(value, torch.dtype):
        return getattr(opsin, str(value).removeprefix("torch."))
    if isinstance(value, (list, tuple)):
        return type(value)(_convert(item) for item in value)
    return value


def sides(op: Any, call: Any) -> dict[str, Timer]:
    """Timers of the forward pass without gradient."""
    import torch

    import opsin

    def bind(library: Any, function: Callable[..., Any], args: Any, kwargs: Any) -> Timer:
        def forward() -> Any:
            with library.no_grad():
                return function(*args, **kwargs)

        return Timer(forward)

    args, kwargs = call.make("float32")
    ours = bind(opsin, op.opsin_fn(), _convert(args), {k: _convert(v) for k, v in kwargs.items()})
    return {OPSIN: ours, "torch": bind(torch, op.torch_fn(), args, kwargs)}


def run(plan: Plan) -> Iterator[Row]:
    """A forward row per op and call, in float32."""
    import torch

    import opsin

    try:
        opcases, found = _tests()
    except Exception as error:
        yield Row(PART, "all", "the tables of tests/ops", error=one_line(error))
        return
    with threads((opsin, torch), plan.threads):
        for name in sorted(found):
            op = found[name]
            if "float32" not in op.dtypes:
                continue
            for call in _calls(opcases, op):
                yield timed_row(
                    PART,
                    "forward, float32",
                    f"{name} {call.label()}",
                    plan,
                    lambda op=op, call=call: sides(op, call),
                )
