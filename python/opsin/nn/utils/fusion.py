"""Batch normalization at test time is an affine map: it folds into the layer before it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeVar, cast

from opsin import rsqrt
from opsin._C import Tensor
from opsin.autograd.grad_mode import no_grad
from opsin.nn._container import Sequential
from opsin.nn._conv import _ConvNd
from opsin.nn._linear import Identity, Linear
from opsin.nn._norm import BatchNorm1d, BatchNorm2d, BatchNorm3d, _BatchNorm
from opsin.nn.module import Module
from opsin.nn.parameter import Parameter

__all__ = [
    "fuse_batch_norms",
    "fuse_conv_bn_eval",
    "fuse_conv_bn_weights",
    "fuse_linear_bn_eval",
    "fuse_linear_bn_weights",
]

M = TypeVar("M", bound=Module)


def _affine(
    mean: Tensor, var: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scale and shift of the normalization, [C]."""
    scale = rsqrt(var + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def _parameters(
    weight: Tensor, bias: Tensor | None, factor: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Parameter, Parameter]:
    new_bias = shift if bias is None else bias * scale + shift
    dtype = weight.dtype if bias is None else bias.dtype
    return (
        Parameter((weight * factor).to(weight.dtype).detach(), weight.requires_grad),
        Parameter(new_bias.to(dtype).detach(), bias is not None and bias.requires_grad),
    )


def fuse_conv_bn_weights(
    conv_w: Tensor,
    conv_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
    transpose: bool = False,
    *,
    groups: int = 1,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of a convolution [out, in / groups, kernel...] with the normalization after it.

    With `transpose` the weight is that of a transposed convolution, [in, out / groups, kernel...].
    """
    scale, shift = _affine(bn_rm, bn_rv, bn_eps, bn_w, bn_b)
    kernel = [1] * (conv_w.dim() - 2)
    if transpose:
        # The inputs of a group have its outputs as columns.
        inputs = conv_w.shape[0] // groups
        rows = scale.reshape(groups, 1, -1).expand(groups, inputs, scale.numel() // groups)
        factor = rows.reshape(conv_w.shape[0], -1, *kernel)
    else:
        factor = scale.reshape(-1, 1, *kernel)
    return _parameters(conv_w, conv_b, factor, scale, shift)


def fuse_linear_bn_weights(
    linear_w: Tensor,
    linear_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:
    """Weight [out, in] and bias [out] of a linear layer with the normalization after it."""
    scale, shift = _affine(bn_rm, bn_rv, bn_eps, bn_w, bn_b)
    return _parameters(linear_w, linear_b, scale.unsqueeze(-1), scale, shift.expand(linear_w.shape[0]))


def _check(name: str, layer: Module, bn: Any, *features: int) -> None:
    if layer.training or (isinstance(bn, _BatchNorm) and bn.training):
        raise AssertionError(f"{name}: Fusion only for eval! (call eval() on both modules)")
    if bn.running_mean is None or bn.running_var is None:
        raise AssertionError(
            f"{name}: bn.running_mean and bn.running_var must not be None (track_running_stats=True has them)"
        )
    size = bn.running_mean.numel()
    if size not in features:
        raise AssertionError(
            f"{name}: expected a normalization of {features[0]} channels, as the layer's outputs, got {size}"
        )


def _statistics(bn: Any) -> tuple[Tensor, Tensor, float, Tensor | None, Tensor | None]:
    return bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias


def fuse_conv_bn_eval(conv: M, bn: Module, transpose: bool = False) -> M:
    """A copy of the convolution that does the batch normalization after it, too; both in evaluation.

    Transposed convolutions (or any with `transpose`) are known by themselves. `bn` may be a
    FrozenBatchNorm2d. AssertionError in training or without running statistics.
    """
    layer: Any = conv
    _check("fuse_conv_bn_eval", conv, bn, layer.out_channels)
    fused: Any = copy.deepcopy(conv)
    transpose = transpose or bool(getattr(layer, "transposed", False))
    args = (fused.weight, fused.bias, *_statistics(bn), transpose)
    fused.weight, fused.bias = fuse_conv_bn_weights(*args, groups=layer.groups)
    return fused


def fuse_linear_bn_eval(linear: M, bn: Module) -> M:
    """A copy of the linear layer that does the batch normalization after it, too; both in evaluation.

    AssertionError in training, without running statistics or for another number of features.
    """
    layer: Any = linear
    _check("fuse_linear_bn_eval", linear, bn, layer.out_features, 1)
    fused: Any = copy.deepcopy(linear)
    fused.weight, fused.bias = fuse_linear_bn_weights(fused.weight, fused.bias, *_statistics(bn))
    return fused


def _is_norm(module: Module | None) -> bool:
    from opsin.ops import FrozenBatchNorm2d

    kinds = (BatchNorm1d, BatchNorm2d, BatchNorm3d, FrozenBatchNorm2d)
    return isinstance(module, kinds) and module.running_mean is not None


def _is_layer(module: Module | None) -> bool:
    return isinstance(module, Linear) or (isinstance(module, _ConvNd) and "weight" in module._parameters)


def _in_sequence(model: Module) -> Iterator[tuple[str, str]]:
    """Names of layers and of the normalizations that follow them in a Sequential."""
    for prefix, container in model.named_modules():
        if not isinstance(container, Sequential):
            continue
        children = list(container._modules.items())
        for (name, layer), (after, bn) in pairwise(children):
            if _is_layer(layer) and _is_norm(bn):
                start = f"{prefix}." if prefix else ""
                yield start + name, start + after


def _in_run(model: Module, inputs: tuple[Any, ...]) -> tuple[list[tuple[str, str]], Any]:
    """The same by a run of the model: normalizations that read what a layer gave, each called once."""
    calls: dict[str, int] = {}
    made: list[tuple[str, Tensor]] = []
    pairs: list[tuple[str, str]] = []

    def watch(name: str, module: Module) -> Any:
        def hook(_: Module, args: tuple[Any, ...], output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if _is_layer(module):
                made.append((name, output))
            else:
                pairs.extend((layer, name) for layer, value in made if value is args[0])

        return module.register_forward_hook(hook)

    handles = [watch(n, m) for n, m in model.named_modules() if _is_layer(m) or _is_norm(m)]
    try:
        output = model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    readers = [layer for layer, _ in pairs]
    once = [p for p in pairs if calls[p[0]] == calls[p[1]] == 1 and readers.count(p[0]) == 1]
    return once, output


def _differ(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        scale = float(a.abs().max().item()) if a.numel() else 0.0
        return a.numel() > 0 and float((a - b).abs().max().item()) > 1e-2 * scale
    if isinstance(a, dict):
        return any(_differ(a[key], b[key]) for key in a)
    return isinstance(a, (list, tuple)) and any(map(_differ, a, b))


def fuse_batch_norms(model: M, *example_inputs: Any) -> M:
    """A copy of the model in evaluation, with batch normalizations folded into the layers before them.

    Folds BatchNorm1d/2d/3d and FrozenBatchNorm2d into convolutions, transposed ones and linear layers; an
    Identity takes the place of each. Without example inputs these are neighbours in a Sequential, anywhere in
    the model. With them the model is run on them once, which finds the normalizations that read a layer's
    output anywhere; and once more folded: RuntimeError if the results differ, as where such an output has
    other readers. A layer or normalization that is called several times stays.
    """
    fused = copy.deepcopy(model).eval()
    with no_grad():
        before = None
        if example_inputs:
            pairs, before = _in_run(fused, example_inputs)
        else:
            shared = _shared(fused)
            pairs = [pair for pair in _in_sequence(fused) if not shared & set(pair)]
        for name, after in pairs:
            layer, bn = fused.get_submodule(name), cast(Any, fused.get_submodule(after))
            linear = isinstance(layer, Linear)
            if linear and layer.out_features != bn.running_mean.numel():
                continue
            new = fuse_linear_bn_eval(layer, bn) if linear else fuse_conv_bn_eval(layer, bn)
            _replace(fused, name, new)
            _replace(fused, after, Identity().eval())
        if example_inputs and _differ(before, fused(*example_inputs)):
            raise RuntimeError(
                "fuse_batch_norms: the folded model gives other results for the example inputs "
                "(the output of a layer before a normalization is read by something else, too: "
                "fold the parts without such a place)"
            )
    return fused


def _shared(model: Module) -> set[str]:
    """Names of modules that are in the model under several names."""
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    return {name for group in names.values() if len(group) > 1 for name in group}


def _replace(model: Module, name: str, module: Module) -> None:
    parent, _, child = name.rpartition(".")
    model.get_submodule(parent)._modules[child] = module
