"""A run that is stopped and resumed ends at the same bits as one that was not."""

from __future__ import annotations

import csv
import io
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import opsin
from opsin.train import EpochRow, Interrupted, TrainConfig, checkpoint, saved_config, train_run
from opsin.train.progress import Silent

# Dropout draws from the engine's generator, shifts from NumPy's: both states must come back.
CONFIG = TrainConfig(
    data="digits",
    model="small_cnn",
    epochs=3,
    batch_size=32,
    lr=0.05,
    shift=1,
    label_smoothing=0.1,
    limit=150,
    seed=7,
)
STEPS = 150 // 32


class StopAt(Silent):
    """Sends a signal to this very process at one step, or at the end of one epoch."""

    def __init__(
        self, step: int | None = None, epoch: int | None = None, signum: int = signal.SIGINT
    ) -> None:
        self._step, self._epoch, self._signum, self._done = step, epoch, signum, 0

    def start(self, total_steps: int, done_steps: int) -> None:
        assert total_steps == CONFIG.epochs * STEPS
        self._done = done_steps

    def step(self, epoch: int, loss: float) -> None:  # noqa: ARG002
        self._done += 1
        if self._done == self._step:
            signal.raise_signal(self._signum)

    def epoch(self, row: EpochRow, epochs: int) -> None:  # noqa: ARG002
        if row.epoch == self._epoch:
            signal.raise_signal(self._signum)


def outcome(out: Path) -> tuple[bytes, list[dict[str, str]]]:
    """The model file and the metrics without the time they took."""
    rows = list(csv.DictReader(io.StringIO((out / "metrics.csv").read_text())))
    for row in rows:
        del row["seconds"]
    return (out / "model.safetensors").read_bytes(), rows


@pytest.fixture(scope="module", params=["sgd", "adamw"])
def uninterrupted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainConfig, Path]:
    config = replace(CONFIG, optimizer=request.param, lr=0.05 if request.param == "sgd" else 0.01)
    out = tmp_path_factory.mktemp("whole") / "run"
    train_run(config, out)
    return config, out


@pytest.mark.parametrize(
    "stop",
    [
        {"step": 1},
        {"step": STEPS + 2},
        {"step": STEPS, "signum": signal.SIGTERM},  # the training part is done, the evaluation is not
        {"epoch": 2},
    ],
)
def test_resume_is_bit_for_bit(
    uninterrupted: tuple[TrainConfig, Path], tmp_path: Path, stop: dict[str, int]
) -> None:
    config, whole = uninterrupted
    with pytest.raises(Interrupted, match="train: stopped by SIG") as caught:
        train_run(config, tmp_path / "run", progress=StopAt(**stop))
    assert caught.value.signum == stop.get("signum", signal.SIGINT)
    assert saved_config(tmp_path / "run") == config
    # Whatever happened in between must not matter.
    opsin.manual_seed(99)
    result = train_run(config, tmp_path / "run", resume=True)
    assert len(result.rows) == config.epochs
    assert outcome(tmp_path / "run") == outcome(whole)


def test_resume_after_two_stops(uninterrupted: tuple[TrainConfig, Path], tmp_path: Path) -> None:
    config, whole = uninterrupted
    with pytest.raises(Interrupted):
        train_run(config, tmp_path / "run", progress=StopAt(step=2))
    with pytest.raises(Interrupted):
        train_run(config, tmp_path / "run", resume=True, progress=StopAt(step=STEPS + 3))
    train_run(config, tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(whole)


def test_resume_of_a_finished_run_changes_nothing(
    uninterrupted: tuple[TrainConfig, Path], tmp_path: Path
) -> None:
    config, whole = uninterrupted
    before = outcome(whole)
    result = train_run(config, whole, resume=True)
    assert outcome(whole) == before
    assert result.accuracy == result.evaluation.accuracy
    assert not list(tmp_path.iterdir())


def test_same_seed_same_bits_other_seed_other_bits(
    uninterrupted: tuple[TrainConfig, Path], tmp_path: Path
) -> None:
    config, whole = uninterrupted
    opsin.manual_seed(5)
    train_run(config, tmp_path / "again")
    assert outcome(tmp_path / "again") == outcome(whole)
    train_run(replace(config, seed=8), tmp_path / "other")
    assert outcome(tmp_path / "other") != outcome(whole)


def test_threads_change_no_bit(uninterrupted: tuple[TrainConfig, Path], tmp_path: Path) -> None:
    config, whole = uninterrupted
    before = opsin.get_num_threads()
    try:
        opsin.set_num_threads(1 if before > 1 else 2)
        train_run(config, tmp_path / "run")
    finally:
        opsin.set_num_threads(before)
    assert outcome(tmp_path / "run") == outcome(whole)


def test_an_existing_run_is_not_lost_by_accident(
    uninterrupted: tuple[TrainConfig, Path], tmp_path: Path
) -> None:
    config, whole = uninterrupted
    before = outcome(whole)
    with pytest.raises(
        FileExistsError, match=r"train: expected a folder without a run, got .* \(--resume continues"
    ):
        train_run(config, whole)
    # A mistake in the new configuration is found before the old run is touched.
    with pytest.raises(ValueError, match="data: expected a folder to read mnist from, got none"):
        train_run(replace(config, data="mnist"), whole, overwrite=True)
    assert outcome(whole) == before
    with pytest.raises(FileNotFoundError, match="checkpoint: expected a file, found none"):
        train_run(config, tmp_path / "no", resume=True)


def test_resume_with_other_data_is_refused(uninterrupted: tuple[TrainConfig, Path]) -> None:
    config, whole = uninterrupted
    with pytest.raises(ValueError, match="train: expected the data and configuration of the checkpoint"):
        train_run(replace(config, limit=140), whole, resume=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.model.popitem(),
        lambda state: state.optimizer["param_groups"].clear(),
        lambda state: state.progress.clear(),
        lambda state: state.progress.update(rows=[{"epoch": 1}]),
        lambda state: setattr(state, "rng", state.rng[:3]),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    uninterrupted: tuple[TrainConfig, Path], tmp_path: Path, damage: Callable[[checkpoint.State], object]
) -> None:
    config, whole = uninterrupted
    state = checkpoint.load(whole / "checkpoint.safetensors")
    damage(state)
    checkpoint.save(tmp_path / "checkpoint.safetensors", state)
    with pytest.raises(OSError, match="checkpoint: expected the state of this model and optimizer, got"):
        train_run(config, tmp_path, resume=True)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match=r"train: expected a finite loss, got (nan|inf) in epoch \d+, step \d+"
    ):
        train_run(replace(CONFIG, lr=1e5, weight_decay=1e5), tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_result_is_measured_on_the_test_part(uninterrupted: tuple[TrainConfig, Path]) -> None:
    config, whole = uninterrupted
    result = train_run(config, whole, resume=True)
    predicted = result.evaluation.probabilities.argmax(axis=1)
    assert result.accuracy == pytest.approx(float((predicted == result.test.labels).mean()))
    np.testing.assert_allclose(result.evaluation.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert result.seconds > 0


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_signal_handlers_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        train_run(CONFIG, tmp_path / "run", progress=StopAt(step=1))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
