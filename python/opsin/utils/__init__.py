"""Utilities around training: `opsin.utils.data`."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from opsin._left_out import explain as _explain

if TYPE_CHECKING:
    from opsin.utils import data

__all__ = ["data"]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "data":
            return _import_module("opsin.utils.data")
        raise AttributeError(_explain("opsin.utils", name))
