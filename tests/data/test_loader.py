"""Samplers and the DataLoader: order, prefetch by threads, errors."""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import opsin
from opsin.utils import data
from tests.peer import torch


def seeded(seed: int = 1) -> Any:
    generator = opsin.Generator()
    generator.manual_seed(seed)
    return generator


class Slow(data.Dataset[Any]):
    """Sample i is i; some take longer, so that threads finish out of order."""

    def __init__(self, size: int, bad: int = -1) -> None:
        self.size = size
        self.bad = bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        if index == self.bad:
            raise KeyError(f"sample {index} is broken")
        time.sleep(0.002 * (index % 3 == 0))
        return index


class Stream(data.IterableDataset[int]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.size))

    def __len__(self) -> int:
        return self.size


def threads() -> int:
    return sum(thread.name.startswith("opsin-data") for thread in threading.enumerate())


def test_samplers() -> None:
    source = range(10)
    assert list(data.SequentialSampler(source)) == list(range(10))
    order = list(data.RandomSampler(source, generator=seeded()))
    assert sorted(order) == list(range(10))
    assert order != list(range(10))
    assert list(data.RandomSampler(source, generator=seeded())) == order
    assert list(data.RandomSampler(source, generator=seeded(2))) != order
    drawn = list(data.RandomSampler(source, replacement=True, num_samples=50, generator=seeded()))
    assert len(drawn) == 50
    assert set(drawn) <= set(range(10))
    many = list(data.RandomSampler(source, num_samples=25, generator=seeded()))
    assert max(Counter(many).values()) == 3
    assert len(many) == len(data.RandomSampler(source, num_samples=25)) == 25
    assert list(data.RandomSampler([])) == []
    picked = data.SubsetRandomSampler([3, 5, 8], seeded())
    assert sorted(picked) == [3, 5, 8]
    assert len(picked) == 3
    for size, drop in ((3, False), (3, True), (5, False), (20, True)):
        ours = data.BatchSampler(data.SequentialSampler(source), size, drop)
        theirs = torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(source), size, drop)
        assert list(ours) == list(theirs)
        assert len(ours) == len(theirs)


def test_weighted_sampler() -> None:
    counts = Counter(data.WeightedRandomSampler([0.0, 1.0, 3.0, 0.0], 4000, generator=seeded()))
    assert set(counts) == {1, 2}
    assert counts[2] / counts[1] == pytest.approx(3.0, rel=0.2)
    sampler = data.WeightedRandomSampler(
        opsin.tensor([1.0, 0.0, 9.0]), 2, replacement=False, generator=seeded()
    )
    assert len(sampler) == 2
    first = [next(iter(sampler)) for _ in range(300)]
    assert sorted(sampler) == [0, 2]
    assert first.count(2) / 300 == pytest.approx(0.9, abs=0.06)
    for weights, match in (
        ([], "weights must be a vector of numbers"),
        ([[1.0]], "weights must be a vector of numbers"),
        ([-1.0], "weights must be finite and not negative, got -1.0 at index 0"),
        ([0.0, 0.0], "needs at least 1 positive weights, got 0"),
    ):
        with pytest.raises(ValueError, match="WeightedRandomSampler: " + match):
            data.WeightedRandomSampler(weights, 1)
    with pytest.raises(ValueError, match="needs at least 2 positive weights, got 1"):
        data.WeightedRandomSampler([1.0, 0.0], 2, replacement=False)


def test_sampler_errors() -> None:
    with pytest.raises(TypeError, match="RandomSampler: replacement must be a boolean, got 1"):
        data.RandomSampler([1], 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="RandomSampler: num_samples must be a positive integer, got 0"):
        data.RandomSampler([1], num_samples=0)
    with pytest.raises(ValueError, match="BatchSampler: batch_size must be a positive integer, got 0"):
        data.BatchSampler([1], 0, False)
    with pytest.raises(TypeError, match="BatchSampler: drop_last must be a boolean, got None"):
        data.BatchSampler([1], 1, None)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="WeightedRandomSampler: num_samples must be a positive integer, got True"
    ):
        data.WeightedRandomSampler([1.0], True)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(("drop_last", "batch"), [(False, 4), (True, 4), (False, 1)])
def test_order_does_not_depend_on_workers(workers: int, drop_last: bool, batch: int) -> None:
    loader = data.DataLoader(Slow(10), batch, num_workers=workers, drop_last=drop_last)
    assert [b.tolist() for b in loader] == [
        b.tolist() for b in torch.utils.data.DataLoader(range(10), batch, drop_last=drop_last)
    ]
    assert len(loader) == len(list(loader))
    shuffled = [
        b.tolist()
        for b in data.DataLoader(
            Slow(10), batch, True, num_workers=workers, drop_last=drop_last, generator=seeded()
        )
    ]
    plain = data.DataLoader(Slow(10), batch, True, drop_last=drop_last, generator=seeded())
    assert shuffled == [b.tolist() for b in plain]
    assert shuffled != [b.tolist() for b in loader]


def test_global_seed_shuffles_repeatably() -> None:
    loader = data.DataLoader(range(20), 5, shuffle=True)
    opsin.manual_seed(4)
    first, second = [b.tolist() for b in loader], [b.tolist() for b in loader]
    opsin.manual_seed(4)
    assert [b.tolist() for b in loader] == first
    assert first != second


@pytest.mark.parametrize("workers", [0, 2])
def test_tensor_datasets_are_gathered_by_batch(workers: int) -> None:
    x, y = opsin.randn(20, 3), opsin.arange(20)
    dataset = data.TensorDataset(x, y)
    parts = data.random_split(dataset, [15, 5], seeded())
    for source, size in ((dataset, 20), (parts[0], 15), (data.Subset(parts[0], [4, 2, 0, -1]), 4)):
        seen = []
        for batch in data.DataLoader(source, 6, num_workers=workers):
            assert isinstance(batch, list)
            assert opsin.equal(batch[0], opsin.stack([x[i] for i in batch[1].tolist()]))
            seen += batch[1].tolist()
        assert seen == [source[i][1].item() for i in range(size)]

    class Doubled(data.TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            return tuple(t * 2 for t in super().__getitem__(index))

    first = next(iter(data.DataLoader(Doubled(y), 10, num_workers=workers)))
    assert first[0][:3].tolist() == [0, 2, 4]


@pytest.mark.parametrize("workers", [0, 2])
def test_streams(workers: int) -> None:
    def batches(**kwargs: Any) -> Any:
        return [b.tolist() for b in data.DataLoader(Stream(7), num_workers=workers, **kwargs)]

    assert batches(batch_size=3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert batches(batch_size=3, drop_last=True) == [[0, 1, 2], [3, 4, 5]]
    assert list(data.DataLoader(Stream(3), None, num_workers=workers)) == [0, 1, 2]
    assert [len(data.DataLoader(Stream(7), 3, drop_last=d)) for d in (False, True)] == [3, 2]
    assert len(data.DataLoader(Stream(7), None)) == 7


@pytest.mark.parametrize("workers", [0, 2])
def test_other_ways_to_batch(workers: int) -> None:
    loader = data.DataLoader(Slow(5), None, num_workers=workers)
    assert list(loader) == [0, 1, 2, 3, 4]
    assert len(loader) == 5
    own = data.DataLoader(Slow(5), batch_sampler=[[0, 4], [1]], num_workers=workers)
    assert [b.tolist() for b in own] == [[0, 4], [1]]
    assert [b.tolist() for b in data.DataLoader(Slow(5), 2, sampler=[3, 1, 0], num_workers=workers)] == [
        [3, 1],
        [0],
    ]
    assert list(data.DataLoader(Slow(4), 2, collate_fn=sum, num_workers=workers)) == [1, 5]

    class Whole(Slow):
        def __getitems__(self, indices: list[int]) -> list[int]:
            return [-i for i in indices]

    assert [b.tolist() for b in data.DataLoader(Whole(4), 2, num_workers=workers)] == [[0, -1], [-2, -3]]


@pytest.mark.parametrize("workers", [0, 3])
def test_errors_arrive_where_the_batch_was_due(workers: int) -> None:
    seen = []
    loader = data.DataLoader(Slow(20, bad=9), 4, num_workers=workers)
    with pytest.raises(KeyError, match="sample 9 is broken") as caught:
        seen.extend(batch.tolist() for batch in loader)
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert "__getitem__" in "".join(traceback.format_exception(caught.value))
    assert threads() == 0


def test_leaving_early_stops_the_threads() -> None:
    for _ in data.DataLoader(Slow(1000), 4, num_workers=3):
        break
    assert threads() == 0
    iterator = iter(data.DataLoader(Slow(1000), 4, num_workers=2, prefetch_factor=3))
    next(iterator)
    assert 1 <= threads() <= 2
    del iterator
    assert threads() == 0


def test_prefetch_runs_ahead_but_not_far() -> None:
    fetched: list[int] = []

    class Recorder(Slow):
        def __getitem__(self, index: int) -> int:
            fetched.append(index)
            return index

    iterator = iter(data.DataLoader(Recorder(100), 1, num_workers=2, prefetch_factor=2))
    next(iterator)
    deadline = time.monotonic() + 5
    while len(fetched) < 5 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert len(fetched) == 5


def test_workers_know_who_they_are() -> None:
    started: list[int] = []

    class Who(Slow):
        def __getitem__(self, index: int) -> Any:
            info = data.get_worker_info()
            assert info is not None
            assert info.dataset is self
            time.sleep(0.005)
            return info.id, info.num_workers

    loader = data.DataLoader(Who(8), None, num_workers=2, worker_init_fn=started.append)
    assert set(loader) <= {(0, 2), (1, 2)}
    assert sorted(started) == list(range(len(started)))
    assert data.get_worker_info() is None


def test_failing_worker_start_is_reported() -> None:
    def fail(_: int) -> None:
        raise OSError("cannot start")

    with pytest.raises(OSError, match="cannot start"):
        list(data.DataLoader(Slow(4), num_workers=1, worker_init_fn=fail))


def test_timeout() -> None:
    release = threading.Event()

    class Stuck(Slow):
        def __getitem__(self, index: int) -> int:
            release.wait(10)
            return index

    with pytest.raises(
        RuntimeError, match=r"DataLoader: a batch must arrive within timeout=0.05 seconds, got none"
    ):
        next(iter(data.DataLoader(Stuck(4), num_workers=1, timeout=0.05)))
    release.set()

    class Late(Slow):
        def __getitem__(self, index: int) -> int:
            raise TimeoutError("the dataset's own")

    with pytest.raises(TimeoutError, match="the dataset's own"):
        next(iter(data.DataLoader(Late(4), num_workers=1, timeout=5)))


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"num_workers": -1}, "num_workers must be at least 0, got -1"),
        ({"timeout": -1}, "timeout must be at least 0 seconds, got -1"),
        ({"prefetch_factor": 2}, "prefetch_factor needs num_workers, got 2"),
        ({"persistent_workers": True}, "persistent_workers needs num_workers"),
        ({"num_workers": 1, "prefetch_factor": 0}, "prefetch_factor must be at least 1, got 0"),
        ({"sampler": [1], "shuffle": True}, "sampler and shuffle exclude each other"),
        ({"batch_sampler": [[1]], "batch_size": 2}, "batch_sampler excludes batch_size, shuffle, sampler"),
        ({"batch_size": None, "drop_last": True}, "drop_last needs a batch_size"),
    ],
)
def test_loader_errors(kwargs: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match="DataLoader: " + match):
        data.DataLoader(Slow(4), **kwargs)


def test_stream_errors() -> None:
    with pytest.raises(ValueError, match="DataLoader: a stream cannot be shuffled, got shuffle=True"):
        data.DataLoader(Stream(4), shuffle=True)
    with pytest.raises(
        ValueError, match="DataLoader: a stream has its own order and takes no sampler, got list"
    ):
        data.DataLoader(Stream(4), sampler=[1])
    with pytest.raises(ValueError, match="DataLoader: batch_size must be positive, got 0"):
        data.DataLoader(Stream(4), 0)
