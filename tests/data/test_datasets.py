"""Datasets, splitting and collation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import opsin
from opsin.utils import data
from tests.peer import to_torch, torch


def rows(count: int) -> data.TensorDataset:
    return data.TensorDataset(opsin.arange(count * 2).reshape(count, 2), opsin.arange(count))


def test_tensor_dataset() -> None:
    dataset = rows(4)
    assert len(dataset) == 4
    x, y = dataset[2]
    assert x.tolist() == [4, 5]
    assert y.item() == 2
    with pytest.raises(ValueError, match="TensorDataset: needs at least one tensor, got none"):
        data.TensorDataset()
    with pytest.raises(TypeError, match="TensorDataset: expected tensors, got list at index 1"):
        data.TensorDataset(opsin.ones(2), [1, 2])  # type: ignore[arg-type]
    with pytest.raises(
        opsin.ShapeError, match=r"size mismatch between tensors, got \[3\] at index 1 and \[2\]"
    ):
        data.TensorDataset(opsin.ones(2), opsin.ones(3))


def test_concat_dataset() -> None:
    dataset = rows(2) + rows(3)
    assert isinstance(dataset, data.ConcatDataset)
    assert len(dataset) == 5
    assert dataset.cumulative_sizes == [2, 5]
    assert [dataset[i][1].item() for i in (0, 1, 2, 4, -1, -5)] == [0, 1, 0, 2, 2, 0]
    with pytest.raises(IndexError, match="ConcatDataset: index must be within 5 samples, got 5"):
        dataset[5]
    with pytest.raises(ValueError, match="ConcatDataset: needs at least one dataset, got none"):
        data.ConcatDataset([])
    with pytest.raises(
        TypeError, match="ConcatDataset: needs datasets with an index, got an IterableDataset at index 0"
    ):
        data.ConcatDataset([data.IterableDataset()])


def test_subset() -> None:
    part = data.Subset(rows(6), [5, 1, 3])
    assert len(part) == 3
    assert part[0][1].item() == 5
    assert part[[1, 2]][1].tolist() == [1, 3]
    assert [y.item() for _, y in part.__getitems__([2, 0])] == [3, 5]
    nested = data.Subset(part, [2])
    assert [y.item() for _, y in nested.__getitems__([0])] == [3]


def test_random_split() -> None:
    def split(lengths: Any, seed: int = 1) -> list[list[int]]:
        generator = opsin.Generator()
        generator.manual_seed(seed)
        return [list(part.indices) for part in data.random_split(rows(10), lengths, generator)]

    parts = split([7, 3])
    assert [len(part) for part in parts] == [7, 3]
    assert sorted(i for part in parts for i in part) == list(range(10))
    assert split([7, 3]) == parts
    assert split([7, 3], seed=2) != parts
    peer = torch.utils.data.random_split(range(10), [0.33, 0.33, 0.34])
    assert [len(part) for part in split([0.33, 0.33, 0.34])] == [len(part) for part in peer]
    with pytest.raises(
        ValueError, match="random_split: the lengths must sum to the size of the dataset, got 9 for 10"
    ):
        split([7, 2])
    with pytest.raises(
        ValueError, match=r"random_split: a fraction must be between 0 and 1, got -0.5 at index 0"
    ):
        split([-0.5, 1.5])


def test_bases_need_their_methods() -> None:
    with pytest.raises(NotImplementedError, match="Dataset: a Dataset must define __getitem__"):
        data.Dataset()[0]
    with pytest.raises(NotImplementedError, match="IterableDataset: an IterableDataset must define __iter__"):
        iter(data.IterableDataset())
    with pytest.raises(NotImplementedError, match="Sampler: a Sampler must define __iter__"):
        iter(data.Sampler())


class Point(NamedTuple):
    x: Any
    y: Any


class Names(dict[str, Any]):
    pass


class Odd(list[Any]):
    def __init__(self) -> None:
        super().__init__()


def same(got: Any, want: Any) -> None:
    if isinstance(want, torch.Tensor):
        assert torch.equal(to_torch(got), want)
        assert to_torch(got).dtype == want.dtype
    elif isinstance(want, dict):
        assert type(got) is type(want)
        assert list(got) == list(want)
        for key in want:
            same(got[key], want[key])
    elif isinstance(want, (list, tuple)):
        assert type(got) is type(want)
        for a, b in zip(got, want, strict=True):
            same(a, b)
    else:
        assert got == want


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2, 3],
        [1.5, 2.0],
        [True, False],
        ["a", "b"],
        [b"a", b"b"],
        [(1, 2.0), (3, 4.0)],
        [[1, 2], [3, 4]],
        [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
        [Names(a=1), Names(a=2)],
        [Point(1, 2.0), Point(3, 4.0)],
        [np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)],
        [np.float64(1.0), np.float64(2.0)],
        [np.int32(1), np.int32(2)],
        [{"a": [np.ones(2), (1, "s")]}] * 2,
    ],
)
def test_collation_matches(batch: list[Any]) -> None:
    same(data.default_collate(batch), torch.utils.data.default_collate(batch))


def test_collation_of_tensors_and_odd_containers() -> None:
    assert data.default_collate([opsin.ones(2), opsin.zeros(2)]).tolist() == [[1.0, 1.0], [0.0, 0.0]]
    odd = Odd()
    odd.append(1)
    assert data.default_collate([odd, odd])[0].tolist() == [1, 1]
    with pytest.raises(
        TypeError, match=r"default_collate: batch must contain tensors, numpy arrays, .* got set"
    ):
        data.default_collate([{1}, {2}])
    with pytest.raises(TypeError, match="default_collate: arrays must hold numbers, got dtype <U1"):
        data.default_collate([np.array(["a"]), np.array(["b"])])
    with pytest.raises(
        RuntimeError, match="each element in list of batch should be of equal size, got sizes"
    ):
        data.default_collate([[1, 2], [3]])
