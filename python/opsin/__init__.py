"""Opsin: a compact deep-learning engine for computer vision.

Names, argument order, defaults and semantics are PyTorch's, so that model code ports by changing the import::

    import opsin
    from opsin import nn

    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    logits = model(opsin.randn(2, 1, 8, 8))

Submodules (`opsin.nn`, `opsin.optim`, `opsin.utils.data`, ...) are imported on first use.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

import opsin._C._functions as _functions
from opsin import _C as _C
from opsin._C import __version__
from opsin._contract import einsum, tensordot
from opsin._left_out import explain as _explain
from opsin._tensor import install as _install
from opsin._types import (
    e,
    finfo,
    iinfo,
    inf,
    is_complex,
    is_floating_point,
    is_tensor,
    layout,
    nan,
    newaxis,
    numel,
    pi,
    result_type,
    strided,
    use_deterministic_algorithms,
)
from opsin.autograd.grad_mode import (
    enable_grad,
    inference_mode,
    no_grad,
    set_grad_enabled,
)

if TYPE_CHECKING:
    from opsin import (
        amp,
        autograd,
        backends,
        cuda,
        data,
        linalg,
        metrics,
        models,
        nn,
        ops,
        optim,
        profiler,
        recipes,
        serialization,
        train,
        transforms,
        utils,
    )
    from opsin._tensor_repr import set_printoptions
    from opsin.amp.autocast_mode import autocast
    from opsin.serialization import load, save

__all__ = [
    "__version__",
    "amp",
    "autocast",
    "autograd",
    "backends",
    "cuda",
    "data",
    "e",
    "einsum",
    "enable_grad",
    "finfo",
    "iinfo",
    "inf",
    "inference_mode",
    "is_complex",
    "is_floating_point",
    "is_tensor",
    "layout",
    "linalg",
    "load",
    "metrics",
    "models",
    "nan",
    "newaxis",
    "nn",
    "no_grad",
    "numel",
    "ops",
    "optim",
    "pi",
    "profiler",
    "recipes",
    "result_type",
    "save",
    "serialization",
    "set_grad_enabled",
    "set_printoptions",
    "strided",
    "tensordot",
    "train",
    "transforms",
    "use_deterministic_algorithms",
    "utils",
]

_SUBMODULES = frozenset(
    (
        *("amp", "autograd", "backends", "cuda", "data", "linalg", "metrics", "models", "nn", "ops"),
        *("optim", "profiler", "recipes", "serialization", "train", "transforms", "utils"),
    )
)
_LAZY_FUNCTIONS = {
    "autocast": "opsin.amp.autocast_mode",
    "load": "opsin.serialization",
    "save": "opsin.serialization",
    "set_printoptions": "opsin._tensor_repr",
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _SUBMODULES:
            return _import_module("opsin." + name)
        home = _LAZY_FUNCTIONS.get(name)
        if home is not None:
            value = getattr(_import_module(home), name)
            globals()[name] = value
            return value
        raise AttributeError(_explain("opsin", name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES, *_LAZY_FUNCTIONS})


_install()
__all__ += _C.__all__
__all__ += _functions.__all__
# Last, because they bring in `abs`, `all`, `float`, `int`, `sum`, ... which hide Python's own in this module.
from opsin._C import *  # noqa: E402, F403
from opsin._C._functions import *  # noqa: E402, F403
