"""Lookup tables."""

from __future__ import annotations

from typing import Any

from opsin import empty
from opsin._C import ShapeError, Tensor
from opsin.autograd.grad_mode import no_grad
from opsin.nn import functional as F
from opsin.nn import init
from opsin.nn._checks import integer, number
from opsin.nn.module import Module
from opsin.nn.parameter import Parameter


class Embedding(Module):
    """A row of `weight` [num_embeddings, embedding_dim] per index: [*] -> [*, embedding_dim].

    The row `padding_idx` starts as zeros and gets no gradient. `max_norm` renormalises the rows that are
    looked up. Gradients are always dense: `sparse=True` is refused, since Opsin has no sparse tensors.
    """

    weight: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        rows = self.num_embeddings = integer("Embedding", "num_embeddings", num_embeddings, 0)
        self.embedding_dim = integer("Embedding", "embedding_dim", embedding_dim, 0)
        if padding_idx is not None:
            padding_idx = integer("Embedding", "padding_idx", padding_idx)
            if not -rows <= padding_idx < rows:
                raise ValueError(
                    f"Embedding: padding_idx must be within num_embeddings={rows}, got {padding_idx} "
                    f"(use {-rows} to {rows - 1})"
                )
            padding_idx %= rows
        if sparse:
            raise ValueError(
                "Embedding: sparse gradients are left out on purpose, got sparse=True (pass sparse=False)"
            )
        self.padding_idx = padding_idx
        self.max_norm = None if max_norm is None else number("Embedding", "max_norm", max_norm)
        self.norm_type = number("Embedding", "norm_type", norm_type)
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        if _weight is None:
            self.weight = Parameter(
                empty((rows, self.embedding_dim), device=device, dtype=dtype), requires_grad=not _freeze
            )
            self.reset_parameters()
        else:
            if tuple(_weight.shape) != (rows, self.embedding_dim):
                raise ShapeError(
                    f"Embedding: expected a weight [{rows}, {self.embedding_dim}], got {list(_weight.shape)} "
                    "(match num_embeddings and embedding_dim)"
                )
            self.weight = Parameter(_weight, requires_grad=not _freeze)

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Embedding:
        """A table made of given rows [num_embeddings, embedding_dim], fixed unless `freeze=False`."""
        if embeddings.dim() != 2:
            raise ShapeError(
                "Embedding: embeddings must be [num_embeddings, embedding_dim], got "
                f"{list(embeddings.shape)} "
                "(reshape to two dimensions)"
            )
        rows, columns = embeddings.shape
        return cls(
            rows,
            columns,
            padding_idx=padding_idx,
            max_norm=max_norm,
            norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq,
            sparse=sparse,
            _weight=embeddings,
            _freeze=freeze,
        )

    def reset_parameters(self) -> None:
        """Draws the rows from N(0, 1); the padding row is zero."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx].fill_(0)

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(
            input,
            self.weight,
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.sparse,
        )

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.padding_idx is not None:
            text += f", padding_idx={self.padding_idx}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        if self.scale_grad_by_freq:
            text += ", scale_grad_by_freq=True"
        return text
