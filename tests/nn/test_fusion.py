"""Batch normalization folded into the layer before it."""

from __future__ import annotations

from typing import Any

import pytest

import opsin
from opsin import nn
from opsin.nn.utils import fuse_batch_norms, fuse_conv_bn_eval, fuse_linear_bn_eval, fusion
from opsin.ops import FrozenBatchNorm2d
from tests.peer import assert_close, state_to_opsin, to_opsin, torch

pytestmark = pytest.mark.feature("NM02")


def _shake(model: Any) -> Any:
    """Other parameters and statistics than those of the beginning; in float64, to compare closely."""
    model.double()
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point():
            with opsin.no_grad():
                value.uniform_(0.5, 1.5) if "var" in name else value.normal_()
    return model


def _kinds(model: Any) -> list[str]:
    return [type(m).__name__ for m in model.modules() if not list(m.children())]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolution(rank: int, affine: bool, bias: bool) -> None:
    conv = _shake(getattr(nn, f"Conv{rank}d")(4, 6, 3, padding=1, groups=2, bias=bias)).eval()
    bn = _shake(getattr(nn, f"BatchNorm{rank}d")(6, eps=1e-2, affine=affine)).eval()
    x = opsin.randn(2, 4, *[5] * rank, dtype=opsin.float64)
    before = {key: value.clone() for key, value in conv.state_dict().items()}
    fused = fuse_conv_bn_eval(conv, bn)
    assert fused is not conv and type(fused) is type(conv)
    assert opsin.allclose(fused(x), bn(conv(x)), rtol=1e-11, atol=1e-11)
    assert all(opsin.equal(conv.state_dict()[key], before[key]) for key in before)


def test_same_values_as_the_peer() -> None:
    torch.manual_seed(0)
    conv, bn = torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)
    bn(torch.randn(4, 3, 5, 5) * 2 + 1)
    ours, norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
    ours.load_state_dict(state_to_opsin(conv.state_dict()))
    norm.load_state_dict(state_to_opsin(bn.state_dict()))
    fused = fuse_conv_bn_eval(ours.eval(), norm.eval())
    want = torch.nn.utils.fuse_conv_bn_eval(conv.eval(), bn.eval())
    assert_close(fused.weight, want.weight)
    assert_close(fused.bias, want.bias)


@pytest.mark.parametrize("groups", [1, 2])
def test_weights_of_transposed_convolutions(groups: int) -> None:
    """[in, out / groups, kernel...]: a transposed convolution by its definition, as a sum over inputs."""
    conv = torch.nn.ConvTranspose2d(4, 6, 3, stride=2, groups=groups)
    bn = torch.nn.BatchNorm2d(6)
    torch.nn.init.normal_(bn.weight)
    torch.nn.init.normal_(bn.bias)
    bn(torch.randn(4, 6, 5, 5) * 2 + 1)
    conv.eval()
    bn.eval()
    values = [conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.weight, bn.bias]
    w, b, mean, var, scale, shift = (to_opsin(value) for value in values)
    weight, bias = fusion.fuse_conv_bn_weights(w, b, mean, var, bn.eps, scale, shift, True, groups=groups)
    x = torch.randn(2, 4, 3, 3)
    want = bn(conv(x))
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(weight.tolist()))
        conv.bias.copy_(torch.tensor(bias.tolist()))
    torch.testing.assert_close(conv(x), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution(groups: int) -> None:
    layer: Any = nn
    conv = _shake(layer.ConvTranspose2d(4, 6, 3, stride=2, groups=groups)).eval()
    bn = _shake(nn.BatchNorm2d(6)).eval()
    x = opsin.randn(2, 4, 5, 5, dtype=opsin.float64)
    assert opsin.allclose(fuse_conv_bn_eval(conv, bn)(x), bn(conv(x)), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias: bool) -> None:
    linear = _shake(nn.Linear(3, 4, bias=bias)).eval()
    x = opsin.randn(5, 3, dtype=opsin.float64)
    for bn in (nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False)):
        _shake(bn).eval()
        assert opsin.allclose(fuse_linear_bn_eval(linear, bn)(x), bn(linear(x)), rtol=1e-11, atol=1e-11)
    # One channel, whose values are all outputs.
    single = _shake(nn.BatchNorm1d(1)).eval()
    z = opsin.randn(5, 1, 3, dtype=opsin.float64)
    assert opsin.allclose(fuse_linear_bn_eval(linear, single)(z), single(linear(z)), rtol=1e-11, atol=1e-11)


def test_what_cannot_be_folded() -> None:
    conv, bn = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)
    with pytest.raises(AssertionError, match="Fusion only for eval"):
        fuse_conv_bn_eval(conv, bn.eval())
    conv.eval()
    with pytest.raises(AssertionError, match=r"running_mean and bn.running_var must not be None"):
        fuse_conv_bn_eval(conv, nn.BatchNorm2d(3, track_running_stats=False).eval())
    with pytest.raises(AssertionError, match=r"3 channels.*got 4"):
        fuse_conv_bn_eval(conv, nn.BatchNorm2d(4).eval())
    with pytest.raises(AssertionError, match=r"3 channels.*got 1"):
        fuse_conv_bn_eval(conv, nn.BatchNorm2d(1).eval())
    with pytest.raises(AssertionError, match=r"4 channels.*got 3"):
        fuse_linear_bn_eval(nn.Linear(2, 4).eval(), nn.BatchNorm1d(3).eval())


class Block(nn.Module):
    """The normalization of a residual block, in another order than it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.bn2 = FrozenBatchNorm2d(4)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Any) -> Any:
        y = nn.functional.relu(self.bn1(self.conv1(x)))
        return nn.functional.relu(x + self.bn2(self.conv2(y)))


@pytest.mark.parametrize("example", [True, False])
def test_a_whole_model(example: bool) -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        Block(),
        nn.Flatten(),
        nn.Linear(64, 5),
        nn.BatchNorm1d(5),
    )
    _shake(model)
    x = opsin.randn(2, 3, 6, 6, dtype=opsin.float64)
    fused = fuse_batch_norms(model, *([x] if example else []))
    want = ["Conv2d", "Identity", "ReLU"]
    want += ["Identity", "Conv2d", "Identity", "Conv2d"] if example else _kinds(Block())
    assert _kinds(fused) == [*want, "Flatten", "Linear", "Identity"]
    assert model.training and not fused.training and "BatchNorm2d" in _kinds(model)
    assert opsin.allclose(fused(x), model.eval()(x), rtol=1e-11, atol=1e-11)


def test_layers_with_other_readers_stay_or_are_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.bn = nn.BatchNorm2d(3)

        def forward(self, x: Any) -> Any:
            return self.bn(self.conv(self.conv(x)))

    class Skip(Twice):
        def forward(self, x: Any) -> Any:
            y = self.conv(x)
            return y + self.bn(y)

    x = opsin.randn(2, 3, 4, 4, dtype=opsin.float64)
    assert _kinds(fuse_batch_norms(_shake(Twice()), x)) == ["Conv2d", "BatchNorm2d"]
    with pytest.raises(RuntimeError, match="other results for the example inputs"):
        fuse_batch_norms(_shake(Skip()), x)
    shared = nn.Conv2d(3, 3, 1)
    twice = nn.Sequential(shared, nn.BatchNorm2d(3), shared, nn.BatchNorm2d(3))
    assert _kinds(fuse_batch_norms(twice)) == ["Conv2d", "BatchNorm2d", "BatchNorm2d"]
    none = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))
    assert _kinds(fuse_batch_norms(none)) == ["Conv2d", "BatchNorm2d"]
