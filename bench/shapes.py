"""Vision ops over random shapes, forward and backward: what `memory.py` watches for growth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

NAME = "vision ops of random shapes"
_LARGEST = (2, 40, 48, 48)
# The largest shape comes so often that what grows later is no new high-water mark of the images.
_EVERY = 20


def _ops(lib: Any, x: Any, draw: Callable[..., Any], rng: np.random.Generator) -> Iterator[Any]:
    """Results of some ops on an image; `draw` makes a tensor of a shape."""
    functional = lib.nn.functional
    batch, channels, height, width = x.shape
    kernel, out = int(rng.integers(1, 6)), int(rng.integers(1, 49))
    step, pad = int(rng.integers(1, 3)), kernel // 2
    yield functional.conv2d(x, draw(out, channels, kernel, kernel), stride=step, padding=pad)
    yield functional.conv2d(x, draw(channels, 1, kernel, kernel), padding=pad, groups=channels)
    yield functional.conv_transpose2d(x, draw(channels, out, kernel, kernel), stride=step, padding=pad)
    yield functional.conv3d(x[:, :, None], draw(out, channels, 1, kernel, kernel), padding=(0, pad, pad))
    yield functional.max_pool2d(x, 3, 2, 1)
    yield functional.avg_pool2d(x, 2)
    yield functional.interpolate(x, size=(width, height), mode="bilinear")
    yield functional.grid_sample(x, lib.tanh(draw(batch, height, width, 2)), align_corners=False)
    yield functional.batch_norm(x, None, None, training=True)
    yield functional.group_norm(x, 1)
    tokens = x.flatten(2).transpose(1, 2)[:, None, :512]
    yield functional.scaled_dot_product_attention(tokens, tokens, tokens)
    if lib.__name__ == "opsin":
        offset = draw(batch, 2 * kernel * kernel, height, width)
        weight = draw(out, channels, kernel, kernel)
        if kernel % 2:
            yield lib.ops.deform_conv2d(x, offset, weight, padding=pad)
        corners = np.sort(rng.uniform(0, 32, (8, 2, 2)), axis=1).reshape(8, 4)
        rois = np.concatenate([np.zeros((8, 1)), corners], 1).astype(np.float32)
        yield lib.ops.roi_align(x, lib.tensor(rois), 7)
        lib.ops.nms(lib.tensor(rois[:, 1:]), draw(8).detach(), 0.5)


def stepper(lib: Any) -> Callable[[int], None]:
    """Every op once, forward and backward, on an image of another random shape in each step."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return lib.tensor(rng.standard_normal(shape, dtype=np.float32)).requires_grad_(True)

    def step(number: int) -> None:
        low = (1, 1, 4, 4)
        shape = [int(rng.integers(a, b + 1)) for a, b in zip(low, _LARGEST, strict=True)]
        x = draw(*(_LARGEST if number % _EVERY == 0 else shape))
        for result in _ops(lib, x, draw, rng):
            result.sum().backward()

    return step
