"""The caching allocator of a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import opsin
from tests import device

pytestmark = pytest.mark.device
cuda = opsin.cuda
MB = 1 << 20


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    cuda.synchronize()
    cuda.empty_cache()
    cuda.reset_peak_memory_stats()
    yield
    cuda.empty_cache()


def test_memory_in_use_is_counted() -> None:
    before = cuda.memory_allocated()
    x = opsin.empty(4 * MB, dtype=opsin.uint8, device="cuda")
    assert cuda.memory_allocated() == before + 4 * MB and cuda.memory_reserved() >= cuda.memory_allocated()
    y = opsin.empty(MB, dtype=opsin.float32, device="cuda")
    assert cuda.memory_allocated() == before + 8 * MB
    del x, y
    assert cuda.memory_allocated() == before and cuda.max_memory_allocated() >= before + 8 * MB
    cuda.reset_peak_memory_stats()
    assert cuda.max_memory_allocated() == before
    stats = cuda.memory_stats()
    assert stats["allocated_bytes.all.current"] == before and stats["num_ooms"] >= 0


def test_memory_is_used_again() -> None:
    x = opsin.empty(8 * MB, dtype=opsin.uint8, device="cuda")
    at, reserved = x.data_ptr(), cuda.memory_reserved()
    del x
    y = opsin.empty(8 * MB, dtype=opsin.uint8, device="cuda")
    assert y.data_ptr() == at and cuda.memory_reserved() == reserved
    del y
    cuda.empty_cache()
    assert cuda.memory_reserved() < reserved


def test_blocks_are_split_and_merged() -> None:
    whole = opsin.empty(40 * MB, dtype=opsin.uint8, device="cuda")
    reserved = cuda.memory_reserved()
    del whole
    parts = [opsin.empty(10 * MB, dtype=opsin.uint8, device="cuda") for _ in range(4)]
    assert cuda.memory_reserved() == reserved
    assert len({p.data_ptr() for p in parts}) == 4
    # Freed out of order, they are one block again.
    for at in (1, 3, 0, 2):
        parts[at] = opsin.empty(0, dtype=opsin.uint8, device="cuda")
    whole = opsin.empty(40 * MB, dtype=opsin.uint8, device="cuda")
    assert cuda.memory_reserved() == reserved
    del whole


def test_out_of_memory_reports_and_leaves_the_process_usable() -> None:
    x = opsin.ones(1000, device="cuda")
    with pytest.raises(MemoryError, match=r"(?is)out of memory.*this process uses"):
        opsin.empty(1 << 50, dtype=opsin.uint8, device="cuda")
    assert cuda.memory_stats()["num_ooms"] >= 1
    assert (x + 1).sum().item() == 2000


def test_a_limit_is_kept_and_cached_memory_given_back_first() -> None:
    total = cuda.mem_get_info()[1]
    limit = cuda.memory_reserved() + 64 * MB
    cuda.set_per_process_memory_fraction(limit / total)
    try:
        x = opsin.empty(40 * MB, dtype=opsin.uint8, device="cuda")
        with pytest.raises(MemoryError):
            opsin.empty(40 * MB, dtype=opsin.uint8, device="cuda")
        del x
        # 40 MB are cached in a block that is too small for this.
        y = opsin.empty(60 * MB, dtype=opsin.uint8, device="cuda")
        del y
    finally:
        cuda.set_per_process_memory_fraction(1.0)


def test_memory_of_another_stream_is_not_used_too_early() -> None:
    stream = cuda.Stream()
    with cuda.stream(stream):
        x = opsin.ones(MB, device="cuda")
        at = x.data_ptr()
        del x
    y = opsin.empty(MB, device="cuda")
    assert y.data_ptr() != at or device.EMULATED
    assert cuda.memory_summary().strip()


@pytest.mark.demand("A9")
def test_suppression_needs_memory_for_boxes_not_for_pairs() -> None:
    low = opsin.rand(20_000, 2, device="cuda") * 2000
    boxes = opsin.cat([low, low + 5], 1)
    scores = opsin.rand(20_000, device="cuda")
    cuda.synchronize()
    cuda.reset_peak_memory_stats()
    before = cuda.memory_allocated()
    opsin.ops.nms(boxes, scores, 0.5)
    # A matrix of bits would take 50 MB.
    assert cuda.max_memory_allocated() - before < 5e6
