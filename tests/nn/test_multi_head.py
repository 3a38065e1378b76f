"""`multi_head_attention_forward` against its namesake."""

from __future__ import annotations

from typing import Any

import pytest

import opsin
from opsin.nn import functional as F
from tests.device import DEVICE, place
from tests.peer import assert_close, to_opsin, torch

WIDTH, HEADS, BATCH, QUERIES, KEYS = 6, 2, 2, 4, 5
PADDING = torch.tensor([[False] * 4 + [True], [False, True, False, False, True]])
MASK = torch.tensor([[i % 3 == j % 4 for j in range(KEYS)] for i in range(QUERIES)])
CAUSAL = torch.ones(QUERIES, QUERIES).triu(1).bool()
SEPARATE = {"use_separate_proj_weight": True, "in_proj_weight": None}
STATIC = (BATCH * HEADS, 3, WIDTH // HEADS)


def call(
    kdim: int = WIDTH, vdim: int = WIDTH, bias: bool = True, extra: bool = False, **changed: Any
) -> dict[str, Any]:
    """Arguments of PyTorch's function; sizes in the place of a tensor stand for random ones."""
    shapes = {
        "query": (QUERIES, BATCH, WIDTH), "key": (KEYS, BATCH, kdim), "value": (KEYS, BATCH, vdim),
        "in_proj_weight": (3 * WIDTH, WIDTH), "in_proj_bias": (3 * WIDTH,) if bias else None,
        "bias_k": (1, 1, WIDTH) if extra else None, "bias_v": (1, 1, WIDTH) if extra else None,
        "out_proj_weight": (WIDTH, WIDTH), "out_proj_bias": (WIDTH,) if bias else None,
        **({} if "use_separate_proj_weight" not in changed else {
            "q_proj_weight": (WIDTH, WIDTH), "k_proj_weight": (WIDTH, kdim), "v_proj_weight": (WIDTH, vdim)
        }),
        **changed,
    }  # fmt: skip
    torch.manual_seed(0)
    plain = {"embed_dim_to_check": WIDTH, "num_heads": HEADS, "add_zero_attn": False, "dropout_p": 0.0}
    made = {k: torch.randn(v, requires_grad=True) if isinstance(v, tuple) else v for k, v in shapes.items()}
    return {**plain, **made}


@pytest.mark.device
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        call(),
        call(bias=False, attn_mask=MASK, key_padding_mask=PADDING),
        call(kdim=3, vdim=4, **SEPARATE, attn_mask=MASK.float().masked_fill(MASK, -2.0)),
        call(extra=True, add_zero_attn=True, key_padding_mask=PADDING, average_attn_weights=False),
        call(static_k=STATIC, static_v=STATIC),
        call(key=(QUERIES, BATCH, WIDTH), value=(QUERIES, BATCH, WIDTH), attn_mask=CAUSAL, is_causal=True),
        call(query=(QUERIES, WIDTH), key=(KEYS, WIDTH), value=(KEYS, WIDTH), attn_mask=MASK),
        call(dropout_p=0.9, training=False),
    ],
    ids=["plain", "masks", "separate", "extra", "static", "causal", "unbatched", "evaluation"],
)  # fmt: skip
@pytest.mark.feature("AT05")
def test_multi_head_attention_forward(arguments: dict[str, Any], need_weights: bool) -> None:
    theirs = {**arguments, "need_weights": need_weights}
    ours = {k: to_opsin(v) if isinstance(v, torch.Tensor) else v for k, v in theirs.items()}
    leaves = [k for k, v in theirs.items() if isinstance(v, torch.Tensor) and v.requires_grad]
    for name in leaves:
        ours[name].requires_grad_()
        theirs[name].grad = None
    got, weights = F.multi_head_attention_forward(**ours)
    want, peer_weights = torch.nn.functional.multi_head_attention_forward(**theirs)
    # Sums of products of up to four normal numbers.
    assert_close(got, want, 5e-5)
    assert (weights is None) == (peer_weights is None) == (not need_weights)
    if weights is not None:
        assert_close(weights, peer_weights, 1e-5)
    factor = torch.randn_like(want)
    (want * factor).sum().backward()
    (got * to_opsin(factor)).sum().backward()
    for name in leaves:
        assert (ours[name].grad is None) == (theirs[name].grad is None), name
        if theirs[name].grad is not None:
            assert_close(ours[name].grad, theirs[name].grad, 5e-4)


@pytest.mark.device
@pytest.mark.parametrize("need_weights", [True, False])
def test_second_derivatives(need_weights: bool) -> None:
    x = place(opsin.randn(3, 1, 4, dtype=opsin.float64)).requires_grad_()
    weight, out = (place(opsin.randn(*s, dtype=opsin.float64)).requires_grad_() for s in ((12, 4), (4, 4)))

    def run(x: Any, weight: Any, out: Any) -> Any:
        settings = (4, 2, weight, None, None, None, False, 0.0, out, None)
        return F.multi_head_attention_forward(x, x, x, *settings, need_weights=need_weights)[0]

    assert opsin.autograd.gradcheck(run, (x, weight, out))
    assert opsin.autograd.gradgradcheck(run, (x, weight, out))


@pytest.mark.device
def test_dropout_of_weights() -> None:
    x = place(opsin.randn(3, 2, 4))
    eye = opsin.eye(4, device=DEVICE)
    joint = opsin.cat([eye, eye, eye])
    _, weights = F.multi_head_attention_forward(x, x, x, 4, 2, joint, None, None, None, False, 1.0, eye, None)
    assert weights is not None and not weights.any()


@pytest.mark.parametrize(
    ("changed", "kind", "match"),
    [
        ({"embed_dim_to_check": 8}, opsin.ShapeError, r"expected query \[\.\.\., 8\], got \[4, 2, 6\]"),
        ({"num_heads": 4}, ValueError, "divisible by num_heads, got 6 and 4"),
        ({"in_proj_weight": None}, ValueError, "needs in_proj_weight, got None"),
        ({"use_separate_proj_weight": True, "q_proj_weight": None}, ValueError, "needs q_proj_weight"),
        ({"bias_k": (1, 1, WIDTH)}, ValueError, "bias_k and bias_v go together"),
        ({"static_k": (4, 3, 2)}, opsin.ShapeError, r"static_k must be \[4, S, 3\] .* got \[4, 3, 2\]"),
        ({"is_causal": True}, RuntimeError, "is_causal=True is a hint about attn_mask"),
        ({"key": (KEYS, BATCH, 7)}, opsin.ShapeError, r"last sizes \(6, 6, 6\)"),
    ],
)  # fmt: skip
def test_errors(changed: dict[str, Any], kind: type[Exception], match: str) -> None:
    arguments = {k: to_opsin(v) if isinstance(v, torch.Tensor) else v for k, v in call(**changed).items()}
    with pytest.raises(kind, match=f"multi_head_attention_forward: .*{match}"):
        F.multi_head_attention_forward(**arguments)
