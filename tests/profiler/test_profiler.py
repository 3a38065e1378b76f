"""The profiler: what is recorded, how it nests, counted operations and bytes, tables and traces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import opsin
from opsin import nn
from opsin.nn import functional as F
from opsin.profiler import FunctionEvent, ProfilerActivity, profile, record_function


def names(events: list[FunctionEvent]) -> list[str]:
    return [event.name for event in events]


def only(prof: profile, name: str) -> FunctionEvent:
    (event,) = [event for event in prof.events() if event.name == name]
    return event


@pytest.mark.feature("HW13")
def test_flops_are_those_counted_by_hand() -> None:
    x, w, b = opsin.randn(2, 6, 9, 8), opsin.randn(4, 3, 3, 2), opsin.randn(4)
    rows, matrix = opsin.randn(5, 7, 6), opsin.randn(8, 6)
    with profile(with_flops=True) as prof:
        F.conv2d(x, w, b, stride=2, padding=1, groups=2)
        F.linear(rows, matrix)
        opsin.bmm(opsin.ones(3, 2, 4), opsin.ones(3, 4, 5))
        opsin.matmul(opsin.ones(7, 2, 4), opsin.ones(4, 5))
        F.conv1d(opsin.ones(1, 1, 5), opsin.ones(1, 1, 5))
    convolutions = [event.flops for event in prof.events() if event.name == "conv"]
    assert convolutions == [2 * (2 * 4 * 5 * 5) * (3 * 3 * 2), 2 * 5]
    assert only(prof, "linear").flops == 2 * (5 * 7) * 6 * 8
    assert [e.flops for e in prof.events() if e.name == "matmul"] == [2 * 3 * 2 * 4 * 5, 2 * (7 * 2) * 4 * 5]
    total = prof.events().total_average()
    assert (
        total.flops
        == sum(event.self_flops for event in prof.key_averages())
        == sum(convolutions) + 3360 + 240 + 560
    )


@pytest.mark.feature("HW13")
def test_flops_and_memory_of_a_training_step_by_layer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10))
    x = opsin.randn(4, 3, 8, 8)
    with profile(with_flops=True, profile_memory=True, with_modules=True) as prof:
        net(x).sum().backward()
    conv, linear = 2 * (4 * 8 * 64) * (3 * 9), 2 * 4 * 512 * 10
    assert only(prof, "nn.Module: Conv2d_0").flops == conv
    assert only(prof, "nn.Module: Linear_0").flops == linear
    assert only(prof, "nn.Module: Sequential_0").flops == conv + linear
    # The images need no gradient, so there is one product for the convolution and two for the linear layer.
    assert only(prof, "ConvBackward").flops == conv and only(prof, "ConvBackward").self_flops == 0
    assert only(prof, "LinearBackward").flops == 2 * linear
    assert only(prof, "nn.Module: Conv2d_0").cpu_memory_usage == 4 * 8 * 64 * 4
    assert "nn.Module: ReLU_0" in names(prof.events())
    with profile() as after:
        net(x)
    assert not any(name.startswith("nn.Module") for name in names(after.events()))


def test_backward_nodes_hold_their_ops() -> None:
    w = opsin.ones(2, 2, requires_grad=True)
    with profile(record_shapes=True) as prof:
        y = F.linear(opsin.ones(3, 2), w)
        y.sum().backward()
    node = only(prof, "LinearBackward")
    assert y.grad_fn is not None and y.grad_fn.name() == node.name and node.kind == "backward"
    matmul = only(prof, "matmul")
    assert matmul.kind == "cpu_op" and matmul.cpu_parent is node and matmul in node.cpu_children
    assert matmul.input_shapes == [[1, 2, 3], [1, 3, 2]]
    assert only(prof, "linear").input_shapes == [[3, 2], [2, 2], []]
    assert only(prof, "AccumulateGrad").cpu_parent is None
    assert node.time_range.start <= matmul.time_range.start <= matmul.time_range.end <= node.time_range.end
    assert node.self_cpu_time_total == pytest.approx(
        node.cpu_time_total - sum(child.cpu_time_total for child in node.cpu_children)
    )


def test_named_scopes_nest() -> None:
    x = opsin.ones(2)

    @record_function("decorated")
    def double(y: opsin.Tensor) -> opsin.Tensor:
        return y + y

    with profile() as prof:
        with record_function("outer"):
            with record_function("inner"):
                double(x)
            opsin.relu(x)
        opsin.neg(x)
    assert names(prof.events()) == ["outer", "inner", "decorated", "add", "relu", "neg"]
    parents = [event.cpu_parent.name if event.cpu_parent else None for event in prof.events()]
    assert parents == [None, "outer", "inner", "decorated", "outer", None]
    assert only(prof, "outer").is_user_annotation and not only(prof, "add").is_user_annotation


def test_exceptions_end_scopes_and_profiles() -> None:
    prof = profile()
    with pytest.raises(RuntimeError, match="cannot be multiplied"), prof, record_function("fails"):
        opsin.mm(opsin.neg(opsin.ones(2, 3)), opsin.ones(2, 3))
    assert only(prof, "neg").cpu_parent is only(prof, "fails")
    with profile() as after:
        opsin.neg(opsin.ones(()))
    assert only(after, "neg").cpu_parent is None


def test_every_thread_is_recorded() -> None:
    x = opsin.ones(2)

    def work() -> None:
        with record_function("work"):
            for _ in range(50):
                opsin.neg(x)

    threads = [threading.Thread(target=work) for _ in range(3)]
    with profile() as prof:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    scopes = [event for event in prof.events() if event.name == "work"]
    assert len({event.thread for event in scopes}) == 3
    for event in prof.events():
        assert event.name == "work" or (
            event.cpu_parent in scopes and event.thread == event.cpu_parent.thread
        )
    assert {(e.key, e.count) for e in prof.key_averages()} == {("work", 3), ("neg", 150)}


def test_memory_timeline() -> None:
    with profile(profile_memory=True) as prof:
        with record_function("kept"):
            kept = opsin.empty(1024)
        with record_function("dropped"):
            opsin.empty(4096)
        before = opsin.memory_stats()["allocated"]
        del kept
    assert only(prof, "kept").cpu_memory_usage == 4096
    assert only(prof, "dropped").cpu_memory_usage == 0
    timeline = prof.memory_timeline()
    assert [sample.change for sample in timeline] == [4096, 16384, -16384, -4096]
    assert timeline[1].allocated == timeline[0].allocated + 16384 == before + 16384
    assert [sample.time for sample in timeline] == sorted(sample.time for sample in timeline)
    with profile() as plain:
        opsin.empty(4096)
    assert plain.memory_timeline() == []


def check_trace(trace: dict[str, Any]) -> None:
    """The rules of the Trace Event Format for the events that a profile writes."""
    assert isinstance(trace["traceEvents"], list) and trace["displayTimeUnit"] in ("ms", "ns")
    ends: dict[int, list[float]] = {}
    for event in trace["traceEvents"]:
        assert (
            isinstance(event["name"], str) and isinstance(event["pid"], int) and isinstance(event["tid"], int)
        )
        assert isinstance(event["args"], dict)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name") and isinstance(event["args"]["name"], str)
            continue
        assert isinstance(event["ts"], (int, float)) and event["ts"] >= 0
        if event["ph"] == "C":
            assert all(isinstance(value, (int, float)) for value in event["args"].values())
            continue
        assert event["ph"] == "X" and event["dur"] >= 0 and isinstance(event["cat"], str)
        # Complete events of a thread nest: each ends before those do that were open when it began.
        stack = ends.setdefault(event["tid"], [])
        while stack and stack[-1] <= event["ts"]:
            stack.pop()
        end = event["ts"] + event["dur"]
        assert not stack or end <= stack[-1] + 1e-6
        stack.append(end)


def test_chrome_trace(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    with (
        profile(record_shapes=True, profile_memory=True, with_flops=True) as prof,
        record_function('a "quoted" é'),
    ):
        net(opsin.ones(4, 3)).sum().backward()
    path = tmp_path / "trace.json"
    path.write_text("old")
    prof.export_chrome_trace(path)
    assert list(tmp_path.iterdir()) == [path]
    trace = json.loads(path.read_bytes())
    check_trace(trace)
    complete = {event["name"]: event for event in trace["traceEvents"] if event["ph"] == "X"}
    assert {'a "quoted" é', "linear", "LinearBackward", "matmul"} <= set(complete)
    assert complete["linear"]["args"]["flops"] == 2 * 4 * 3 * 2
    assert complete["linear"]["args"]["Input Dims"] == [[4, 3], [2, 3], [2]]
    assert complete["LinearBackward"]["cat"] == "backward"
    counters = [event for event in trace["traceEvents"] if event["ph"] == "C"]
    assert len(counters) == len(prof.memory_timeline()) > 0
    with pytest.raises(OSError, match="expected to write"):
        prof.export_chrome_trace(tmp_path / "missing" / "trace.json")


def test_tables() -> None:
    x = opsin.ones(64, 64)
    with profile(record_shapes=True, with_flops=True, profile_memory=True) as prof:
        for _ in range(3):
            opsin.mm(x, x)
        opsin.relu(x)
        opsin.relu(opsin.ones(2))
    averages = prof.key_averages()
    table = averages.table(sort_by="flops", row_limit=1).splitlines()
    assert table[1].split()[0] == "Name" and table[3].split()[0] == "matmul"
    assert "GFLOP/s" in table[1] and f"{3 * 2 * 64**3 / 1e6:.3f}" in table[3] and "KB" in table[3]
    assert len(table) == 6 and table[-1].startswith("Self CPU time total: ")
    assert "Input Shapes" not in table[1]
    by_name = averages.table(sort_by="key", row_limit=-1)
    assert by_name.index("matmul") < by_name.index("relu")
    assert len(averages.table().splitlines()) == 5 + len(averages)
    relu = [e for e in prof.key_averages(group_by_input_shape=True) if e.key == "relu"]
    assert [e.input_shapes for e in relu] == [[[64, 64]], [[2]]] and [e.count for e in relu] == [1, 1]
    assert "[[64, 64]]" in prof.key_averages(group_by_input_shape=True).table()
    matmul = next(e for e in averages if e.key == "matmul")
    assert matmul.cpu_time == pytest.approx(matmul.cpu_time_total / 3)
    assert matmul.gflops == pytest.approx(3 * 2 * 64**3 / matmul.cpu_time_total / 1e3)
    assert averages.self_cpu_time_total == pytest.approx(prof.events().self_cpu_time_total)
    assert prof.events().total_average().count == len(prof.events())
    assert len(prof.events().table(row_limit=2).splitlines()) == 7
    assert profile_of_nothing().table().count("\n") == 4


def profile_of_nothing() -> Any:
    with profile() as prof:
        pass
    return prof.key_averages()


def test_recursion_counts_once() -> None:
    with profile(with_flops=True) as prof, record_function("same"), record_function("same"):
        opsin.mm(opsin.ones(2, 2), opsin.ones(2, 2))
    same = next(e for e in prof.key_averages() if e.key == "same")
    assert same.count == 2 and same.flops == 16
    assert same.cpu_time_total == prof.events()[0].cpu_time_total


def test_start_and_stop_may_be_called() -> None:
    prof = profile(activities=[ProfilerActivity.CPU])
    for count in (1, 2):
        prof.start()
        for _ in range(count):
            opsin.neg(opsin.ones(()))
        prof.stop()
        assert names(prof.events()).count("neg") == count
    assert opsin.autograd.profiler.profile is profile


def test_an_optimizer_step_is_an_event() -> None:
    parameter = nn.Parameter(opsin.ones(3))
    parameter.sum().backward()
    with profile() as prof:
        opsin.optim.SGD([parameter], lr=0.1).step()
        opsin.optim.Adam([parameter], lr=0.1).step()
    assert {"sgd", "adam"} <= set(names(prof.events()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_goes_on_without_the_profile() -> None:
    # In a process of its own: this one may have threads that a fork would lose.
    code = (
        "import os, opsin\nfrom opsin.profiler import profile\n"
        "with profile() as prof:\n    opsin.neg(opsin.ones(()))\n    pid = os.fork()\n"
        "    if pid == 0:\n        opsin.neg(opsin.ones(()))\n        profile().start()\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(pid, 0)[1] == 0\n"
        "assert [event.name for event in prof.events()].count('neg') == 1"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_errors() -> None:
    prof = profile()
    with pytest.raises(RuntimeError, match=r"stop\(\) of a profile that is not running"):
        prof.stop()
    for question in (prof.events, prof.key_averages, prof.memory_timeline):
        with pytest.raises(RuntimeError, match="there are no events yet"):
            question()
    with pytest.raises(RuntimeError, match="there are no events yet"):
        prof.export_chrome_trace("nowhere")
    with prof:
        with pytest.raises(RuntimeError, match="there are no events yet"):
            prof.events()
        with pytest.raises(RuntimeError, match=r"another profile is running \(one may run at a time"):
            profile(with_modules=True).start()
    assert nn.Module.__call__.__name__ == "__call__"
    with pytest.raises(ValueError, match=r"expected sort_by to be one of count.*got 'cuda_time'"):
        prof.key_averages().table(sort_by="cuda_time")
    with pytest.warns(UserWarning, match="CUDA is not available, only the CPU is profiled"):
        profile(activities=[ProfilerActivity.CUDA])
    with pytest.raises(TypeError, match="positional"):
        profile(True)  # pyright: ignore[reportCallIssue]
