"""Orders in which a DataLoader visits a dataset."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

from opsin import float64, rand, randint, randperm
from opsin._C import Tensor

__all__ = [
    "BatchSampler",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "SubsetRandomSampler",
    "WeightedRandomSampler",
]

T_co = TypeVar("T_co", covariant=True)


class Sampler(Generic[T_co]):
    """An order of indices (or of batches of them). Subclasses define `__iter__` and, as a rule, `__len__`."""

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__}: a Sampler must define __iter__")


class SequentialSampler(Sampler[int]):
    """0, 1, 2, ..."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


def _flag(sampler: str, name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{sampler}: {name} must be a boolean, got {value!r} (pass True or False)")
    return value


def _positive(sampler: str, name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{sampler}: {name} must be a positive integer, got {value!r} (pass 1 or more)")
    return value


class RandomSampler(Sampler[int]):
    """Every index once in random order, or `num_samples` indices with `replacement`.

    The order comes from `generator`, or from the global one that `opsin.manual_seed` seeds.
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Any = None,
    ) -> None:
        self.data_source = data_source
        self.replacement = _flag("RandomSampler", "replacement", replacement)
        self._num_samples = (
            None if num_samples is None else _positive("RandomSampler", "num_samples", num_samples)
        )
        self.generator = generator

    @property
    def num_samples(self) -> int:
        """How many indices one pass gives; the size of the dataset by default."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        size, wanted = len(self.data_source), self.num_samples
        if self.replacement:
            if wanted:
                yield from randint(0, size, (wanted,), generator=self.generator).tolist()
            return
        while wanted > 0 and size > 0:
            order = randperm(size, generator=self.generator).tolist()
            yield from order[:wanted]
            wanted -= size

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given indices, each once, in random order."""

    def __init__(self, indices: Sequence[int], generator: Any = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        for i in randperm(len(self.indices), generator=self.generator).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """`num_samples` indices, drawn with probabilities proportional to `weights`, which need not sum to 1."""

    def __init__(
        self,
        weights: Any,
        num_samples: int,
        replacement: bool = True,
        generator: Any = None,
    ) -> None:
        self.num_samples = _positive("WeightedRandomSampler", "num_samples", num_samples)
        self.replacement = _flag("WeightedRandomSampler", "replacement", replacement)
        values = weights.tolist() if isinstance(weights, Tensor) else list(weights)
        if not values or not all(isinstance(w, (int, float)) for w in values):
            raise ValueError(
                f"WeightedRandomSampler: weights must be a vector of numbers, got {weights!r} "
                "(one per sample)"
            )
        for i, weight in enumerate(values):
            if not 0 <= weight < math.inf:
                raise ValueError(
                    f"WeightedRandomSampler: weights must be finite and not negative, got {weight} at index "
                    f"{i} (use 0 or more)"
                )
        drawable = sum(weight > 0 for weight in values)
        if not drawable or (not replacement and drawable < num_samples):
            raise ValueError(
                f"WeightedRandomSampler: needs at least {1 if replacement else num_samples} positive "
                f"weights, got {drawable} "
                "(draw fewer, or with replacement)"
            )
        self.weights = values
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        if self.replacement:
            draws = rand(self.num_samples, dtype=float64, generator=self.generator).tolist()
            bounds = list(itertools.accumulate(self.weights))
            last = max(i for i, weight in enumerate(self.weights) if weight > 0)
            yield from (min(bisect_right(bounds, u * bounds[-1]), last) for u in draws)
            return
        # The largest u^(1/w) win: sampling without replacement in one pass (Efraimidis and Spirakis 2006).
        draws = rand(len(self.weights), dtype=float64, generator=self.generator).tolist()
        keys = [math.log1p(-u) / w if w > 0 else -math.inf for u, w in zip(draws, self.weights, strict=True)]
        yield from sorted(range(len(keys)), key=keys.__getitem__, reverse=True)[: self.num_samples]

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Joins the indices of another sampler to lists of `batch_size`.

    The last may be shorter, or is dropped.
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        self.sampler = sampler
        self.batch_size = _positive("BatchSampler", "batch_size", batch_size)
        self.drop_last = _flag("BatchSampler", "drop_last", drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        while batch := list(itertools.islice(indices, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_last:
                return
            yield batch

    def __len__(self) -> int:
        count = len(self.sampler)  # type: ignore[arg-type]
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
