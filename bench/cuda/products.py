"""Convolution and matrix products against cuDNN and cuBLAS as PyTorch calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from timing import OPSIN, TORCH, Clock, Row, measure, one_line

PART = "products"


@dataclass(frozen=True)
class Product:
    """`call(library, x, weight)`, its shapes and operations; `images` are channels-last in PyTorch."""

    name: str
    call: Callable[..., Any]
    x: tuple[int, ...]
    weight: tuple[int, ...]
    flops: float
    images: bool = False


def _conv(
    name: str, batch: int, channels: int, out: int, size: int, kernel: int, stride: int = 1, groups: int = 1
) -> Product:
    side = size // stride
    flops = 2.0 * batch * out * side * side * channels // groups * kernel * kernel

    def call(lib: Any, x: Any, w: Any) -> Any:
        return lib.nn.functional.conv2d(x, w, stride=stride, padding=kernel // 2, groups=groups)

    shape = (out, channels // groups, kernel, kernel)
    return Product(name, call, (batch, channels, size, size), shape, flops, images=True)


def _matmul(n: int, k: int, m: int) -> Product:
    return Product(
        f"linear {n}x{k} to {m}",
        lambda lib, x, w: lib.nn.functional.linear(x, w),
        (n, k),
        (m, k),
        2.0 * n * k * m,
    )


PRODUCTS = (
    _conv("3x3, 64 to 64, 56x56", 64, 64, 64, 56, 3),
    _conv("3x3, 256 to 256, 14x14", 64, 256, 256, 14, 3),
    _conv("1x1, 256 to 64, 56x56", 64, 256, 64, 56, 1),
    _conv("1x1, 1024 to 256, 14x14", 64, 1024, 256, 14, 1),
    _conv("7x7 / 2, 3 to 64, 224x224", 64, 3, 64, 224, 7, stride=2),
    _conv("3x3 / 2, 128 to 128, 56x56", 64, 128, 128, 56, 3, stride=2),
    _conv("3x3 depthwise, 144, 56x56", 64, 144, 144, 56, 3, groups=144),
    _matmul(4096, 4096, 4096),
    _matmul(12608, 384, 1536),
    _matmul(64, 2048, 1000),
)


def _prepare(
    lib: Any, product: Product, dtype: str, arrays: list[np.ndarray]
) -> dict[str, Callable[[], Any]]:
    """The forward pass and both gradients."""
    x, w = (lib.tensor(a).cuda().to(getattr(lib, dtype)) for a in arrays)
    if product.images:
        if lib.__name__ == "torch":
            x, w = (v.contiguous(memory_format=lib.channels_last) for v in (x, w))
        else:
            x = lib.nn.functional.max_pool2d(x, 1)

    def forward() -> Any:
        with lib.no_grad():
            return product.call(lib, x, w)

    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = product.call(lib, x, w)
    above = y.detach().clone()
    gradient = lambda leaf: lambda: lib.autograd.grad(y, leaf, above, retain_graph=True)[0]  # noqa: E731
    return {"": forward, ", gradient of input": gradient(x), ", gradient of weight": gradient(w)}


def _compare(ours: Any, theirs: Any, dtype: str) -> None:
    import torch

    a, b = torch.from_numpy(ours.float().cpu().numpy()), theirs.float().cpu()
    error = float((a - b).abs().max() / b.abs().max())
    if not error < {"float32": 5e-3, "bfloat16": 3e-2}[dtype]:
        raise ValueError(f"results differ by {error:.1e} of the largest value")


def run(clock: Clock) -> Iterator[Row]:
    """A row per product, dtype and direction."""
    import torch

    import opsin

    # Both time cuDNN's plans for a shape at its first call.
    opsin.backends.cudnn.benchmark = torch.backends.cudnn.benchmark
    for dtype in ("bfloat16", "float32"):
        for product in PRODUCTS:
            if clock.left() < 0:
                return
            short = f"{product.name}{', bf16' if dtype == 'bfloat16' else ''}"
            rng = np.random.default_rng(0)
            arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in (product.x, product.weight)]
            arrays[1] *= (product.flops / 2 / np.prod(product.x)) ** -0.5
            ours: dict[str, Any] = {}
            theirs: dict[str, Any] = {}
            try:
                ours, theirs = (
                    _prepare(opsin, product, dtype, arrays),
                    _prepare(torch, product, dtype, arrays),
                )
                for what in ours:
                    _compare(ours[what](), theirs[what](), dtype)
                    times = measure({OPSIN: ours[what], TORCH: theirs[what]}, rounds=5, limit=0.6)
                    yield Row(PART, short + what, times, flops=product.flops)
            except Exception as error:
                yield Row(PART, short, error=one_line(error))
            finally:
                ours.clear()
                theirs.clear()
                torch.cuda.empty_cache()
                opsin.cuda.empty_cache()
