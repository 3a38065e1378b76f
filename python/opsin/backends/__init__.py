"""Settings of the libraries behind the engine, as in `torch.backends`."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opsin.backends import cuda, cudnn

__all__ = ["cuda", "cudnn"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in __all__:
            return _import_module(f"opsin.backends.{name}")
        raise AttributeError(f"module 'opsin.backends' has no attribute {name!r}")
