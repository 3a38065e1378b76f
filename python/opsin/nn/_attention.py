"""Multi-head attention."""

from __future__ import annotations

from typing import Any

from opsin import empty
from opsin._C import Tensor
from opsin.nn import init
from opsin.nn._checks import integer, probability
from opsin.nn._linear import Linear
from opsin.nn._multi_head import Projections, attend
from opsin.nn.module import Module
from opsin.nn.parameter import Parameter

_LAYER = "MultiheadAttention"


class MultiheadAttention(Module):
    """Attention of `num_heads` heads between projections (Vaswani et al., "Attention is all you need", 2017).

    `query` [L, N, embed_dim], `key` [S, N, kdim] and `value` [S, N, vdim], or with `batch_first` [N, L, ...],
    or without N. Gives the output, of the shape of `query`, and the weights [N, L, S] (or [N, heads, L, S]
    unless `average_attn_weights`); without `need_weights` these are None and never computed as a whole.

    In `key_padding_mask` [N, S] and `attn_mask` [L, S] or [N * heads, L, S], True excludes a key; others are
    added to the scores. `is_causal` says that `attn_mask` excludes later keys, so that they may be skipped.
    """

    in_proj_weight: Tensor | None
    in_proj_bias: Tensor | None
    q_proj_weight: Tensor | None
    k_proj_weight: Tensor | None
    v_proj_weight: Tensor | None
    bias_k: Tensor | None
    bias_v: Tensor | None
    out_proj: Linear

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.embed_dim = integer(_LAYER, "embed_dim", embed_dim, 1)
        self.num_heads = integer(_LAYER, "num_heads", num_heads, 1)
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"{_LAYER}: embed_dim must be divisible by num_heads, got {embed_dim} and {num_heads} "
                "(change one of them)"
            )
        self.kdim = self.embed_dim if kdim is None else integer(_LAYER, "kdim", kdim, 1)
        self.vdim = self.embed_dim if vdim is None else integer(_LAYER, "vdim", vdim, 1)
        self._qkv_same_embed_dim = self.kdim == self.embed_dim and self.vdim == self.embed_dim
        self.dropout = probability(_LAYER, "dropout", dropout)
        self.batch_first = batch_first
        self.head_dim = self.embed_dim // self.num_heads
        self.add_zero_attn = add_zero_attn

        def parameter(wanted: bool, *sizes: int) -> Parameter | None:
            return Parameter(empty(sizes, device=device, dtype=dtype)) if wanted else None

        width, same = self.embed_dim, self._qkv_same_embed_dim
        self.register_parameter("q_proj_weight", parameter(not same, width, width))
        self.register_parameter("k_proj_weight", parameter(not same, width, self.kdim))
        self.register_parameter("v_proj_weight", parameter(not same, width, self.vdim))
        self.register_parameter("in_proj_weight", parameter(same, 3 * width, width))
        self.register_parameter("in_proj_bias", parameter(bias, 3 * width))
        self.out_proj = Linear(width, width, bias=bias, device=device, dtype=dtype)
        self.register_parameter("bias_k", parameter(add_bias_kv, 1, 1, width))
        self.register_parameter("bias_v", parameter(add_bias_kv, 1, 1, width))
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        weights = Projections(
            self.in_proj_weight,
            self.in_proj_bias,
            (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight),
            self.out_proj.weight,
            self.out_proj.bias,
        )
        return attend(
            _LAYER,
            query,
            key,
            value,
            weights,
            self.num_heads,
            bias_k=self.bias_k,
            bias_v=self.bias_v,
            add_zero_attn=self.add_zero_attn,
            dropout=self.dropout if self.training else 0.0,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
            batch_first=self.batch_first,
        )
