"""Sequences of different lengths: packed step by step, or padded to the longest."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from opsin import arange, argsort, empty, full, int64, is_tensor, tensor
from opsin._C import ShapeError, Tensor
from opsin.nn._checks import choice


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Packed):
    """Sequences of different lengths without padding, as the recurrent layers take them.

    `data` [rows, *] holds step 0 of all sequences, longest first, then step 1 of those that have one, and so
    on; `batch_sizes` (int64, on the CPU) says how many sequences each step has. Sequence i in this order was
    number `sorted_indices[i]`, and number i is here at `unsorted_indices[i]`; None where they came sorted.
    Made by `pack_padded_sequence` and `pack_sequence`.
    """

    def __new__(
        cls,
        data: Tensor,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:
        if batch_sizes is None:
            if not isinstance(data, (list, tuple)) or len(data) != 2:
                raise TypeError(
                    f"PackedSequence: batch_sizes must be a tensor, got None (and data {type(data).__name__})"
                )
            data, batch_sizes = data
        if batch_sizes.device.type != "cpu":
            raise ValueError(
                f"PackedSequence: batch_sizes must be on the CPU, got a tensor on {batch_sizes.device} "
                "(move it with cpu())"
            )
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """As `Tensor.to`; `batch_sizes` stays on the CPU."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        return PackedSequence(
            data, self.batch_sizes, _moved(self.sorted_indices, data), _moved(self.unsorted_indices, data)
        )

    def cpu(self) -> PackedSequence:
        return self.to("cpu")

    def cuda(self, device: Any = None) -> PackedSequence:
        return self.to("cuda" if device is None else device)

    def double(self) -> PackedSequence:
        return self._replaced(self.data.double())

    def float(self) -> PackedSequence:
        return self._replaced(self.data.float())

    def half(self) -> PackedSequence:
        return self._replaced(self.data.half())

    @property
    def is_cuda(self) -> bool:
        return self.data.device.type == "cuda"

    def _replaced(self, data: Tensor) -> PackedSequence:
        return PackedSequence(data, self.batch_sizes, self.sorted_indices, self.unsorted_indices)


def _moved(indices: Tensor | None, data: Tensor) -> Tensor | None:
    return None if indices is None else indices.to(data.device)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """`y` with `y[permutation[i]] = i`; None stays."""
    if permutation is None:
        return None
    places = arange(permutation.numel(), device=permutation.device)
    return empty(permutation.shape, dtype=permutation.dtype, device=permutation.device).scatter_(
        0, permutation, places.to(permutation.dtype)
    )


def permuted(states: Tensor, permutation: Tensor | None) -> Tensor:
    """The sequences of states [layers, batch, *] in another order."""
    return states if permutation is None else states.index_select(1, permutation)


def _lengths(function: str, lengths: Any, count: int) -> Tensor:
    """As int64 on the CPU, each at least 1."""
    values = lengths if is_tensor(lengths) else tensor(list(lengths), dtype=int64)
    values = values.to("cpu", int64)
    if values.dim() != 1 or values.numel() != count:
        raise ShapeError(
            f"{function}: lengths must have one entry for each of the {count} sequences, "
            f"got shape {list(values.shape)}"
        )
    least = min(values.tolist(), default=1)
    if least <= 0:
        raise RuntimeError(
            f"{function}: Length of all samples has to be greater than 0, but found {least} "
            "(leave empty sequences out)"
        )
    return values


def _rows(has_step: Tensor, batch_first: bool) -> Tensor:
    """Which rows of a padded tensor, its first two dimensions joined, the steps of packed ones are.

    `has_step` [steps, sequences] says which steps there are.
    """
    steps, sequences = has_step.shape
    step, sequence = has_step.nonzero().unbind(1)
    return sequence * steps + step if batch_first else step * sequences + sequence


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Packs `input` [T, N, *], or [N, T, *] with `batch_first`, whose sequences have `lengths`.

    `enforce_sorted` asks for lengths that never grow, as exported models need them; without it any order will
    do.
    """
    name = "pack_padded_sequence"
    if input.dim() < 2:
        raise ShapeError(f"{name}: input must be [T, N, *], got {list(input.shape)} (add a batch dimension)")
    longest, count = (int(n) for n in (input.shape[1::-1] if batch_first else input.shape[:2]))
    if count == 0:
        raise RuntimeError(f"{name}: Cannot pack empty tensors, got input {list(input.shape)}")
    values = _lengths(name, lengths, count)
    order = None
    if enforce_sorted:
        listed = values.tolist()
        if any(a < b for a, b in itertools.pairwise(listed)):
            raise RuntimeError(
                f"{name}: `lengths` must be sorted in decreasing order, got {listed} "
                "(pass enforce_sorted=False)"
            )
    else:
        order = argsort(values, descending=True, stable=True)
        values = values.index_select(0, order)
        order = order.to(input.device)
        input = input.index_select(0 if batch_first else 1, order)
    if int(values[0]) > longest:
        raise ShapeError(
            f"{name}: lengths must be at most the {longest} steps of input {list(input.shape)}, "
            f"got {int(values[0])}"
        )
    steps = arange(int(values[0])).unsqueeze(1)
    has_step = (arange(longest).unsqueeze(1) < values) if batch_first else (steps < values)
    rows = _rows(has_step, batch_first).to(input.device)
    return PackedSequence(input.flatten(0, 1).index_select(0, rows), (steps < values).sum(1), order)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The inverse of `pack_padded_sequence`: (the padded sequences, their lengths as int64 on the CPU).

    The result has as many steps as the longest sequence, or `total_length`.
    """
    data, batch_sizes = sequence.data, sequence.batch_sizes
    steps, count = batch_sizes.numel(), int(batch_sizes[0])
    total = steps if total_length is None else total_length
    if total < steps:
        raise ValueError(
            "pad_packed_sequence: Expected total_length to be at least the length of the longest sequence in "
            f"input, but got total_length={total} and max sequence length being {steps}"
        )
    in_step = arange(count) < batch_sizes.unsqueeze(1)
    has_step = full((total, count), False)
    has_step[:steps] = in_step
    padded = full(
        (total * count, *data.shape[1:]), padding_value, dtype=data.dtype, device=data.device
    ).index_copy(0, _rows(has_step, batch_first).to(data.device), data)
    padded = padded.unflatten(0, (count, total) if batch_first else (total, count))
    lengths = in_step.sum(0)
    if sequence.unsorted_indices is None:
        return padded, lengths
    places = sequence.unsorted_indices
    return padded.index_select(0 if batch_first else 1, places), lengths.index_select(0, places.cpu())


def pad_sequence(
    sequences: Tensor | Sequence[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Stacks sequences [L_i, *] as [T, N, *], or [N, T, *] with `batch_first`; T is the longest L_i.

    `padding_side` is where shorter ones get `padding_value`: 'right', after them, or 'left'.
    """
    choice("pad_sequence", "padding_side", padding_side, ("right", "left"))
    if not is_tensor(sequences) and not isinstance(sequences, Iterable):
        raise RuntimeError(
            f"pad_sequence: expected a list of tensors, got {type(sequences).__name__} (put it in a list)"
        )
    all_of = list(sequences)
    if not all_of:
        raise RuntimeError("pad_sequence: received an empty list of sequences (pass one at least)")
    first, longest = all_of[0], max(s.shape[0] for s in all_of)
    if any(s.shape[1:] != first.shape[1:] for s in all_of):
        shapes = ", ".join(str(list(s.shape)) for s in all_of)
        raise ShapeError(f"pad_sequence: sequences must agree in all sizes but the first, got {shapes}")
    padded = full(
        (len(all_of), longest, *first.shape[1:]), padding_value, dtype=first.dtype, device=first.device
    )
    for i, sequence in enumerate(all_of):
        length = sequence.shape[0]
        start = 0 if padding_side == "right" else longest - length
        padded[i, start : start + length] = sequence
    return padded if batch_first else padded.transpose(0, 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """The sequences [L_i, *] of `padded_sequences` [T, N, *], or [N, T, *] with `batch_first`."""
    sequences = padded_sequences.unbind(0 if batch_first else 1)
    return [s[:length] for s, length in zip(sequences, lengths.tolist(), strict=True)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Packs sequences [L_i, *]; see `pack_padded_sequence`."""
    lengths = tensor([s.shape[0] for s in sequences], dtype=int64)
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences [L_i, *], in the order in which they were packed."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
