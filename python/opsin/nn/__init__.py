"""Layers, containers and losses, as in `torch.nn`."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from opsin._left_out import explain as _explain
from opsin.nn import functional, init, parameter
from opsin.nn._activation import GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Tanh
from opsin.nn._conditional_norm import (
    ConditionalBatchNorm1d,
    ConditionalBatchNorm2d,
    ConditionalBatchNorm3d,
    ConditionalInstanceNorm1d,
    ConditionalInstanceNorm2d,
    ConditionalInstanceNorm3d,
)
from opsin.nn._attention import MultiheadAttention
from opsin.nn._container import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from opsin.nn._conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from opsin.nn._conv_blocks import (
    DepthwiseSeparableConv1d,
    DepthwiseSeparableConv2d,
    DepthwiseSeparableConv3d,
    MultiHeadMultiResolutionConv1d,
    MultiHeadMultiResolutionConv2d,
    MultiHeadMultiResolutionConv3d,
    MultiResolutionConv1d,
    MultiResolutionConv2d,
    MultiResolutionConv3d,
    SpatiallySeparableConv2d,
    SpatiallySeparableConv3d,
)
from opsin.nn._conv_recurrent import (
    ConvGRU1d,
    ConvGRU2d,
    ConvGRU3d,
    ConvGRUCell1d,
    ConvGRUCell2d,
    ConvGRUCell3d,
    ConvLSTM1d,
    ConvLSTM2d,
    ConvLSTM3d,
    ConvLSTMCell1d,
    ConvLSTMCell2d,
    ConvLSTMCell3d,
    ConvRNN1d,
    ConvRNN2d,
    ConvRNN3d,
    ConvRNNCell1d,
    ConvRNNCell2d,
    ConvRNNCell3d,
)
from opsin.nn._dropout import Dropout, Dropout1d, Dropout2d, Dropout3d
from opsin.nn._group_norm import (
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LocalResponseNorm,
    RMSNorm,
)
from opsin.nn._graph import GraphConv
from opsin.nn._linear import Flatten, Identity, Linear, Unflatten
from opsin.nn._local import (
    LocallyConnected1d,
    LocallyConnected2d,
    LocallyConnected3d,
    LocallyConnectedTranspose1d,
    LocallyConnectedTranspose2d,
    LocallyConnectedTranspose3d,
)
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
from opsin.nn._scaled_ws import ScaledWSConv1d, ScaledWSConv2d, ScaledWSConv3d
from opsin.nn._sparse import Embedding
from opsin.nn._unfold import Fold, Unfold
from opsin.nn._transformer import (
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
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
    "ConditionalBatchNorm1d",
    "ConditionalBatchNorm2d",
    "ConditionalBatchNorm3d",
    "ConditionalInstanceNorm1d",
    "ConditionalInstanceNorm2d",
    "ConditionalInstanceNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvGRU1d",
    "ConvGRU2d",
    "ConvGRU3d",
    "ConvGRUCell1d",
    "ConvGRUCell2d",
    "ConvGRUCell3d",
    "ConvLSTM1d",
    "ConvLSTM2d",
    "ConvLSTM3d",
    "ConvLSTMCell1d",
    "ConvLSTMCell2d",
    "ConvLSTMCell3d",
    "ConvRNN1d",
    "ConvRNN2d",
    "ConvRNN3d",
    "ConvRNNCell1d",
    "ConvRNNCell2d",
    "ConvRNNCell3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CrossEntropyLoss",
    "DepthwiseSeparableConv1d",
    "DepthwiseSeparableConv2d",
    "DepthwiseSeparableConv3d",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "Embedding",
    "Flatten",
    "GroupNorm",
    "GraphConv",
    "Fold",
    "Identity",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "LocallyConnected1d",
    "LocallyConnected2d",
    "LocallyConnected3d",
    "LocallyConnectedTranspose1d",
    "LocallyConnectedTranspose2d",
    "LocallyConnectedTranspose3d",
    "LogSoftmax",
    "MSELoss",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiHeadMultiResolutionConv1d",
    "MultiHeadMultiResolutionConv2d",
    "MultiHeadMultiResolutionConv3d",
    "MultiResolutionConv1d",
    "MultiResolutionConv2d",
    "MultiResolutionConv3d",
    "MultiheadAttention",
    "NLLLoss",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "RMSNorm",
    "ReLU",
    "ScaledWSConv1d",
    "ScaledWSConv2d",
    "ScaledWSConv3d",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SpatiallySeparableConv2d",
    "SpatiallySeparableConv3d",
    "Tanh",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "Unflatten",
    "Unfold",
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
