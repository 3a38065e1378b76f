"""Filters made by hand: slopes, edges, corners, blur and Gabor waves, all through the convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import opsin
from opsin._C import ShapeError, Tensor
from opsin.nn import functional as F
from opsin.nn._checks import choice, integer, integers

_CONVS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
# What smooths across the axis of the slope; each adds up to 1.
_SMOOTH = {"sobel": (0.25, 0.5, 0.25), "scharr": (0.1875, 0.625, 0.1875), "prewitt": (1 / 3, 1 / 3, 1 / 3)}


def _along(input: Tensor, taps: Sequence[Tensor | None]) -> Tensor:
    """`input` [N, C, spatial...] by one kernel for each axis (None: as it is), the edge repeated outside."""
    axes = len(taps)
    channels = input.shape[1]
    for axis, kernel in enumerate(taps):
        if kernel is None:
            continue
        length = kernel.shape[0]
        around = [0] * (2 * axes)
        around[2 * (axes - 1 - axis) : 2 * (axes - axis)] = [(length - 1) // 2, length // 2]
        sizes = [length if i == axis else 1 for i in range(axes)]
        weight = kernel.reshape(1, 1, *sizes).expand(channels, 1, *sizes)
        input = _CONVS[axes](F.pad(input, around, mode="replicate"), weight, groups=channels)
    return input


def _axes(op: str, input: Tensor) -> int:
    axes = input.dim() - 2
    if axes not in _CONVS:
        raise ShapeError(
            f"{op}: expected images [N, C, spatial...] with one to three axes, got {list(input.shape)} "
            "(add the batch or the channels)"
        )
    if not input.is_floating_point():
        raise TypeError(f"{op}: expected floating images, got {input.dtype} (convert them with .float())")
    return axes


def spatial_gradient(input: Tensor, mode: str = "sobel") -> Tensor:
    """Slopes of [N, C, spatial...] along each axis: [N, C, axes, spatial...], the first axis first.

    Per pixel: (next - previous) / 2, smoothed across by [1, 2, 1] / 4 ("sobel"), [3, 10, 3] / 16 ("scharr"),
    [1, 1, 1] / 3 ("prewitt") or not at all ("diff"). The edge is repeated outside. In one to three
    dimensions. Source: Sobel and Feldman, "A 3x3 isotropic gradient operator for image processing", 1968.
    """
    axes = _axes("spatial_gradient", input)
    choice("spatial_gradient", "mode", mode, (*_SMOOTH, "diff"))
    like: dict[str, Any] = {"dtype": input.dtype, "device": input.device}
    slope = opsin.tensor([-0.5, 0.0, 0.5], **like)
    across = None if mode == "diff" else opsin.tensor(_SMOOTH[mode], **like)
    return opsin.stack(
        [_along(input, [slope if i == axis else across for i in range(axes)]) for axis in range(axes)], 2
    )


def edge_strength(input: Tensor, mode: str = "sobel") -> Tensor:
    """Steepness of [N, C, spatial...] at each pixel, the norm of `spatial_gradient`, of the same shape."""
    return spatial_gradient(input, mode).norm(2, 2)


def laplacian(input: Tensor) -> Tensor:
    """Sum of the second differences of [N, C, spatial...] along each axis: previous - 2 x + next."""
    axes = _axes("laplacian", input)
    kernel = opsin.tensor([1.0, -2.0, 1.0], dtype=input.dtype, device=input.device)
    total = _along(input, [kernel, *[None] * (axes - 1)])
    for axis in range(1, axes):
        total = total + _along(input, [kernel if i == axis else None for i in range(axes)])
    return total


def gaussian_blur(input: Tensor, kernel_size: int | Sequence[int], sigma: float | Sequence[float]) -> Tensor:
    """[N, C, spatial...] by exp(-x^2 / (2 sigma^2)), one axis after the other; the edge is repeated outside.

    `kernel_size` is odd; each of the two is one number or one for each axis. The kernel adds up to 1.
    """
    axes = _axes("gaussian_blur", input)
    sizes = integers("gaussian_blur", "kernel_size", kernel_size, axes, 1)
    widths = tuple(sigma) if isinstance(sigma, Sequence) else (sigma,) * axes
    if any(size % 2 == 0 for size in sizes) or len(widths) != axes or not all(w > 0 for w in widths):
        raise ValueError(
            f"gaussian_blur: kernel_size must be odd, sigma positive, one or {axes} of them, got {sizes} and "
            f"{widths} (a blur has a centre)"
        )
    taps = []
    for size, width in zip(sizes, widths, strict=True):
        values = [math.exp(-((i - size // 2) ** 2) / (2 * width * width)) for i in range(size)]
        taps.append(opsin.tensor([v / sum(values) for v in values], dtype=input.dtype, device=input.device))
    return _along(input, taps)


def corner_response(input: Tensor, k: float = 0.04, sigma: float = 1.0) -> Tensor:
    """Harris' response of [N, C, H, W]: large at corners, below 0 at edges, about 0 elsewhere.

    det(M) - k trace(M)^2, where M holds the products of the slopes, blurred with `sigma` over 7 x 7 pixels.
    Source: Harris and Stephens, "A combined corner and edge detector", 1988.
    """
    if input.dim() != 4:
        raise ShapeError(f"corner_response: expected images [N, C, H, W], got {list(input.shape)}")
    dy, dx = spatial_gradient(input).unbind(2)
    yy, xx, yx = (gaussian_blur(product, 7, sigma) for product in (dy * dy, dx * dx, dy * dx))
    return yy * xx - yx * yx - k * (yy + xx).square()


def gabor_kernels(
    kernel_size: int,
    angles: int | Sequence[float] = 4,
    wavelength: float = 4.0,
    sigma: float = 2.0,
    aspect: float = 1.0,
    phase: float = 0.0,
    dtype: opsin.dtype | None = None,
    device: Any = None,
) -> Tensor:
    """Weights [angles, 1, size, size] for `conv2d`: waves under a bell, one for each direction in radians.

    exp(-(u^2 + aspect^2 v^2) / (2 sigma^2)) cos(2 pi u / wavelength + phase), where u = x cos a + y sin a
    runs along the wave and v across. A number of `angles` stands for as many between 0 and pi. Source:
    Daugman, "Uncertainty relation for resolution in space, spatial frequency, and orientation", 1985.
    """
    size = integer("gabor_kernels", "kernel_size", kernel_size, 1)
    if size % 2 == 0 or not (wavelength > 0 and sigma > 0):
        raise ValueError(
            f"gabor_kernels: kernel_size must be odd, wavelength and sigma positive, got {size}, "
            f"{wavelength} and {sigma} (a kernel has a centre)"
        )
    turns = [i * math.pi / angles for i in range(angles)] if isinstance(angles, int) else list(angles)
    at = opsin.arange(size, dtype=opsin.float64) - size // 2
    y, x = opsin.meshgrid(at, at, indexing="ij")
    kernels = []
    for a in turns:
        u, v = x * math.cos(a) + y * math.sin(a), y * math.cos(a) - x * math.sin(a)
        bell = (-(u.square() + aspect * aspect * v.square()) / (2 * sigma * sigma)).exp()
        kernels.append(bell * (2 * math.pi / wavelength * u + phase).cos())
    return opsin.stack(kernels).unsqueeze(1).to(dtype=dtype or opsin.get_default_dtype(), device=device)
