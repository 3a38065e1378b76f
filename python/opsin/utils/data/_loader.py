"""`DataLoader`: batches in a repeatable order, fetched ahead by threads."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from opsin import tensor
from opsin._C import Tensor, _cuda
from opsin.utils.data._collate import default_collate
from opsin.utils.data.dataset import IterableDataset, Subset, TensorDataset
from opsin.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler

_END = object()


class WorkerInfo(NamedTuple):
    """Which of the DataLoader's threads is running."""

    id: int
    num_workers: int
    dataset: Any


class _Current(threading.local):
    info: WorkerInfo | None = None


_current = _Current()


def get_worker_info() -> WorkerInfo | None:
    """In a thread of a DataLoader which one it is, elsewhere None."""
    return _current.info


class DataLoader:
    """Iterates over a dataset in batches.

    The order comes from `sampler`, or is random with `shuffle`, by `generator` or the global seed; it
    does not depend on `num_workers`. With `num_workers` threads, `prefetch_factor` (2) batches per thread
    are fetched ahead; batches keep their order, an error in a thread is raised where its batch was
    expected, and leaving the loop stops the threads. A stream (IterableDataset) is read ahead by one
    thread whatever `num_workers` is.

    With `pin_memory`, and where there is a GPU, the tensors of a batch are put in page-locked memory, so that
    `batch.to("cuda", non_blocking=True)` doesn't wait; objects of other kinds may have a method of that name.

    Unlike PyTorch, workers are threads of this process: nothing is copied or pickled, random numbers that
    a dataset draws from a global generator come in no fixed order, and `persistent_workers`
    and `multiprocessing_context` change nothing.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check(
            isinstance(num_workers, int) and num_workers >= 0,
            "num_workers must be at least 0",
            num_workers,
            "0 fetches in the caller",
        )
        _check(timeout >= 0, "timeout must be at least 0 seconds", timeout, "0 waits for ever")
        if num_workers == 0:
            _check(
                prefetch_factor is None,
                "prefetch_factor needs num_workers",
                prefetch_factor,
                "set num_workers to 1 or more",
            )
            _check(
                not persistent_workers,
                "persistent_workers needs num_workers",
                True,
                "set num_workers to 1 or more",
            )
        elif prefetch_factor is not None:
            _check(
                prefetch_factor >= 1,
                "prefetch_factor must be at least 1",
                prefetch_factor,
                "the default is 2",
            )
        self._stream = isinstance(dataset, IterableDataset)
        if self._stream:
            _check(
                not shuffle,
                "a stream cannot be shuffled",
                f"shuffle={shuffle}",
                "shuffle where the stream is made",
            )
            for name, value in (("sampler", sampler), ("batch_sampler", batch_sampler)):
                _check(
                    value is None,
                    f"a stream has its own order and takes no {name}",
                    type(value).__name__,
                    "leave it out",
                )
        _check(
            sampler is None or not shuffle,
            "sampler and shuffle exclude each other",
            "both",
            "leave shuffle out",
        )
        if batch_sampler is not None:
            alone = batch_size == 1 and not shuffle and sampler is None and not drop_last
            rule = "batch_sampler excludes batch_size, shuffle, sampler and drop_last"
            _check(alone, rule, "one of them as well", "leave those out")
            batch_size = None
        elif batch_size is None:
            _check(not drop_last, "drop_last needs a batch_size", "batch_size=None", "leave drop_last out")
        if sampler is None and not self._stream:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        if batch_size is not None and self._stream:
            _check(batch_size > 0, "batch_size must be positive", batch_size, "pass 1 or more")
        elif batch_size is not None:
            assert sampler is not None
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)

        self.dataset = dataset
        self.batch_size = batch_size
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self._batched = batch_sampler is not None or batch_size is not None
        self.collate_fn = (
            collate_fn if collate_fn is not None else default_collate if self._batched else _keep
        )
        self.pin_memory = pin_memory
        self.drop_last = drop_last
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.generator = generator
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.persistent_workers = persistent_workers
        self.pin_memory_device = pin_memory_device
        self.in_order = in_order

    def __len__(self) -> int:
        if not self._stream:
            return len(self.batch_sampler if self._batched else self.sampler)  # type: ignore[arg-type]
        size = len(self.dataset)
        if self.batch_size is None:
            return size
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if self.num_workers:
            return self._prefetched()
        return self._stream_batches() if self._stream else map(self._fetcher(), self._indices())

    def _indices(self) -> Iterator[Any]:
        source = self.batch_sampler if self._batched else self.sampler
        assert source is not None
        return iter(source)

    def _stream_batches(self) -> Iterator[Any]:
        return map(_pin, self._collated_stream()) if self._pins() else self._collated_stream()

    def _collated_stream(self) -> Iterator[Any]:
        samples = iter(self.dataset)
        if not self._batched:
            yield from map(self.collate_fn, samples)
            return
        while batch := list(itertools.islice(samples, self.batch_size)):
            if self.drop_last and len(batch) < (self.batch_size or 0):
                return
            yield self.collate_fn(batch)

    def _pins(self) -> bool:
        return self.pin_memory and _cuda.is_available()

    def _fetcher(self) -> Callable[[Any], Any]:
        """The function from the sampler's output to a batch in the right memory."""
        fetch = self._collator()
        return (lambda index: _pin(fetch(index))) if self._pins() else fetch

    def _collator(self) -> Callable[[Any], Any]:
        """The function from the sampler's output to a batch."""
        dataset, collate = self.dataset, self.collate_fn
        if not self._batched:
            return lambda index: collate(dataset[index])
        if collate is default_collate:
            rows = _row_reader(dataset)
            if rows is not None:
                return rows
        many = getattr(dataset, "__getitems__", None)
        if many is not None:
            return lambda indices: collate(many(indices))
        return lambda indices: collate([dataset[index] for index in indices])

    def _prefetched(self) -> Iterator[Any]:
        # Imported here because it is slow to import and only needed here.
        from concurrent.futures import Future, ThreadPoolExecutor
        from concurrent.futures import TimeoutError as NotInTime

        threads = 1 if self._stream else self.num_workers
        numbers = itertools.count()

        def in_worker(function: Callable[..., Any], *args: Any) -> Any:
            if _current.info is None:
                _current.info = WorkerInfo(next(numbers), threads, self.dataset)
                if self.worker_init_fn is not None:
                    self.worker_init_fn(_current.info.id)
            return function(*args)

        pool = ThreadPoolExecutor(threads, "opsin-data")
        waiting: deque[Future[Any]] = deque()
        late = False
        if self._stream:
            batches = self._stream_batches()
            jobs: Iterator[Any] = itertools.repeat((next, batches, _END))
        else:
            # Indices are drawn here, in the caller's thread, so that their randomness has a fixed order.
            jobs = zip(itertools.repeat(self._fetcher()), self._indices(), strict=False)
        try:
            for job in itertools.islice(jobs, threads * (self.prefetch_factor or 2)):
                waiting.append(pool.submit(in_worker, *job))
            while waiting:
                future = waiting.popleft()
                try:
                    batch = future.result(self.timeout or None)
                except NotInTime:
                    if future.done():
                        raise  # the dataset's own error
                    late = True
                    raise RuntimeError(
                        f"DataLoader: a batch must arrive within timeout={self.timeout} seconds, got none "
                        "(raise the timeout)"
                    ) from None
                if batch is _END:
                    return
                for job in itertools.islice(jobs, 1):
                    waiting.append(pool.submit(in_worker, *job))
                yield batch
        finally:
            pool.shutdown(wait=not late, cancel_futures=True)


def _check(condition: bool, rule: str, value: Any, fix: str) -> None:
    if not condition:
        raise ValueError(f"DataLoader: {rule}, got {value} ({fix})")


def _keep(sample: Any) -> Any:
    return sample


def _pin(batch: Any) -> Any:
    """The same lists, tuples and dicts with their tensors in page-locked memory."""
    if isinstance(batch, Tensor):
        return batch if batch.is_cuda else batch.pin_memory()
    if isinstance(batch, Mapping):
        return {key: _pin(item) for key, item in batch.items()}
    if isinstance(batch, tuple):
        items = [_pin(item) for item in batch]
        return type(batch)(*items) if hasattr(batch, "_fields") else tuple(items)
    if isinstance(batch, list):
        return [_pin(item) for item in batch]
    if hasattr(batch, "pin_memory"):
        return batch.pin_memory()
    return batch


def _row_reader(dataset: Any) -> Callable[[list[int]], list[Tensor]] | None:
    """For a TensorDataset, or subsets of one: a function that gathers a whole batch per tensor at once."""
    subsets = []
    # Exact types: a subclass may have changed what a sample is.
    while type(dataset) is Subset:
        subsets.append(dataset.indices)
        dataset = dataset.dataset
    if type(dataset) is not TensorDataset:
        return None
    tensors = dataset.tensors
    size = len(dataset)

    def read(indices: list[int]) -> list[Tensor]:
        for mapping in subsets:
            indices = [mapping[i] for i in indices]
        index = tensor([i + size if i < 0 else i for i in indices])
        return [rows.index_select(0, index) for rows in tensors]

    return read
