"""Optimizers and learning-rate schedules, as in `torch.optim`."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from opsin._left_out import explain as _explain
from opsin.optim.adam import Adam, AdamW
from opsin.optim.optimizer import Optimizer
from opsin.optim.sgd import SGD

if TYPE_CHECKING:
    from opsin.optim import lr_scheduler

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "lr_scheduler":
            return _import_module("opsin.optim.lr_scheduler")
        raise AttributeError(_explain("opsin.optim", name))
