"""Multi-head attention."""

from __future__ import annotations

from typing import Any

from opsin import bool as bool_dtype
from opsin import cat, empty, logical_not, zeros
from opsin._C import ShapeError, Tensor
from opsin.nn import functional as F
from opsin.nn import init
from opsin.nn._checks import integer, probability
from opsin.nn._linear import Linear
from opsin.nn.module import Module
from opsin.nn.parameter import Parameter

_LAYER = "MultiheadAttention"


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """A mask that is added to scores; a bool one excludes where it is True."""
    if mask.dtype != bool_dtype:
        return mask.to(like.dtype)
    return zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, float("-inf"))


def _joined(first: Tensor | None, second: Tensor | None, like: Tensor) -> Tensor | None:
    """Both masks; True in a bool one excludes."""
    if first is None or second is None:
        return second if first is None else first
    if first.dtype == bool_dtype and second.dtype == bool_dtype:
        return first | second
    return _additive(first, like) + _additive(second, like)


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
        self._check(query, key, value, is_causal, attn_mask)
        batched = query.dim() == 3
        q, k, v = self._project(query, key, value)
        if not batched:
            q, k, v = (x.unsqueeze(0) for x in (q, k, v))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        # Projections [N, L, embed_dim] from here on, in the memory order they have.
        causal = is_causal and key_padding_mask is None and not need_weights
        mask = None if causal else self._mask(q, k, key_padding_mask, attn_mask)
        extended = self.bias_k is not None or self.add_zero_attn
        if causal and extended:
            causal, mask = False, self._mask(q, k, None, attn_mask)
        q, k, v = (x.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2) for x in (q, k, v))
        k, v, mask = self._extended(k, v, mask)

        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
            if mask is not None:
                scores = scores + _additive(mask, scores)
            weights = F.dropout(F.softmax(scores, -1), dropout)
            mixed = weights @ v
            if average_attn_weights:
                weights = weights.mean(1)
            if not batched:
                weights = weights.squeeze(0)
        else:
            if mask is not None and mask.dtype == bool_dtype:
                mask = logical_not(mask)
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal)
        if not batched:
            joined = mixed.squeeze(0).transpose(0, 1).flatten(1)
        else:
            joined = (mixed.transpose(1, 2) if self.batch_first else mixed.permute(2, 0, 1, 3)).flatten(2)
        return self.out_proj(joined), weights

    def _check(
        self, query: Tensor, key: Tensor, value: Tensor, is_causal: bool, attn_mask: Tensor | None
    ) -> None:
        ranks = [x.dim() for x in (query, key, value)]
        widths = (self.embed_dim, self.kdim, self.vdim)
        shapes = ", ".join(str(list(x.shape)) for x in (query, key, value))
        if ranks not in ([2, 2, 2], [3, 3, 3]):
            raise ShapeError(
                f"{_LAYER}: query, key and value must be 3-D, or 2-D without a batch, got {shapes}"
            )
        if any(x.shape[-1] != width for x, width in zip((query, key, value), widths, strict=True)):
            raise ShapeError(
                f"{_LAYER}: query, key and value must have last sizes {widths}, got {shapes} "
                "(embed_dim, kdim and vdim set them)"
            )
        if is_causal and attn_mask is None:
            raise RuntimeError(f"{_LAYER}: is_causal=True is a hint about attn_mask, got no mask (pass both)")

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        width, bias = self.embed_dim, self.in_proj_bias
        if self.in_proj_weight is None:
            weights = [
                w for w in (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight) if w is not None
            ]
        elif query is key and key is value:
            return F.linear(query, self.in_proj_weight, bias).chunk(3, -1)
        elif key is value:
            wq, wkv = self.in_proj_weight.split([width, 2 * width])
            bq, bkv = (None, None) if bias is None else bias.split([width, 2 * width])
            return F.linear(query, wq, bq), *F.linear(key, wkv, bkv).chunk(2, -1)
        else:
            weights = self.in_proj_weight.chunk(3)
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return tuple(F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))

    def _mask(
        self, q: Tensor, k: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None
    ) -> Tensor | None:
        """What excludes keys (True) or is added, to be broadcast to [N, heads, L, S]."""
        batch, queries, keys = q.shape[0], q.shape[1], k.shape[1]
        if attn_mask is not None:
            shapes = ([queries, keys], [batch * self.num_heads, queries, keys])
            if list(attn_mask.shape) not in shapes:
                raise ShapeError(
                    f"{_LAYER}: attn_mask must be {shapes[0]} or {shapes[1]}, got {list(attn_mask.shape)}"
                )
            if attn_mask.dim() == 3:
                attn_mask = attn_mask.unflatten(0, (batch, self.num_heads))
            else:
                attn_mask = attn_mask[None, None]
        if key_padding_mask is not None:
            if list(key_padding_mask.shape) != [batch, keys]:
                raise ShapeError(
                    f"{_LAYER}: key_padding_mask must be {[batch, keys]}, got {list(key_padding_mask.shape)}"
                )
            key_padding_mask = key_padding_mask[:, None, None]
        return _joined(attn_mask, key_padding_mask, q)

    def _extended(self, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values [N, heads, S, head_dim] with those of `add_bias_kv` and `add_zero_attn`."""
        extra = 0
        sizes = (k.shape[0], self.num_heads, 1, self.head_dim)
        if self.bias_k is not None and self.bias_v is not None:
            heads = (1, self.num_heads, 1, self.head_dim)
            k = cat([k, self.bias_k.reshape(heads).expand(sizes)], 2)
            v = cat([v, self.bias_v.reshape(heads).expand(sizes)], 2)
            extra += 1
        if self.add_zero_attn:
            zero = zeros(sizes, dtype=k.dtype, device=k.device)
            k, v = cat([k, zero], 2), cat([v, zero], 2)
            extra += 1
        if extra and mask is not None:
            seen = zeros((*mask.shape[:-1], extra), dtype=mask.dtype, device=mask.device)
            mask = cat([mask, seen], -1)
        return k, v, mask
