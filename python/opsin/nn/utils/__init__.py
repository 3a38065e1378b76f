"""Helpers for parameters and their gradients, and for convolutions."""

from opsin.nn.utils import fusion, parametrizations, parametrize, rnn
from opsin.nn.utils._weight_hooks import remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm
from opsin.nn.utils.clip_grad import (
    adaptive_clip_grad_,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from opsin.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters
from opsin.nn.utils.convolution import (
    ConvCost,
    ReceptiveField,
    conv_cost,
    conv_matrix,
    conv_output_size,
    conv_transpose_output_size,
    fully_convolutional,
    linear_to_conv,
    rank1_factors,
    receptive_field,
    separate_conv,
)
from opsin.nn.utils.fusion import (
    fuse_batch_norms,
    fuse_conv_bn_eval,
    fuse_conv_bn_weights,
    fuse_linear_bn_eval,
    fuse_linear_bn_weights,
)

__all__ = [
    "ConvCost",
    "ReceptiveField",
    "adaptive_clip_grad_",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "conv_cost",
    "conv_matrix",
    "conv_output_size",
    "conv_transpose_output_size",
    "fully_convolutional",
    "fuse_batch_norms",
    "fuse_conv_bn_eval",
    "fuse_conv_bn_weights",
    "fuse_linear_bn_eval",
    "fuse_linear_bn_weights",
    "fusion",
    "get_total_norm",
    "linear_to_conv",
    "parameters_to_vector",
    "parametrizations",
    "parametrize",
    "rank1_factors",
    "receptive_field",
    "remove_spectral_norm",
    "remove_weight_norm",
    "rnn",
    "separate_conv",
    "spectral_norm",
    "vector_to_parameters",
    "weight_norm",
]
