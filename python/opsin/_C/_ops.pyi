# Made by `make stubs` from the schemas of the ops; edit bindings/_C.pyi.in or the schema.

from opsin._C import Tensor, _Float, _Int, _Ints

__all__ = ["neighborhood_attention", "rotary_embedding", "window_partition", "window_reverse"]

def neighborhood_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: _Int | _Ints,
    *,
    dilation: _Int | _Ints = 1,
    scale: _Float | None = None,
) -> Tensor:
    """Attention of each position of a grid [N, spatial..., heads, D] to the kernel_size nearest per axis, dilation apart."""

def rotary_embedding(input: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs (x[i], x[i + D / 2]) of input [..., L, D] by angles with these cosines and sines."""

def window_partition(input: Tensor, window_size: _Int | _Ints) -> Tensor:
    """Windows [N * windows, window_size..., C] of input [N, spatial..., C], in row-major order."""

def window_reverse(windows: Tensor, size: _Int | _Ints) -> Tensor:
    """The input [N, size..., C] of which window_partition() made windows [N * windows, window_size..., C]."""
