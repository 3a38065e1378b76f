"""Multi-head attention, from the projections to the output: what the layer and the function share."""

from __future__ import annotations

from typing import NamedTuple

from opsin import bool as bool_dtype
from opsin import cat, logical_not, zeros
from opsin._C import ShapeError, Tensor
from opsin._C import _nn_functional as F


class Projections(NamedTuple):
    """The weights of `multi_head_attention_forward`; `separate` are those of query, key and value."""

    joint: Tensor | None
    bias: Tensor | None
    separate: tuple[Tensor | None, Tensor | None, Tensor | None]
    out: Tensor
    out_bias: Tensor | None


def additive(mask: Tensor, like: Tensor) -> Tensor:
    """A mask that is added to scores; a bool one excludes where it is True."""
    if mask.dtype != bool_dtype:
        return mask.to(like.dtype)
    return zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, float("-inf"))


def joined(first: Tensor | None, second: Tensor | None, like: Tensor) -> Tensor | None:
    """Both masks; True in a bool one excludes."""
    if first is None or second is None:
        return second if first is None else first
    if first.dtype == bool_dtype and second.dtype == bool_dtype:
        return first | second
    return additive(first, like) + additive(second, like)


def _shapes(inputs: tuple[Tensor, ...]) -> str:
    return ", ".join(str(list(x.shape)) for x in inputs)


def _check(
    op: str,
    inputs: tuple[Tensor, Tensor, Tensor],
    widths: tuple[int, ...],
    heads: int,
    is_causal: bool,
    attn_mask: Tensor | None,
) -> None:
    query, key, value = inputs
    rank = query.dim()
    if rank not in (2, 3) or key.dim() != rank or value.dim() != rank:
        raise ShapeError(
            f"{op}: query, key and value must be 3-D, or 2-D without a batch, got {_shapes(inputs)}"
        )
    if (query.shape[-1], key.shape[-1], value.shape[-1]) != widths:
        raise ShapeError(
            f"{op}: query, key and value must have last sizes {widths}, got {_shapes(inputs)} "
            "(embed_dim, kdim and vdim set them)"
        )
    if widths[0] % heads:
        raise ValueError(
            f"{op}: embed_dim must be divisible by num_heads, got {widths[0]} and {heads} "
            "(change one of them)"
        )
    if is_causal and attn_mask is None:
        raise RuntimeError(f"{op}: is_causal=True is a hint about attn_mask, got no mask (pass both)")


def _projected(
    weights: Projections, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    width, bias = query.shape[-1], weights.bias
    if weights.joint is None:
        parts = [w for w in weights.separate if w is not None]
    elif query is key and key is value:
        q, k, v = F.linear(query, weights.joint, bias).chunk(3, -1)
        return q, k, v
    elif key is value:
        wq, wkv = weights.joint.split([width, 2 * width])
        bq, bkv = (None, None) if bias is None else bias.split([width, 2 * width])
        k, v = F.linear(key, wkv, bkv).chunk(2, -1)
        return F.linear(query, wq, bq), k, v
    else:
        parts = weights.joint.chunk(3)
    biases = (None, None, None) if bias is None else bias.chunk(3)
    q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), parts, biases, strict=True))
    return q, k, v


def _mask(
    op: str, q: Tensor, keys: int, heads: int, key_padding_mask: Tensor | None, attn_mask: Tensor | None
) -> Tensor | None:
    """What excludes keys (True) or is added, to be broadcast to [N, heads, L, S]."""
    batch, queries = q.shape[0], q.shape[1]
    if attn_mask is not None:
        shapes = ([queries, keys], [batch * heads, queries, keys])
        if list(attn_mask.shape) not in shapes:
            raise ShapeError(
                f"{op}: attn_mask must be {shapes[0]} or {shapes[1]}, got {list(attn_mask.shape)}"
            )
        split = attn_mask.dim() == 3
        attn_mask = attn_mask.unflatten(0, (batch, heads)) if split else attn_mask[None, None]
    if key_padding_mask is not None:
        if list(key_padding_mask.shape) != [batch, keys]:
            raise ShapeError(
                f"{op}: key_padding_mask must be {[batch, keys]}, got {list(key_padding_mask.shape)}"
            )
        key_padding_mask = key_padding_mask[:, None, None]
    return joined(attn_mask, key_padding_mask, q)


def _extended(
    k: Tensor, v: Tensor, mask: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None, zero_attn: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys and values [N, heads, S, head_dim] with the learned ones and zeros behind them."""
    extra = 0
    batch, heads, _, width = k.shape
    if bias_k is not None and bias_v is not None:
        k, v = (
            cat([x, bias.reshape(1, heads, 1, width).expand(batch, heads, 1, width)], 2)
            for x, bias in ((k, bias_k), (v, bias_v))
        )
        extra += 1
    if zero_attn:
        zero = zeros((batch, heads, 1, width), dtype=k.dtype, device=k.device)
        k, v = cat([k, zero], 2), cat([v, zero], 2)
        extra += 1
    if extra and mask is not None:
        seen = zeros((*mask.shape[:-1], extra), dtype=mask.dtype, device=mask.device)
        mask = cat([mask, seen], -1)
    return k, v, mask


def attend(
    op: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: Projections,
    num_heads: int,
    *,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout: float,
    key_padding_mask: Tensor | None,
    need_weights: bool,
    attn_mask: Tensor | None,
    average_attn_weights: bool,
    is_causal: bool,
    batch_first: bool,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """See `multi_head_attention_forward`; with `batch_first` inputs and output are [N, L, channels]."""
    width = weights.out.shape[1]
    widths = [width] * 3
    if weights.joint is None:
        widths = [width, *(width if w is None else w.shape[1] for w in weights.separate[1:])]
    _check(op, (query, key, value), tuple(widths), num_heads, is_causal, attn_mask)
    batched = query.dim() == 3
    q, k, v = _projected(weights, query, key, value)
    if not batched:
        q, k, v = (x.unsqueeze(0) for x in (q, k, v))
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
    elif not batch_first:
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    # Projections [N, L, embed_dim] from here on, in the memory order they have.
    head_dim = width // num_heads
    heads = (num_heads, head_dim)
    k, v = (
        x.unflatten(2, heads).transpose(1, 2)
        if given is None
        else _static(op, name, given, q.shape[0], heads)
        for name, x, given in (("static_k", k, static_k), ("static_v", v, static_v))
    )
    extended = bias_k is not None or add_zero_attn
    causal = is_causal and key_padding_mask is None and not need_weights and not extended
    mask = None if causal else _mask(op, q, k.shape[2], num_heads, key_padding_mask, attn_mask)
    q = q.unflatten(2, heads).transpose(1, 2)
    k, v, mask = _extended(k, v, mask, bias_k, bias_v, add_zero_attn)

    found = None
    if need_weights:
        scores = (q * head_dim**-0.5) @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores + additive(mask, scores)
        found = F.dropout(F.softmax(scores, -1), dropout)
        mixed = found @ v
        if average_attn_weights:
            found = found.mean(1)
        if not batched:
            found = found.squeeze(0)
    else:
        if mask is not None and mask.dtype == bool_dtype:
            mask = logical_not(mask)
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal)
    if not batched:
        joint = mixed.squeeze(0).transpose(0, 1).flatten(1)
    else:
        joint = (mixed.transpose(1, 2) if batch_first else mixed.permute(2, 0, 1, 3)).flatten(2)
    return F.linear(joint, weights.out, weights.out_bias), found


def _static(op: str, name: str, given: Tensor, batch: int, heads: tuple[int, int]) -> Tensor:
    """Keys or values [N * heads, S, head_dim] that are not projected, as [N, heads, S, head_dim]."""
    if given.dim() != 3 or (given.shape[0], given.shape[2]) != (batch * heads[0], heads[1]):
        raise ShapeError(
            f"{op}: {name} must be [{batch * heads[0]}, S, {heads[1]}] (N * num_heads, keys, head_dim), got "
            f"{list(given.shape)}"
        )
    return given.unflatten(0, (batch, heads[0]))


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The function of `nn.MultiheadAttention`: `query` [L, N, E], `key` [S, N, kdim], `value` [S, N, vdim].

    Or without N. Gives the output [L, N, E] and, if `need_weights`, the weights [N, L, S] (else None).
    Projections are `in_proj_weight` [3 E, E] or, with `use_separate_proj_weight`, the three others; their
    bias is `in_proj_bias` [3 E]. `bias_k` and `bias_v` [1, 1, E] are one more key and value; `static_k` and
    `static_v` [N * num_heads, S, E / num_heads] stand for the projected ones. Masks are those of the layer.
    """
    op = "multi_head_attention_forward"
    separate = (q_proj_weight, k_proj_weight, v_proj_weight)
    used = separate if use_separate_proj_weight else (in_proj_weight,)
    if any(w is None for w in used):
        names = (
            "q_proj_weight, k_proj_weight and v_proj_weight" if use_separate_proj_weight else "in_proj_weight"
        )
        raise ValueError(
            f"{op}: use_separate_proj_weight={use_separate_proj_weight} needs {names}, got None (pass them)"
        )
    if query.shape[-1] != embed_dim_to_check:
        raise ShapeError(f"{op}: expected query [..., {embed_dim_to_check}], got {list(query.shape)}")
    if (bias_k is None) != (bias_v is None) or (
        bias_k is not None and (static_k is not None or static_v is not None)
    ):
        raise ValueError(
            f"{op}: bias_k and bias_v go together, and not with static_k or static_v (pass both or none)"
        )
    return attend(
        op,
        query,
        key,
        value,
        Projections(
            None if use_separate_proj_weight else in_proj_weight,
            in_proj_bias,
            separate,
            out_proj_weight,
            out_proj_bias,
        ),
        num_heads,
        bias_k=bias_k,
        bias_v=bias_v,
        add_zero_attn=add_zero_attn,
        dropout=dropout_p if training else 0.0,
        key_padding_mask=key_padding_mask,
        need_weights=need_weights,
        attn_mask=attn_mask,
        average_attn_weights=average_attn_weights,
        is_causal=is_causal,
        batch_first=False,
        static_k=static_k,
        static_v=static_v,
    )
