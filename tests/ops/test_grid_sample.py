"""Sampling at the points of a grid, and what is built on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from tests import device
from tests.opcases import torch
from tests.opcheck import FLOAT, Call, Err, Op, c, const, make_tests, t

F = "nn.functional."
PADDINGS = ("zeros", "border", "reflection")
PLAIN = ("float64", "float32")


def grid(*shape: int) -> Any:
    """Points of which some are outside."""
    return t(*shape, low=-1.4, high=1.4)


def errors() -> list[Err]:
    x, points = t(1, 2, 4, 4), t(1, 2, 2, 2)
    return [
        Err(c(x, t(1, 2, 2)), RuntimeError, r"same number of dimensions, got \[1, 2, 4, 4\] and \[1, 2, 2\]"),
        Err(c(t(1, 2, 4), t(1, 2, 1)), RuntimeError, "4-D or 5-D"),
        Err(c(x, t(2, 2, 2, 2)), RuntimeError, r"batch size, got \[1, 2, 4, 4\] and \[2, 2, 2, 2\]"),
        Err(c(x, t(1, 2, 2, 3)), RuntimeError, r"size 2 in its last dimension, got \[1, 2, 2, 3\]"),
        Err(c(t(1, 2, 0, 4), points), RuntimeError, r"non-empty spatial dimensions, got \[1, 2, 0, 4\]"),
        Err(
            c(x, t(1, 2, 2, 2, dtype="float64")),
            RuntimeError,
            "same floating-point dtype, got float32 and float64",
        ),
        Err(c(x, points, "foo"), ValueError, "mode to be .* got 'foo'"),
        Err(c(x, points, padding_mode="foo"), ValueError, "padding_mode to be .* got 'foo'"),
        Err(c(t(1, 2, 3, 4, 4), t(1, 1, 2, 2, 3), "bicubic"), RuntimeError, "'bicubic' is for 4-D"),
    ]


def sampling(mode: str, rank: int) -> Op:
    image, points = (2, 3, *(3, 4, 5)[3 - rank :]), (2, *(2, 3, 2)[3 - rank :], rank)
    cases: list[Call] = []
    for padding in PADDINGS:
        for align in (False, True):
            case = c(t(*image), grid(*points), mode, padding, align)
            cases.append(case.but(dtypes=FLOAT if padding == "zeros" and align else PLAIN))
    cases += [
        # Channels as the lanes of vectors, and too few points for that.
        c(t(1, 20, *image[2:]), grid(1, *(2, 5, 6)[3 - rank :], rank), mode, "zeros", False).but(
            id="channels", numerical=False
        ),
        c(t(1, 20, *image[2:]), grid(1, *(1, 1, 2)[3 - rank :], rank), mode, "border", False).but(
            id="few_points", numerical=False, dtypes=PLAIN
        ),
        # Points as the lanes of vectors: more than one tile, and a part of one.
        c(t(1, 3, *image[2:]), grid(1, *(1, 7, 11)[3 - rank :], rank), mode, "zeros", False).but(
            id="tiles", numerical=False
        ),
        c(t(1, 2, *(1,) * rank), grid(1, *(1, 2, 2)[3 - rank :], rank), mode, "reflection", True).but(
            id="of_one", dtypes=PLAIN
        ),
        c(
            t(1, 2, *image[2:]), t(1, *(1, 2, 4)[3 - rank :], rank, low=-9, high=9), mode, "reflection", False
        ).but(id="far_away", dtypes=PLAIN),
        c(t(0, 2, *image[2:]), grid(0, *points[1:]), mode, "zeros", False).but(id="no_batch", dtypes=PLAIN),
        c(t(1, 2, *image[2:]), grid(1, *(1, 2, 0)[3 - rank :], rank), mode, "zeros", False).but(
            id="no_points", dtypes=PLAIN
        ),
        c(t(1, 0, *image[2:]), grid(1, *points[1:]), mode, "zeros", False).but(
            id="no_channels", dtypes=PLAIN
        ),
    ]
    wide = {2: ((2, 16, 40, 40), (2, 50, 60, 2)), 3: ((1, 3, 10, 20, 20), (1, 10, 20, 20, 3))}[rank]
    return Op(
        F + "grid_sample",
        cases=cases,
        tol=16,
        atol=64,
        half_tol=4,
        features=("PL13", "TA14"),
        demands=("A2",),
        errors=errors() if (mode, rank) == ("bilinear", 2) else [],
        bench=[c(t(*wide[0]), grid(*wide[1]), mode, "zeros", False).but(id=f"{mode}_{rank}")],
    )


def affine() -> Op:
    def case(rank: int, size: tuple[int, ...], align: bool) -> Call:
        return c(t(size[0], rank, rank + 1), size, align)

    return Op(
        F + "affine_grid",
        cases=[
            case(2, (2, 3, 4, 5), False),
            case(2, (2, 3, 4, 5), True),
            case(3, (2, 1, 2, 3, 4), False),
            case(3, (1, 1, 3, 2, 4), True),
        ],
        half_tol=1,
        tol=8,
        features=("PL13",),
        errors=[
            Err(c(t(2, 3), (1, 2, 3, 4)), ValueError, r"theta \[1, 2, 3\].*got \[2, 3\]"),
            Err(c(t(1, 2, 3), (1, 2, 3)), RuntimeError, r"\(N, C, H, W\).*got \[1, 2, 3\]"),
            Err(c(t(1, 2, 3), (1, 2, 3, 4, 5)), ValueError, r"theta \[1, 3, 4\]"),
            Err(c(t(1, 2, 3), (2, 2, 3, 4)), RuntimeError, r"theta \[2, 2, 3\].*got \[1, 2, 3\]"),
            Err(c(t(1, 2, 3), (1, 2, 0, 4)), ValueError, r"positive output size, got \[1, 2, 0, 4\]"),
            Err(c(t(1, 2, 3), (1, 2, 3, 4)), ValueError, "floating-point dtype, got int32", dtype="int32"),
        ],
    )


# What PyTorch has not, from its grid_sample: coordinates are written out pixel by pixel.


def vertex_peer(
    features: Any, points: Any, mode: str = "bilinear", pad: str = "zeros", align: bool = True
) -> Any:
    rank = features.dim() - 2
    at = points[..., :rank].reshape(*points.shape[:2], *(1,) * (rank - 1), rank)
    return torch.nn.functional.grid_sample(features, at, mode, pad, align).flatten(2).transpose(1, 2)


def at_pixels(image: Any, x: Any, y: Any, mode: str, pad: str, align: bool) -> Any:
    height, width = image.shape[-2:]
    if align:
        points = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], -1)
    else:
        points = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    return torch.nn.functional.grid_sample(image, points, mode, pad, align)


def crop_peer(
    images: Any, boxes: Any, size: Any, mode: str = "bilinear", pad: str = "zeros", align: bool = False
) -> Any:
    h, w = (size, size) if isinstance(size, int) else size
    crops = []
    for n, of_image in enumerate(boxes):
        for x1, y1, x2, y2 in of_image:
            xs, ys = torch.arange(w).to(x1), torch.arange(h).to(x1)
            if align:
                x = x1 + xs * (x2 - x1) / (w - 1) if w > 1 else ((x1 + x2) / 2).reshape(1)
                y = y1 + ys * (y2 - y1) / (h - 1) if h > 1 else ((y1 + y2) / 2).reshape(1)
            else:
                x, y = x1 + (xs + 0.5) * (x2 - x1) / w - 0.5, y1 + (ys + 0.5) * (y2 - y1) / h - 0.5
            y, x = torch.meshgrid(y, x, indexing="ij")
            crops.append(at_pixels(images[n : n + 1], x[None], y[None], mode, pad, align))
    return torch.cat(crops) if crops else images.new_zeros(0, images.shape[1], h, w)


def warp_peer(
    image: Any, matrix: Any, size: Any, mode: str = "bilinear", pad: str = "zeros", align: bool = True
) -> Any:
    h, w = size
    if matrix.shape[1] == 2:
        last = torch.tensor([0.0, 0.0, 1.0]).to(matrix).expand(matrix.shape[0], 1, 3)
        matrix = torch.cat([matrix, last], 1)
    back = torch.linalg.inv(matrix)
    y, x = torch.meshgrid(torch.arange(h).to(matrix), torch.arange(w).to(matrix), indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], 0).reshape(3, -1)
    x, y, scale = (back @ places).reshape(-1, 3, h, w).unbind(1)
    return at_pixels(image, x / scale, y / scale, mode, pad, align)


MOVES = [[[0.9, 0.3, 0.7], [-0.2, 1.1, -0.4]], [[-1.2, 0.1, 4.3], [0.3, 0.8, 0.23]]]
HOMOGRAPHIES = [[*MOVES[0], [0.02, -0.03, 1.1]], [[2.4, 0.1, 0.3], [0.2, 1.9, 0.2], [0.05, 0.02, 2.2]]]
BOXES = const([[0.3, 0.4, 3.86, 2.9], [-1.2, 0.7, 6.4, 5.36]]), const([[1.1, 1.3, 2.2, 3.6]])
IMAGES = t(2, 3, 5, 6)
NO_BOX = const(np.zeros((0, 4)))

OPS = [
    sampling("bilinear", 2),
    sampling("nearest", 2),
    sampling("bicubic", 2),
    sampling("bilinear", 3),
    sampling("nearest", 3),
    affine(),
    Op(
        "ops.vertex_align",
        peer=vertex_peer,
        cases=[
            c(IMAGES, grid(2, 4, 2)),
            c(IMAGES, grid(2, 4, 3), "bicubic", "border", False).but(id="vertices", dtypes=PLAIN),
            c(t(1, 2, 3, 4, 2), grid(1, 5, 3)),
            c(IMAGES, grid(2, 0, 2)).but(id="no_points"),
        ],
        tol=16,
        atol=64,
        half_tol=4,
        features=("PL14",),
        errors=[
            Err(
                c(t(2, 3, 4), t(2, 4, 2)),
                RuntimeError,
                r"features \[N, C, H, W\].*got \[2, 3, 4\]",
                peer=False,
            ),
            Err(
                c(IMAGES, t(2, 4, 1)),
                RuntimeError,
                r"points \[2, P, 2 or more\].*got \[2, 4, 1\]",
                peer=False,
            ),
            Err(
                c(IMAGES, t(1, 4, 2)),
                RuntimeError,
                r"points \[2, P, 2 or more\].*got \[1, 4, 2\]",
                peer=False,
            ),
        ],
    ),
    Op(
        "ops.crop_and_resize",
        peer=crop_peer,
        dtypes=PLAIN,
        cases=[
            c(IMAGES, list(BOXES), (3, 4)),
            c(IMAGES, list(BOXES), (3, 1), "bilinear", "border", True).but(id="aligned"),
            c(IMAGES, [BOXES[0], NO_BOX], 2, "nearest").but(id="no_box_in_one"),
            c(t(0, 3, 5, 6), [], 2).but(id="no_image", grad=False),
        ],
        tol=16,
        atol=64,
        features=("DO10",),
        errors=[
            Err(c(IMAGES, [BOXES[0]], 2), RuntimeError, "each of the 2 images, got a list of 1", peer=False),
            Err(
                c(IMAGES, [BOXES[0], t(2, 3)], 2),
                RuntimeError,
                r"boxes \[K, 4\].*got \[2, 3\] for image 1",
                peer=False,
            ),
            Err(c(IMAGES, list(BOXES), (0, 2)), RuntimeError, r"size \(h, w\).*got \[0, 2\]", peer=False),
            Err(c(t(3, 5, 6), list(BOXES), 2), RuntimeError, r"\[N, C, H, W\], got \[3, 5, 6\]", peer=False),
            Err(
                c(IMAGES, [BOXES[0], const([[1, 1, 2, 2]], "int64")], 2),
                RuntimeError,
                "floating-point boxes",
                peer=False,
            ),
        ],
    ),
    Op(
        "ops.warp_affine",
        peer=warp_peer,
        dtypes=PLAIN,
        cases=[
            c(IMAGES, const(MOVES), (4, 5)),
            c(IMAGES, const(MOVES), (5, 3), "bicubic", "reflection", False).but(id="not_aligned"),
        ],
        tol=32,
        atol=128,
        features=("PL13",),
        errors=[
            Err(
                c(IMAGES, t(2, 3, 3), (4, 5)),
                RuntimeError,
                r"matrix \[2, 2, 3\].*got \[2, 3, 3\]",
                peer=False,
            ),
            Err(
                c(IMAGES, t(1, 2, 3), (4, 5)),
                RuntimeError,
                r"matrix \[2, 2, 3\].*got \[1, 2, 3\]",
                peer=False,
            ),
            Err(c(IMAGES, t(2, 2, 3), (4, 0)), RuntimeError, r"size \(h, w\).*got \[4, 0\]", peer=False),
        ],
    ),
    Op(
        "ops.warp_perspective",
        peer=warp_peer,
        dtypes=PLAIN,
        cases=[
            c(IMAGES, const(HOMOGRAPHIES), (4, 5)),
            c(IMAGES, const(HOMOGRAPHIES), (5, 3), "nearest", "border", False).but(id="nearest"),
        ],
        tol=32,
        atol=128,
        features=("PL13",),
        errors=[
            Err(
                c(IMAGES, t(2, 2, 3), (4, 5)),
                RuntimeError,
                r"matrix \[2, 3, 3\].*got \[2, 2, 3\]",
                peer=False,
            ),
            Err(
                c(t(2, 5, 6), t(2, 3, 3), (4, 5)),
                RuntimeError,
                r"\[N, C, H, W\], got \[2, 5, 6\]",
                peer=False,
            ),
        ],
    ),
]

TestOps = make_tests(OPS)


@pytest.mark.device
@pytest.mark.feature("PL13")
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("channels", [2, 9])
def test_nan_counts_as_the_first_edge(mode: str, padding: str, channels: int) -> None:
    """As PyTorch's documentation has it; its kernels give NaN, or crash, in some of these cases."""
    x = device.place(opsin.randn(1, channels, 3, 4)).requires_grad_()
    nan = float("nan")
    values = [[[[nan, 0.3], [0.2, nan], [nan, nan], [0.1, 0.1]]]]
    points = device.place(opsin.tensor(values)).requires_grad_()
    same = device.place(opsin.tensor(np.nan_to_num(np.array(values, np.float32), nan=-1.0)))
    f = opsin.nn.functional.grid_sample
    y = f(x, points, mode, padding, True)
    assert opsin.equal(y, f(x, same, mode, padding, True))
    grads = opsin.autograd.grad(y.sum(), [points, x])
    slopes = device.fetch(grads[0]).numpy()[0, 0]
    assert np.isfinite(slopes).all() and slopes[0, 0] == slopes[1, 1] == 0 and (slopes[2] == 0).all()
    assert np.isfinite(device.fetch(grads[1]).numpy()).all()


@pytest.mark.device
@pytest.mark.parametrize("padding", PADDINGS)
def test_infinite_coordinates_give_numbers(padding: str) -> None:
    x = device.place(opsin.ones(1, 1, 3, 4))
    points = device.place(opsin.tensor([[[[float("inf"), 0.0], [-float("inf"), 3e38], [1e30, -1e30]]]]))
    for mode in ("bilinear", "nearest", "bicubic"):
        y = device.fetch(opsin.nn.functional.grid_sample(x, points, mode, padding)).numpy()
        assert np.isfinite(y).all()
        assert np.allclose(y, 0 if padding == "zeros" else 1, atol=1e-5), mode


@pytest.mark.device
def test_pixels_that_are_not_read_do_not_matter() -> None:
    array = np.full((1, 9, 3, 3), np.nan, np.float32)
    array[:, :, 1, 1] = 2
    points = opsin.tensor([[[[0.0, 0.0], [5.0, 5.0]]]])
    for channels in (2, 9):
        x = device.place(opsin.tensor(array[:, :channels]))
        y = opsin.nn.functional.grid_sample(x, device.place(points), "nearest")
        assert device.fetch(y)[0, 0].tolist() == [[2.0, 0.0]]


@pytest.mark.device
@pytest.mark.feature("PL13", "TA14")
@pytest.mark.demand("A2")
@pytest.mark.parametrize(("mode", "rank"), [("bilinear", 2), ("bilinear", 3), ("bicubic", 2)])
def test_third_derivatives(mode: str, rank: int) -> None:
    """The derivative of a derivative is of the same three ops: so are all beyond."""
    rng = np.random.default_rng(rank)
    x = device.place(opsin.tensor(rng.standard_normal((1, 2, *(3,) * rank)))).requires_grad_()
    points = device.place(
        opsin.tensor(rng.uniform(-0.9, 0.9, (1, *(1,) * (rank - 1), 2, rank)))
    ).requires_grad_()
    weight = device.place(opsin.tensor(rng.standard_normal(points.shape)))

    def slope(x: opsin.Tensor, points: opsin.Tensor) -> opsin.Tensor:
        y = opsin.nn.functional.grid_sample(x, points, mode, "zeros", True)
        (grad,) = opsin.autograd.grad((y * y).sum(), [points], create_graph=True)
        return (grad * weight).sum()

    assert opsin.autograd.gradgradcheck(slope, [x, points])


@pytest.mark.feature("PL13")
def test_hidden_layout_is_sampled_as_it_is() -> None:
    conv = opsin.nn.Conv2d(3, 24, 3)
    with opsin.no_grad():
        x = conv(opsin.randn(2, 3, 9, 8))
        points = opsin.rand(2, 5, 6, 2) * 2.4 - 1.2
        got = opsin.nn.functional.grid_sample(x, points)
        want = opsin.nn.functional.grid_sample(opsin.tensor(x.numpy()), points)
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.feature("PL13", "TA14")
def test_a_spatial_transformer_learns_a_shift() -> None:
    """Gradients through the coordinates: the theta that undoes a shift is found by descent."""
    x = opsin.nn.functional.interpolate(
        opsin.tensor(np.random.default_rng(0).standard_normal((1, 1, 4, 4)).astype(np.float32)),
        16,
        mode="bicubic",
    )
    f = opsin.nn.functional
    target = f.grid_sample(
        x, f.affine_grid(opsin.tensor([[[1.0, 0.0, 0.15], [0.0, 1.0, -0.1]]]), (1, 1, 16, 16))
    )
    shift = opsin.zeros(1, 2, 1, requires_grad=True)
    eye = opsin.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    for _ in range(60):
        points = f.affine_grid(opsin.cat([eye, shift], 2), (1, 1, 16, 16))
        loss = ((f.grid_sample(x, points) - target) ** 2).mean()
        (grad,) = opsin.autograd.grad(loss, [shift])
        shift = (shift.detach() - 0.05 * grad).requires_grad_()
    assert np.allclose(shift.detach().numpy()[0, :, 0], [0.15, -0.1], atol=0.01)
