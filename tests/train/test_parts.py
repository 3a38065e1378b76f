"""Batches, transforms, metrics, configuration, progress, interrupt flag, models."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import models
from opsin.data import ArraySource
from opsin.metrics import accuracy, confusion_matrix
from opsin.train import BatchPlan, EpochRow, TrainConfig, console, defaults
from opsin.train.interrupt import InterruptFlag
from opsin.train.progress import Bar, Lines
from opsin.transforms import Normalize, RandomHorizontalFlip, RandomShift


def source(count: int = 10, lazy: bool = False) -> ArraySource:
    images = np.arange(count * 16, dtype=np.uint8).reshape(count, 1, 4, 4)
    made = ArraySource(images, np.arange(count) % 3, ["a", "b", "c"])
    made.lazy = lazy  # pyright: ignore[reportAttributeAccessIssue]
    return made


def collect(plan: BatchPlan, epoch: int = 0, start: int = 0) -> list[tuple[np.ndarray, list[int]]]:
    return [(images.numpy(), labels.tolist()) for images, labels in plan.batches(epoch, start)]


@pytest.mark.parametrize("lazy", [False, True])
def test_batches_are_a_function_of_seed_epoch_and_number(lazy: bool) -> None:
    plan = BatchPlan(source(lazy=lazy), 3, Normalize([0.5], [0.5]), seed=4, transforms=[RandomShift(1)])
    whole = collect(plan, epoch=2)
    assert len(whole) == len(plan) == 3  # the tenth image has no batch
    for start in range(4):
        rest = collect(plan, epoch=2, start=start)
        assert len(rest) == 3 - start
        for (got, labels), (want, wanted) in zip(rest, whole[start:], strict=True):
            np.testing.assert_array_equal(got, want)
            assert labels == wanted
    assert any(not np.array_equal(a[0], b[0]) for a, b in zip(whole, collect(plan, epoch=3), strict=True))


def test_evaluation_batches_are_complete_and_in_order() -> None:
    plan = BatchPlan(source(), 4, Normalize([0.0], [1.0]))
    assert len(plan) == 3
    images = np.concatenate([batch for batch, _ in collect(plan)])
    np.testing.assert_allclose(images.ravel(), np.arange(160) / 255, atol=1e-6)
    assert len(BatchPlan(source(), 100, Normalize([0.0], [1.0]), seed=0)) == 1
    with pytest.raises(ValueError, match=r"BatchPlan: expected images .*, got 10 images, batch_size=0"):
        BatchPlan(source(), 0, Normalize([0.0], [1.0]))


def test_an_error_while_reading_ahead_arrives() -> None:
    class Broken(ArraySource):
        lazy = True

        def images(self, indices: Any) -> Any:
            if 7 in indices:
                raise OSError("image: expected a readable image, got none (damaged)")
            return super().images(indices)

    broken = Broken(np.zeros((10, 1, 2, 2), np.uint8), np.zeros(10, int), ["a"])
    with pytest.raises(OSError, match="expected a readable image"):
        collect(BatchPlan(broken, 2, Normalize([0.0], [1.0])))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("opsin-read")]


def test_random_shift() -> None:
    image = np.zeros((500, 1, 5, 5), dtype=np.uint8)
    image[:, :, 2, 2] = 9
    moved = RandomShift(1)(image, np.random.default_rng(0))
    assert moved.shape == image.shape
    assert (moved.reshape(500, -1).sum(axis=1) == 9).all()
    places = {divmod(int(place), 5) for place in moved.reshape(500, -1).argmax(axis=1)}
    assert places == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}
    corner = np.full((50, 1, 2, 2), 7, dtype=np.uint8)
    shifted = RandomShift(1)(corner, np.random.default_rng(0))
    assert set(np.unique(shifted)) == {0, 7}
    assert RandomShift(0)(image, np.random.default_rng(0)) is image
    with pytest.raises(ValueError, match="RandomShift: expected max_shift >= 0, got -1"):
        RandomShift(-1)


def test_random_flip_and_normalize() -> None:
    batch = np.arange(2 * 3 * 1 * 2, dtype=np.uint8).reshape(2, 3, 1, 2)
    np.testing.assert_array_equal(RandomHorizontalFlip(1)(batch, np.random.default_rng(0)), batch[..., ::-1])
    np.testing.assert_array_equal(RandomHorizontalFlip(0)(batch, np.random.default_rng(0)), batch)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 1.0]
    got = Normalize(mean, std)(batch)
    assert got.dtype == np.float32
    want = (batch / 255 - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    np.testing.assert_allclose(got, want, atol=1e-6)
    with pytest.raises(ValueError, match="RandomHorizontalFlip: expected 0 <= p <= 1, got 2"):
        RandomHorizontalFlip(2)
    with pytest.raises(ValueError, match="Normalize: expected one mean and one positive std per channel"):
        Normalize([0.0], [0.0])
    with pytest.raises(ValueError, match=r"Normalize: expected images \[B, 3, H, W\], got \[2, 1, 1, 2\]"):
        Normalize(mean, std)(batch[:, :1])


def test_metrics() -> None:
    predicted, labels = [0, 2, 1, 1, 2], [0, 2, 2, 1, 0]
    assert accuracy(predicted, labels) == 0.6
    assert accuracy(np.zeros(0, int), np.zeros(0, int)) == 0.0
    np.testing.assert_array_equal(
        confusion_matrix(opsin.tensor(predicted), opsin.tensor(labels), 3), [[1, 0, 1], [0, 1, 0], [0, 1, 1]]
    )
    with pytest.raises(ValueError, match=r"accuracy: expected .* one shape \[N\], got \[1\] and \[2\]"):
        accuracy([0], [0, 1])
    with pytest.raises(TypeError, match="accuracy: expected integer classes, got predicted of float64"):
        accuracy([0.5], [0])
    with pytest.raises(ValueError, match=r"confusion_matrix: expected classes in \[0, 2\), got 2 in labels"):
        confusion_matrix([0], [2], 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "imagenet"}, "expected data to be one of digits"),
        ({"model": "vgg"}, "expected model to be one of digits_resnet"),
        ({"optimizer": "sgdd"}, "expected optimizer to be one of sgd, adamw"),
        ({"epochs": 0}, "expected epochs to be an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, "expected batch_size to be an integer of at least 1, got 2.5"),
        ({"seed": -1}, "expected seed to be an integer from 0"),
        ({"lr": float("nan")}, "expected lr to be a number above 0, got nan"),
        ({"lr": "0.1"}, "expected lr to be a number above 0, got '0.1'"),
        ({"momentum": 1.0}, r"expected momentum to be a number in \[0, 1\), got 1.0"),
        ({"weight_decay": -1.0}, "expected weight_decay to be a number of at least 0"),
        ({"channels": 2}, "expected channels to be 1 or 3, got 2"),
        ({"shift": -1}, "expected shift to be an integer of at least 0"),
        ({"limit": 0}, "expected limit to be an integer of at least 1"),
    ],
)
def test_config_is_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^train: {message}"):
        replace(TrainConfig(), **change)


def test_config_round_trip_and_unknown_names() -> None:
    for name in ("digits", "mnist", "cifar10", "cifar100", "folder"):
        config = defaults(name)
        assert config.data == name
        assert TrainConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=r"train: expected config to be names of .*, got 'evil'"):
        TrainConfig.from_dict({"evil": 1})


ROW = EpochRow(3, 0.1, 0.51234, 0.87, 0.4, 0.912, 1.25)


def test_lines_for_a_pipe() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start(10, 0)
    lines.step(1, 0.5)
    lines.epoch(ROW, 20)
    lines.close()
    assert stream.getvalue() == (
        "epoch  3/20  train loss 0.5123  accuracy  87.0 %  test loss 0.4000  accuracy  91.2 %  1.2 s\n"
    )
    assert isinstance(console(io.StringIO()), Lines)


def test_bar_for_a_terminal() -> None:
    pytest.importorskip("tqdm")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    bar = console(stream)
    assert isinstance(bar, Bar)
    bar.start(4, 1)
    bar.epoch(ROW, 20)
    for _ in range(3):
        bar.step(4, 0.25)
    bar.close()
    shown = stream.getvalue()
    assert "epoch 4" in shown
    assert "4/4" in shown
    assert "loss 0.250, test 91.2 %" in shown


def test_a_signal_inside_a_long_call_is_seen_when_it_returns() -> None:
    matrix = opsin.ones(700, 700)
    with InterruptFlag() as flag:
        # Sent by another thread while the main thread is inside the engine.
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        deadline = time.monotonic() + 30
        while flag.signum is None and time.monotonic() < deadline:
            matrix = (matrix @ matrix).clamp(0, 1)
        timer.join()
    assert flag.signum == signal.SIGINT


def test_a_second_signal_acts_at_once() -> None:
    # A process that a shell started in the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with InterruptFlag() as flag:
            signal.raise_signal(signal.SIGINT)
            assert flag.signum == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_flag_works_outside_the_main_thread() -> None:
    seen: list[int | None] = []

    def work() -> None:
        with InterruptFlag() as flag:
            seen.append(flag.signum)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]


@pytest.mark.parametrize(
    ("name", "parameters"), [("digits_resnet", 77_290), ("small_resnet", 696_042), ("small_cnn", 24_058)]
)
def test_models(name: str, parameters: int) -> None:
    assert name in models.NAMES
    model = models.create(name, 3, 5).eval()
    with opsin.no_grad():
        assert tuple(model(opsin.zeros(2, 3, 9, 11)).shape) == (2, 5)
    stock = models.create(name, 1, 10)
    assert sum(parameter.numel() for parameter in stock.parameters()) == parameters


def test_bad_models() -> None:
    with pytest.raises(ValueError, match=r"models: expected one of digits_resnet, .*, got 'x'"):
        models.create("x", 1, 2)
    with pytest.raises(
        ValueError, match=r"SmallResNet: expected one block count per width, got widths=\(8,\)"
    ):
        models.SmallResNet(1, 2, widths=(8,), blocks=(1, 1))


@pytest.mark.feature("NM09")
def test_normalized_channels_have_mean_0_and_deviation_1() -> None:
    rng = np.random.default_rng(0)
    spread = np.array([1, 30, 60])[:, None, None]
    batch = (128 + spread * rng.standard_normal((16, 3, 8, 8))).clip(0, 255).astype(np.uint8)
    mean, std = (batch / 255).mean((0, 2, 3)), (batch / 255).std((0, 2, 3))
    got = Normalize(mean.tolist(), std.tolist())(batch)
    # In float32: the first channel's mean is 125 of its deviations.
    np.testing.assert_allclose(got.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(got.std((0, 2, 3)), 1, atol=1e-4)
