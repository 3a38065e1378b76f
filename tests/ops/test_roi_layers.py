"""The layers that pool regions, and the choice of a level of a feature pyramid."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import ops
from tests import device
from tests.opvalues import to_torch

BOXES = [[[1.0, 2.0, 9.0, 11.0], [0.5, 0.25, 4.0, 8.5]], [[3.0, 1.0, 12.0, 7.0]]]


def boxes() -> list[opsin.Tensor]:
    return [device.place(opsin.tensor(b)) for b in BOXES]


@pytest.mark.device
@pytest.mark.parametrize(
    ("layer", "arguments", "keywords", "function", "text"),
    [
        ("RoIPool", (2, 0.5), {}, "roi_pool", "RoIPool(output_size=2, spatial_scale=0.5)"),
        (
            "RoIAlign", ((2, 3), 0.5, 2), {"aligned": True}, "roi_align",
            "RoIAlign(output_size=(2, 3), spatial_scale=0.5, sampling_ratio=2, aligned=True)",
        ),
        (
            "RoIAlign", (2, 0.5, -1), {"mode": "max"}, "roi_align",
            "RoIAlign(output_size=2, spatial_scale=0.5, sampling_ratio=-1, aligned=False, mode=max)",
        ),
        ("PSRoIPool", (2, 0.5), {}, "ps_roi_pool", "PSRoIPool(output_size=2, spatial_scale=0.5)"),
        (
            "PSRoIAlign", (2, 0.5, 2), {}, "ps_roi_align",
            "PSRoIAlign(output_size=2, spatial_scale=0.5, sampling_ratio=2)",
        ),
    ],
)  # fmt: skip
def test_layers_are_their_functions(
    layer: str, arguments: Any, keywords: Any, function: str, text: str
) -> None:
    x = device.place(opsin.randn(2, 8, 8, 8))
    module = copy.deepcopy(getattr(ops, layer)(*arguments, **keywords))
    want = getattr(ops, function)(x, boxes(), *arguments, **keywords)
    assert np.array_equal(to_torch(module(x, boxes())).numpy(), to_torch(want).numpy())
    assert repr(module) == text and not module.state_dict()


def pyramid(sizes: tuple[int, ...] = (64, 32, 16, 8), axes: int = 2) -> dict[str, opsin.Tensor]:
    return {
        str(i): device.place(opsin.randn(2, 3, *(n,) * axes)).requires_grad_() for i, n in enumerate(sizes)
    }


def squares(edges: list[float]) -> opsin.Tensor:
    return device.place(opsin.tensor([[3.0, 5.0, 3.0 + e, 5.0 + e] for e in edges]))


@pytest.mark.device
@pytest.mark.feature("DO09")
def test_boxes_are_read_from_the_level_of_their_size() -> None:
    maps = pyramid()
    module = ops.MultiScaleRoIAlign(["0", "1", "2", "3"], 2, 2)
    # Levels 2 to 5: 112 begins level 3, 224 level 4, 448 level 5; an empty box counts as a small one.
    edges = [[240.0, 10.0, 111.9, 112.0], [230.0, 500.0, 223.9, 0.0, 224.0]]
    found = [squares(e) for e in edges]
    y = module(maps, found, [(256, 250), (200, 256)])
    assert y.shape == (9, 3, 2, 2)
    row = 0
    for image, group in enumerate(edges):
        for edge in group:
            level = 0 if edge == 0 else min(max(math.floor(4 + math.log2(edge / 224) + 1e-6), 2), 5) - 2
            single = [squares([]) for _ in range(2)]
            single[image] = squares([edge])
            want = ops.roi_align(maps[str(level)], [s.reshape(-1, 4) for s in single], 2, 0.25 / 2**level, 2)
            assert np.array_equal(to_torch(y[row]).numpy(), to_torch(want[0]).numpy()), (image, edge)
            row += 1
    y.sum().backward()
    assert all(m.grad is not None and float(m.grad.abs().sum()) > 0 for m in maps.values())


@pytest.mark.device
def test_maps_that_are_not_named_are_left_out() -> None:
    maps = pyramid((64, 32))
    module = ops.MultiScaleRoIAlign(["1"], (3, 2), -1, aligned=True, mode="max")
    found = [squares([20.0]), squares([30.0, 300.0])]
    want = ops.roi_align(maps["1"], found, (3, 2), 0.125, -1, True, mode="max")
    assert np.array_equal(to_torch(module(maps, found, [(256, 256)] * 2)).numpy(), to_torch(want).numpy())
    text = "MultiScaleRoIAlign(featmap_names=['1'], output_size=(3, 2), sampling_ratio=-1)"
    assert repr(module) == text


@pytest.mark.device
@pytest.mark.demand("A7")
def test_levels_of_volumes_follow_the_edge_of_a_cube() -> None:
    maps = pyramid((16, 8), axes=3)
    module = ops.MultiScaleRoIAlign(["0", "1"], (2, 2, 2), 1, canonical_scale=16, canonical_level=2)
    found = [
        device.place(opsin.tensor([[1.0, 1, 1, 20, 12, 14], [2.0, 2, 2, 60, 50, 40]])),
        device.place(opsin.zeros(0, 6)),
    ]
    y = module(maps, found, [(64, 64, 64)] * 2)
    for i, name in enumerate(("0", "1")):
        one = [found[0][i : i + 1], found[1]]
        want = ops.roi_align(maps[name], one, (2, 2, 2), 0.25 / 2**i, 1)
        assert np.array_equal(to_torch(y[i]).numpy(), to_torch(want[0]).numpy())


@pytest.mark.device
def test_no_boxes_give_no_regions() -> None:
    none = [device.place(opsin.zeros(0, 4))] * 2
    y = ops.MultiScaleRoIAlign(["0", "1"], 7, 2)(pyramid((64, 32)), none, [(256, 256)] * 2)
    assert y.shape == (0, 3, 7, 7)
    y.sum().backward()


def test_errors() -> None:
    x = {"0": opsin.randn(1, 3, 64, 32)}
    module = ops.MultiScaleRoIAlign(["0"], 7, 2)
    one = [opsin.tensor([[0.0, 0, 8, 8]])]
    with pytest.raises(
        ValueError, match=r"one scale on all axes, got \[64, 32\] for images up to \[256, 256\]"
    ):
        module(x, one, [(256, 256)])
    with pytest.raises(ValueError, match=r"maps named \['0'\], got \['a'\]"):
        module({"a": x["0"]}, one, [(256, 256)])
