"""Layers, containers and losses, as in `torch.nn`."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from opsin._left_out import explain as _explain
from opsin.nn import functional, init, parameter
from opsin.nn._activation import GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Tanh
from opsin.nn._container import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from opsin.nn._conv import Conv1d, Conv2d, Conv3d
from opsin.nn._dropout import Dropout, Dropout1d, Dropout2d, Dropout3d
from opsin.nn._linear import Flatten, Identity, Linear, Unflatten
from opsin.nn._loss import CrossEntropyLoss, MSELoss, NLLLoss
from opsin.nn._norm import BatchNorm1d, BatchNorm2d, BatchNorm3d, LayerNorm
from opsin.nn._pool import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from opsin.nn._sparse import Embedding
from opsin.nn._upsample import (
    ChannelShuffle,
    PixelShuffle,
    PixelUnshuffle,
    Upsample,
    UpsamplingBilinear2d,
    UpsamplingNearest2d,
)
from opsin.nn.module import Module
from opsin.nn.parameter import Buffer, Parameter

if TYPE_CHECKING:
    from opsin.nn import utils

__all__ = [
    "GELU",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Buffer",
    "ChannelShuffle",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "CrossEntropyLoss",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "Embedding",
    "Flatten",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "PixelShuffle",
    "PixelUnshuffle",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Unflatten",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
    "functional",
    "init",
    "parameter",
    "utils",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "utils":
            return _import_module("opsin.nn.utils")
        raise AttributeError(_explain("opsin.nn", name))
