"""Resizing in one, two and three dimensions, and pixels that become channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from tests import device
from tests.opcases import TORCH_VERSION, torch
from tests.opcheck import ALL, FLOAT, HALF, Call, Err, Op, c, make_tests, t, to_torch

F = "nn.functional."
X = {1: t(2, 3, 7), 2: t(2, 3, 5, 6), 3: t(1, 2, 4, 3, 5)}
UP = {1: (11,), 2: (8, 13), 3: (5, 7, 8)}
DOWN = {1: (3,), 2: (3, 2), 3: (2, 3, 2)}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
CUBIC = {1: "cubic", 2: "bicubic", 3: "tricubic"}


def peer(input: Any, *args: Any, **options: Any) -> Any:
    """PyTorch's, which has no anti-aliasing for 16-bit floats."""
    return torch.nn.functional.interpolate(input, *args, **options)


def errors() -> list[Err]:
    x, line = t(1, 2, 4, 4), t(1, 2, 4)
    return [
        Err(c(x), ValueError, "neither"),
        Err(c(x, 2, 2.0), ValueError, "both"),
        Err(c(x, (1, 2, 3)), ValueError, r"2 entries.*got 3"),
        Err(c(x, scale_factor=(1.0, 2.0, 3.0)), ValueError, r"2 entries.*got 3"),
        Err(c(x, scale_factor=(1.0,) * 4), ValueError, "at most 3.*got 4"),
        Err(c(x, (0, 3)), RuntimeError, "greater than 0, got 4 and 0 on axis 0"),
        Err(c(x, -1), RuntimeError, "got 4 and -1"),
        Err(c(x, scale_factor=0.1), RuntimeError, "got 4 and 0"),
        Err(c(x, scale_factor=-2.0), (RuntimeError, ValueError), "scale_factor, got -2"),
        Err(c(x, 2, mode="foo"), ValueError, "got 'foo'"),
        Err(c(x, 2, mode="nearest", align_corners=True), ValueError, "align_corners.*'nearest'"),
        Err(c(x, 2, mode="area", align_corners=False), ValueError, "align_corners.*'area'"),
        Err(c(x, 2, mode="nearest", antialias=True), ValueError, "antialias.*'nearest'"),
        Err(c(x, 2, mode="lanczos"), ValueError, "'lanczos' needs antialias"),
        Err(c(x, 2, recompute_scale_factor=True), ValueError, "recompute_scale_factor"),
        Err(c(x, 2, mode="linear"), RuntimeError, "'linear' needs 3-D input, got 4-D"),
        Err(c(x, 2, mode="trilinear"), RuntimeError, "'trilinear' needs 5-D"),
        Err(c(line, 2, mode="bilinear"), RuntimeError, "'bilinear' needs 4-D"),
        Err(c(t(3, 4), 2), RuntimeError, r"got \[3, 4\]"),
        Err(c(t(1, 0, 4, 4), 2), RuntimeError, r"channels, got \[1, 0, 4, 4\]"),
        Err(c(x, 2, mode="bilinear"), RuntimeError, "uint8 input, got int32", dtype="int32"),
    ]


def nearest(mode: str) -> Op:
    cases = []
    for n, x in X.items():
        cases += [
            c(x, UP[n], mode=mode),
            c(x, DOWN[n], mode=mode),
            c(x, scale_factor=2, mode=mode),
            c(x, scale_factor=1.7, mode=mode).but(id=f"factor_{n}", dtypes=("float64",)),
            c(x, scale_factor=1.7, mode=mode, recompute_scale_factor=True).but(
                id=f"recomputed_{n}", dtypes=("float32",)
            ),
        ]
    cases += [
        c(X[2], (5, 6), mode=mode).but(id="same_size"),
        c(t(0, 3, 4, 4), 7, mode=mode).but(id="no_batch"),
        c(t(2, 20, 3, 4), (7, 5), mode=mode).but(id="channels", numerical=False),
    ]
    return Op(
        F + "interpolate",
        peer=peer,
        dtypes=(*FLOAT, "uint8"),
        cases=cases,
        tol=1,
        features=("PL08",),
        bench=[c(t(2, 32, 40, 40), 80, mode=mode), c(t(2, 3, 120, 160), (230, 320), mode=mode)],
        errors=errors() if mode == "nearest" else [],
    )


def smooth(n: int, mode: str, antialias: bool, align: bool) -> Op:
    x, more = X[n], {"align_corners": align, "antialias": antialias}
    wide = t(2, 20, *{1: (6,), 2: (4, 5), 3: (2, 3, 4)}[n])
    plain = ("float64", "float32")
    cases = [
        c(x, UP[n], mode=mode, **more),
        c(x, DOWN[n], mode=mode, **more).but(dtypes=plain),
        c(wide, 7, mode=mode, **more).but(id="channels", numerical=False),
        c(wide, 2, mode=mode, **more).but(id="channels_down", numerical=False, dtypes=plain),
    ]
    if not align:
        cases += [
            c(x, scale_factor=1.6, mode=mode, **more).but(dtypes=plain),
            c(x, scale_factor=0.6, mode=mode, recompute_scale_factor=True, **more).but(dtypes=plain),
            c(t(1, 2, *(1,) * n), 3, mode=mode, **more).but(id="of_one", dtypes=plain),
            c(x, tuple(x.shape[2:]), mode=mode, **more).but(id="same_size", dtypes=plain),
            c(t(0, 3, *x.shape[2:]), 4, mode=mode, **more).but(id="no_batch", dtypes=plain),
            *(
                c(
                    t(1, 2, *(3,) * (n - 1), size), scale_factor=(1.0,) * (n - 1) + (0.5,), mode=mode, **more
                ).but(id=f"half_of_{size}", numerical=False)
                for size in (34, 75)
            ),
        ]
    return Op(
        F + "interpolate",
        peer=peer,
        dtypes=FLOAT,
        cases=[case.but(id=f"{mode}_{antialias}_{align}_{i}_{case.id}") for i, case in enumerate(cases)],
        tol=8,
        atol=32,
        half_tol=1,
        layouts=not align,
        features=("PL08",),
        bench=[
            c(t(*{1: (4, 8, 3000), 2: (2, 24, 40, 40), 3: (1, 3, 20, 20, 20)}[n]), 70, mode=mode, **more).but(
                id=f"{mode}_{antialias}_{align}"
            )
        ],
    )


def area() -> Op:
    cases: list[Call] = []
    for n, x in X.items():
        cases += [
            c(x, UP[n], mode="area"),
            c(x, DOWN[n], mode="area"),
            c(x, scale_factor=0.6, mode="area"),
            c(t(2, 20, *(5,) * n), 2, mode="area").but(id=f"channels_{n}", numerical=False),
            c(t(1, 2, *(4,) * (n - 1), 46), scale_factor=0.5, mode="area").but(
                id=f"half_{n}", numerical=False
            ),
        ]
    return Op(F + "interpolate", peer=peer, cases=cases, tol=8, atol=32, half_tol=1, features=("PL08",))


OPS = [
    nearest("nearest"),
    nearest("nearest-exact"),
    *(smooth(n, LINEAR[n], False, align) for n in X for align in (False, True)),
    *(smooth(2, mode, True, align) for mode in ("bilinear", "bicubic") for align in (False, True)),
    *(smooth(2, "bicubic", False, align) for align in (False, True)),
    *([smooth(2, "lanczos", True, False)] if TORCH_VERSION >= (2, 13) else []),
    area(),
    Op(
        F + "pixel_shuffle",
        tol=0,
        dtypes=ALL,
        cases=[
            c(t(2, 8, 3, 2), 2),
            c(t(9, 2, 1), 3),
            c(t(2, 1, 4, 2, 2), 2),
            c(t(1, 2, 3, 3), 1),
        ],
        errors=[
            Err(c(t(1, 5, 2, 2), 2), RuntimeError, "5 channels.*upscale_factor 2"),
            Err(c(t(2, 3), 2), RuntimeError, r"at least 3 dimensions, got \[2, 3\]"),
            Err(c(t(1, 4, 2, 2), 0), RuntimeError, "positive upscale_factor, got 0"),
        ],
    ),
    Op(
        F + "pixel_unshuffle",
        tol=0,
        dtypes=ALL,
        cases=[c(t(2, 2, 4, 6), 2), c(t(1, 6, 3), 3), c(t(2, 1, 1, 4, 2), 2)],
        errors=[
            Err(c(t(1, 4, 3, 2), 2), RuntimeError, r"divisible by downscale_factor, got \[1, 4, 3, 2\]"),
            Err(c(t(2, 4), 2), RuntimeError, r"at least 3 dimensions, got \[2, 4\]"),
            Err(c(t(1, 4, 2, 2), -1), RuntimeError, "positive downscale_factor, got -1"),
        ],
    ),
    Op(
        F + "channel_shuffle",
        tol=0,
        dtypes=ALL,
        features=("CV18",),
        cases=[
            c(t(2, 6, 3, 2), 2),
            c(t(2, 6, 3), 3),
            c(t(1, 4, 2, 1, 3), 2),
            c(t(0, 4, 2, 2), 2),
            c(t(1, 3, 2, 2), 1),
        ],
        errors=[
            Err(c(t(1, 4, 3, 2), 3), RuntimeError, "4 channels.*3 groups"),
            Err(c(t(1, 4), 2), RuntimeError, r"more than 2 dimensions, got \[1, 4\]"),
            Err(c(t(1, 4, 3, 2), 0), RuntimeError, "positive number of groups, got 0"),
        ],
    ),
]

TestOps = make_tests(OPS)


@pytest.mark.device
@pytest.mark.feature("PL08")
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_nearest_pixels_are_pytorch_s_own(mode: str, dtype: str) -> None:
    """Positions are rounded in float32, so that masks and features agree with those of PyTorch."""
    options: dict[str, Any]
    for size, wanted in [(7, 13), (13, 7), (10, 33), (33, 10), (49, 100), (101, 47), (3, 96), (96, 3)]:
        x = torch.arange(size).to(getattr(torch, dtype)).reshape(1, 1, size)
        y = device.place(opsin.tensor(x.numpy()))
        for options in ({"size": wanted}, {"scale_factor": wanted / size}):
            want = torch.nn.functional.interpolate(x, mode=mode, **options)
            got = to_torch(opsin.nn.functional.interpolate(y, mode=mode, **options))
            assert torch.equal(got, want), (size, options)


@pytest.mark.device
@pytest.mark.feature("PL08")
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("family", ["linear", "cubic", "lanczos"])
def test_every_rank_is_the_plane_with_axes_of_one(n: int, family: str) -> None:
    """What PyTorch has for two axes alone, against two axes of it one after the other."""
    names = {"linear": LINEAR, "cubic": CUBIC, "lanczos": dict.fromkeys((1, 2, 3), "lanczos")}[family]
    f = opsin.nn.functional.interpolate
    x = device.place(opsin.randn(1, 2, *(6, 5, 7)[:n], dtype=opsin.float64)).requires_grad_()
    size = (4, 9, 3)[:n]
    for antialias in (True,) if family == "lanczos" else (False, True):
        y = f(x, size, mode=names[n], antialias=antialias)
        z = x.reshape(1, 2, x.shape[2], -1)
        z = f(z, (size[0], z.shape[3]), mode=names[2], antialias=antialias)
        if n == 3:
            z = z.reshape(1, 2 * size[0], *x.shape[3:])
            z = f(z, size[1:], mode=names[2], antialias=antialias)
        np.testing.assert_allclose(
            device.fetch(y.detach()).numpy(),
            device.fetch(z.detach()).numpy().reshape(y.shape),
            rtol=1e-12,
            atol=1e-12,
        )
        assert opsin.autograd.gradgradcheck(
            lambda v, a=antialias: f(v, size, mode=names[n], antialias=a), [x], fast_mode=True
        )


@pytest.mark.device
@pytest.mark.feature("PL08")
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_bytes_are_rounded(mode: str, antialias: bool) -> None:
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 9, 8)).astype(np.uint8))
    y = device.place(opsin.tensor(x.numpy()))
    got = to_torch(opsin.nn.functional.interpolate(y, (5, 13), mode=mode, antialias=antialias))
    want = torch.nn.functional.interpolate(x.double(), (5, 13), mode=mode, antialias=antialias).clamp(0, 255)
    assert got.dtype == torch.uint8
    assert float((got.double() - want).abs().max()) < 0.5001


@pytest.mark.parametrize("name", ["pixel_shuffle", "pixel_unshuffle", "channel_shuffle"])
def test_shuffles_of_nothing(name: str) -> None:
    """PyTorch gives an empty tensor back as it is."""
    x = opsin.zeros(0, 4, 2, 6, requires_grad=True)
    y = getattr(opsin.nn.functional, name)(x, 2)
    assert y.shape == {"pixel_shuffle": (0, 1, 4, 12), "pixel_unshuffle": (0, 16, 1, 3)}.get(
        name, (0, 4, 2, 6)
    )
    y.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.device
@pytest.mark.feature("CV18")
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "int64", "uint8"])
@pytest.mark.parametrize(
    ("name", "shape", "factor"),
    [
        ("pixel_shuffle", (2, 24, 5, 6), 2),
        ("pixel_shuffle", (1, 27, 3, 2), 3),
        ("pixel_shuffle", (2, 16, 2, 3), 4),
        ("pixel_shuffle", (1, 50, 2, 3), 5),
        ("pixel_shuffle", (2, 3, 2, 3), 1),
        ("pixel_unshuffle", (2, 6, 10, 6), 2),
        ("pixel_unshuffle", (1, 3, 9, 6), 3),
        ("pixel_unshuffle", (2, 2, 8, 4), 4),
        ("pixel_unshuffle", (1, 2, 5, 10), 5),
        ("channel_shuffle", (2, 24, 5, 6), 3),
        ("channel_shuffle", (2, 24, 5, 6), 8),
        ("channel_shuffle", (2, 10, 3, 2, 4), 5),
        ("channel_shuffle", (2, 12, 7), 6),
    ],
)
def test_shuffles_keep_the_channels_last(name, shape, factor, dtype) -> None:
    """Pooling lays images out channels last; what was recorded tells that they were taken as they lie."""
    array = np.random.default_rng(0).integers(0, 100, shape)
    shuffle = getattr(opsin.nn.functional, name)
    x = device.place(opsin.tensor(array)).to(getattr(opsin, dtype))
    hidden = getattr(opsin.nn.functional, f"max_pool{len(shape) - 2}d")(x, 1)
    want = getattr(torch.nn.functional, name)(torch.from_numpy(array), factor)
    y = shuffle(hidden, factor)
    assert np.array_equal(device.fetch(y).double().numpy(), want.double().numpy())
    if not x.is_floating_point():
        return
    leaf = x.detach().requires_grad_()
    y = shuffle(getattr(opsin.nn.functional, f"max_pool{len(shape) - 2}d")(leaf, 1), factor)
    assert y.grad_fn.name() == "".join(word.title() for word in name.split("_")) + "Backward"
    above = device.place(opsin.tensor(np.random.default_rng(1).integers(0, 9, want.shape))).to(x.dtype)
    seed = above.requires_grad_()
    (grad,) = opsin.autograd.grad(y, [leaf], seed, create_graph=True)
    peer = torch.from_numpy(array).double().requires_grad_()
    weight = device.fetch(above.detach()).double().numpy()
    (like,) = torch.autograd.grad(
        getattr(torch.nn.functional, name)(peer, factor), peer, torch.from_numpy(weight)
    )
    assert np.array_equal(device.fetch(grad.detach()).double().numpy(), like.numpy())
    (second,) = opsin.autograd.grad(grad, [seed], x.detach())
    assert np.array_equal(device.fetch(second).double().numpy(), want.double().numpy())


@pytest.mark.device
@pytest.mark.parametrize("dtype", ["bool", "int64", "int16"])
def test_nearest_moves_any_dtype(dtype: str) -> None:
    x = torch.arange(12).reshape(1, 1, 3, 4) % (2 if dtype == "bool" else 100)
    y = device.place(opsin.tensor(x.numpy())).to(getattr(opsin, dtype))
    got = to_torch(opsin.nn.functional.interpolate(y, (5, 7)))
    assert str(got.dtype) == f"torch.{dtype}"
    assert torch.equal(got.double(), torch.nn.functional.interpolate(x.double(), (5, 7)))


@pytest.mark.feature("PL08")
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "area"])
def test_constants_stay_and_gradients_add_up(mode: str) -> None:
    for antialias in (False, True) if mode != "area" else (False,):
        x = opsin.full((1, 1, 6, 7), 3.0, dtype=opsin.float64, requires_grad=True)
        y = opsin.nn.functional.interpolate(x, (4, 11), mode=mode, antialias=antialias)
        assert float((y - 3).abs().max()) < 1e-14
        y.sum().backward()
        assert abs(float(x.grad.sum()) - 44) < 1e-12


@pytest.mark.feature("PL08")
@pytest.mark.parametrize("half", HALF)
def test_sixteen_bits_are_rounded_once(half: str) -> None:
    x = opsin.randn(1, 20, 9, 9).to(getattr(opsin, half))
    want = opsin.nn.functional.interpolate(x.float(), 4, mode="bicubic", antialias=True)
    got = opsin.nn.functional.interpolate(x, 4, mode="bicubic", antialias=True)
    assert opsin.equal(got, want.to(got.dtype))


@pytest.mark.feature("PL08")
def test_hidden_layout_passes_through() -> None:
    """After a convolution images lie channels last: resizing must give the same there."""
    conv = opsin.nn.Conv2d(3, 24, 3)
    with opsin.no_grad():
        x = conv(opsin.randn(2, 3, 9, 8))
        cases: list[dict[str, Any]] = [
            {"scale_factor": 2},
            {"size": (5, 15), "mode": "bicubic"},
            {"size": 3, "mode": "area"},
        ]
        for options in cases:
            got = opsin.nn.functional.interpolate(x, **options)
            want = opsin.nn.functional.interpolate(opsin.tensor(x.numpy()), **options)
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.device
@pytest.mark.demand("A25")
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(4, 7), (9, 5), (1, 3)])
def test_one_convention_of_sampling(align_corners: bool, size: tuple[int, int]) -> None:
    """Pixels are squares, as documented: interpolate, grid_sample and affine_grid agree with the formula."""
    f = opsin.nn.functional
    x = device.place(opsin.randn(1, 2, 6, 5, dtype=opsin.float64))
    values = device.fetch(x).numpy()

    def along(n: int, wanted: int) -> np.ndarray:
        """[wanted, n]: between the two pixels around x = (i + 0.5) n / wanted - 0.5, or corner to corner."""
        i = np.arange(wanted)
        at = i * ((n - 1) / max(1, wanted - 1)) if align_corners else (i + 0.5) * n / wanted - 0.5
        at = at.clip(0, n - 1)
        return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(n)))

    want = np.einsum("ih,jw,nchw->ncij", along(6, size[0]), along(5, size[1]), values)
    got = f.interpolate(x, size, mode="bilinear", align_corners=align_corners)
    np.testing.assert_allclose(device.fetch(got).numpy(), want, rtol=1e-12, atol=1e-12)
    if 1 not in size:
        theta = device.place(opsin.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]], dtype=opsin.float64))
        grid = f.affine_grid(theta, [1, 2, *size], align_corners=align_corners)
        sampled = f.grid_sample(x, grid, padding_mode="border", align_corners=align_corners)
        np.testing.assert_allclose(device.fetch(sampled).numpy(), want, rtol=1e-12, atol=1e-12)
    if align_corners:
        return
    # Anti-aliasing is asked for, never assumed, and changes only what shrinks.
    smooth = f.interpolate(x, size, mode="bilinear", antialias=True)
    shrinks = size[0] < 6 or size[1] < 5
    assert np.allclose(device.fetch(smooth).numpy(), want, atol=1e-12) != shrinks


@pytest.mark.device
@pytest.mark.demand("A25")
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic", "lanczos", "area"])
def test_resizing_is_the_same_on_every_device(mode: str) -> None:
    x = opsin.randn(2, 3, 11, 9)
    antialias = mode in ("bilinear", "bicubic", "lanczos")
    options: dict[str, Any] = {"mode": mode, **({"antialias": True} if antialias else {})}
    there = opsin.nn.functional.interpolate(device.place(x), (5, 14), **options)
    here = opsin.nn.functional.interpolate(x, (5, 14), **options)
    # Sums of a few products, in another order there.
    np.testing.assert_allclose(device.fetch(there).numpy(), here.numpy(), rtol=1e-5, atol=1e-6)
