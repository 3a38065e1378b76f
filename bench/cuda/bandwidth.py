"""Kernels whose time is that of moving memory, as a share of the bandwidth of a copy, beside PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from timing import OPSIN, TORCH, Clock, Row, measure, one_line

PART = "bandwidth"
TARGET = 0.8
WIDE = 1 << 26
SIZES = {"float32": 4, "bfloat16": 2}
# Of the parameters of a ResNet-50, roughly: many small ones and few large.
PARAMETERS = [64, 256, 512, 2048] * 26 + [65536] * 20 + [589824] * 16 + [1048576] * 8 + [2359296] * 3


@dataclass(frozen=True)
class Kernel:
    """`call(library, *tensors)`; `moves` is how often the first tensor's bytes have to be read or written.

    shapes: of the tensors, drawn from a normal distribution; ("ids", shape, high) are integers.
    positions: further bytes for each element of the first tensor: where maxima were has to be read too.
    gradient: time the gradient by these positions instead of the forward pass.
    images: the tensors that PyTorch gets channels-last, and Opsin as its own layers leave them.
    """

    name: str
    call: Callable[..., Any]
    shapes: tuple[Any, ...]
    moves: float
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    gradient: tuple[int, ...] = ()
    images: int = 0
    positions: float = 0


FLAT, ROWS, IMAGE = (WIDE,), (16384, 4096), (64, 64, 112, 112)
F: Callable[[Any], Any] = lambda lib: lib.nn.functional  # noqa: E731
FLOAT32 = ("float32",)


def write_pending(lib: Any) -> None:
    """Opsin writes some results when somebody wants them: whoever asks whether the stream is done does."""
    lib.cuda.current_stream().query()


def _norm(lib: Any, x: Any, w: Any, b: Any) -> Any:
    y = F(lib).batch_norm(x, None, None, w, b, True)
    write_pending(lib)
    return y


KERNELS = (
    Kernel("add", lambda _, a, b: a + b, (FLAT, FLAT), 3),
    Kernel("add of a row", lambda _, a, b: a + b, (ROWS, (4096,)), 2),
    Kernel("relu", lambda lib, x: F(lib).relu(x), (FLAT,), 2),
    Kernel("relu gradient", lambda lib, x: F(lib).relu(x), (FLAT,), 3, gradient=(0,)),
    Kernel("gelu", lambda lib, x: F(lib).gelu(x), (FLAT,), 2),
    Kernel("gelu gradient", lambda lib, x: F(lib).gelu(x), (FLAT,), 3, gradient=(0,)),
    Kernel("silu", lambda lib, x: F(lib).silu(x), (FLAT,), 2),
    Kernel("cast to bfloat16", lambda lib, x: x.to(lib.bfloat16), (FLAT,), 1.5, FLOAT32),
    Kernel("transpose", lambda _, x: x.t().contiguous(), (ROWS,), 2),
    Kernel("permute", lambda _, x: x.permute(0, 3, 1, 2).contiguous(), ((64, 112, 112, 64),), 2),
    Kernel("sum", lambda _, x: x.sum(), (FLAT,), 1),
    Kernel("sum of rows", lambda _, x: x.sum(1), (ROWS,), 1),
    Kernel("sum of columns", lambda _, x: x.sum(0), (ROWS,), 1),
    Kernel("softmax", lambda lib, x: F(lib).softmax(x, -1), (ROWS,), 2),
    Kernel("softmax gradient", lambda lib, x: F(lib).softmax(x, -1), (ROWS,), 3, gradient=(0,)),
    Kernel(
        "layer norm", lambda lib, x, w, b: F(lib).layer_norm(x, (4096,), w, b), (ROWS, (4096,), (4096,)), 2
    ),
    Kernel(
        "layer norm gradient",
        lambda lib, x, w, b: F(lib).layer_norm(x, (4096,), w, b),
        (ROWS, (4096,), (4096,)),
        3,
        gradient=(0, 1, 2),
    ),
    Kernel("batch norm, training", _norm, (IMAGE, (64,), (64,)), 3, images=1),
    Kernel("batch norm gradient", _norm, (IMAGE, (64,), (64,)), 5, gradient=(0, 1, 2), images=1),
    Kernel("max pool 3x3 / 2", lambda lib, x: F(lib).max_pool2d(x, 3, 2, 1), (IMAGE,), 1.25, images=1),
    Kernel(
        "max pool gradient",
        lambda lib, x: F(lib).max_pool2d(x, 3, 2, 1),
        (IMAGE,),
        1.25,
        gradient=(0,),
        images=1,
        positions=0.25,
    ),
    Kernel("dropout", lambda lib, x: F(lib).dropout(x, 0.5), (FLAT,), 2),
    Kernel(
        "cross entropy",
        lambda lib, x, y: F(lib).cross_entropy(x, y),
        ((8192, 16384), ("ids", (8192,), 16384)),
        1,
        FLOAT32,
    ),
    Kernel(
        "cross entropy gradient",
        lambda lib, x, y: F(lib).cross_entropy(x, y),
        ((8192, 16384), ("ids", (8192,), 16384)),
        2,
        FLOAT32,
        gradient=(0,),
    ),
)


def tensor(lib: Any, shape: Any, dtype: str) -> Any:
    """Random values, drawn on the GPU."""
    if shape[0] == "ids":
        return lib.randint(0, shape[2], shape[1], device="cuda")
    return lib.randn(*shape, device="cuda").to(getattr(lib, dtype))


def as_images(lib: Any, x: Any) -> Any:
    """The layout in which a library's convolutions leave images."""
    if lib.__name__ == "torch":
        return x.contiguous(memory_format=lib.channels_last)
    return lib.nn.functional.max_pool2d(x, 1)


def prepare(lib: Any, kernel: Kernel, dtype: str) -> Callable[[], Any]:
    tensors = [tensor(lib, shape, dtype) for shape in kernel.shapes]
    tensors[: kernel.images] = [as_images(lib, x) for x in tensors[: kernel.images]]
    if not kernel.gradient:

        def forward() -> Any:
            with lib.no_grad():
                return kernel.call(lib, *tensors)

        return forward
    for position in kernel.gradient:
        tensors[position] = tensors[position].detach().requires_grad_()
    leaves = [tensors[position] for position in kernel.gradient]
    result = kernel.call(lib, *tensors)
    above = lib.randn(tuple(result.shape), device="cuda").to(result.dtype)
    if kernel.images and result.dim() == 4:
        above = as_images(lib, above)

    def backward() -> Any:
        grads = lib.autograd.grad(result, leaves, above, retain_graph=True)
        write_pending(lib)
        return grads

    return backward


def adam(lib: Any) -> Callable[[], Any]:
    """A step over PARAMETERS."""
    params = [lib.randn(n, device="cuda").requires_grad_() for n in PARAMETERS]
    for p in params:
        p.grad = lib.randn(*p.shape, device="cuda")
    options = {"fused": True} if lib.__name__ == "torch" else {}
    return lib.optim.AdamW(params, lr=1e-4, **options).step


def copy_bandwidth() -> float:
    """Bytes per second, read and written, of a copy of 1 GiB on the device."""
    import torch

    x = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    y = torch.empty_like(x)
    return 2 * x.numel() / measure({TORCH: lambda: y.copy_(x)}, rounds=9)[TORCH]


def run(clock: Clock) -> Iterator[Row]:
    """A row per kernel and dtype."""
    import torch

    import opsin

    for kernel in KERNELS:
        for dtype in kernel.dtypes:
            if clock.left() < 0:
                return
            name = f"{kernel.name}{', bf16' if dtype == 'bfloat16' else ''}"
            try:
                sides = {OPSIN: prepare(opsin, kernel, dtype), TORCH: prepare(torch, kernel, dtype)}
                moved = (kernel.moves * SIZES[dtype] + kernel.positions) * math.prod(kernel.shapes[0])
                times = measure(sides, rounds=5, limit=1.0)
                yield Row(PART, name, times, moved=moved, share_target=TARGET)
            except Exception as error:
                yield Row(PART, name, error=one_line(error))
            finally:
                sides = {}
                torch.cuda.empty_cache()
                opsin.cuda.empty_cache()
    try:
        sides = {OPSIN: adam(opsin), TORCH: adam(torch)}
        moved = 7 * 4 * sum(PARAMETERS)
        yield Row(PART, "AdamW step", measure(sides, rounds=5), moved=moved, share_target=TARGET)
    except Exception as error:
        yield Row(PART, "AdamW step", error=one_line(error))
