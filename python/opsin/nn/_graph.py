"""Convolution over the edges of a graph, such as a triangle mesh."""

from __future__ import annotations

from typing import Any

from opsin import bool as opsin_bool
from opsin import cat
from opsin._C import Tensor
from opsin.nn import init
from opsin.nn._checks import choice, integer
from opsin.nn._linear import Linear
from opsin.nn.module import Module


class GraphConv(Module):
    """f'_i = W0 f_i + b0 + the sum over neighbours j of i of (W1 f_j + b1).

    `layer(verts, edges)`: features `verts` [V, input_dim] and pairs of vertices `edges` [E, 2] of int64 give
    [V, output_dim]. Each pair makes both its vertices neighbours of each other; with `directed`, only the
    second one of the first. `init` is 'normal' (deviation 0.01, biases 0) or 'zero'. Parameters are those of
    the layers `w0` and `w1`; sums are the same in every run.

    Source: Wang et al., Pixel2Mesh (2018), as in PyTorch3D's layer of this name.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        init: str = "normal",
        directed: bool = False,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.input_dim = integer("GraphConv", "input_dim", input_dim, 1)
        self.output_dim = integer("GraphConv", "output_dim", output_dim, 1)
        self.init = choice("GraphConv", "init", init, ("normal", "zero"))
        self.directed = directed
        self.w0 = Linear(self.input_dim, self.output_dim, device=device, dtype=dtype)
        self.w1 = Linear(self.input_dim, self.output_dim, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets weights and biases as `init` says."""
        for layer in (self.w0, self.w1):
            init.normal_(layer.weight, 0.0, 0.01 if self.init == "normal" else 0.0)
            assert layer.bias is not None
            init.zeros_(layer.bias)

    def forward(self, verts: Tensor, edges: Tensor) -> Tensor:
        if verts.dim() != 2 or verts.shape[1] != self.input_dim:
            raise ValueError(
                f"GraphConv: verts must be [V, {self.input_dim}], got {list(verts.shape)} (reshape it)"
            )
        kind = edges.dtype
        if edges.dim() != 2 or edges.shape[1] != 2 or kind.is_floating_point or kind == opsin_bool:
            raise ValueError(
                f"GraphConv: edges must be [E, 2] of integers, got {list(edges.shape)} of {kind} "
                "(one row for each pair of vertices)"
            )
        first, second = edges[:, 0], edges[:, 1]
        if not self.directed:
            first, second = cat([first, second]), cat([second, first])
        found = self.w1(verts).index_select(0, second)
        return self.w0(verts).index_add(0, first, found)

    def extra_repr(self) -> str:
        return f"{self.input_dim}, {self.output_dim}, directed={self.directed}"
