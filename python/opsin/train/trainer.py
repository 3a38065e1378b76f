"""The training loop: steps, evaluation, a checkpoint after each epoch and when it is interrupted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import opsin
from opsin import Tensor, nn
from opsin.optim import Optimizer
from opsin.optim.lr_scheduler import LRScheduler
from opsin.train import checkpoint
from opsin.train.batches import BatchPlan
from opsin.train.interrupt import Interrupted, InterruptFlag
from opsin.train.progress import EpochRow, Progress, Silent


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, accuracy (0 to 1) and probabilities `[N, classes]` over a whole set, in its order."""

    loss: float
    accuracy: float
    probabilities: NDArray[np.float32]


class Trainer:
    """Trains a classifier and can stop after any step and go on later, to the same bits.

    The whole state is: model, optimizer, scheduler, the engine's random state, and how many epochs and steps
    are done (from which the order and the random changes of the data follow, see `BatchPlan`).

    Args:
        train, test: the batches; the test part is only ever measured.
        scheduler: stepped after every batch.
        loss: `(logits [B, K], labels [B]) -> scalar`.
        checkpoint_path: replaced atomically after every epoch and when a signal stops the run.
        config: stored in the checkpoint, not looked at.
        on_epoch: called with all rows so far after each epoch's checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        train: BatchPlan,
        test: BatchPlan,
        *,
        loss: Callable[[Tensor, Tensor], Tensor],
        epochs: int,
        checkpoint_path: Path,
        config: dict[str, Any] | None = None,
        progress: Progress | None = None,
        on_epoch: Callable[[Sequence[EpochRow]], None] | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.train = train
        self.test = test
        self.loss = loss
        self.epochs = epochs
        self.checkpoint_path = checkpoint_path
        self.config = config or {}
        self.progress: Progress = progress if progress is not None else Silent()
        self.on_epoch = on_epoch
        self.rows: list[EpochRow] = []
        self._steps = 0
        self._loss_sum = 0.0
        self._correct = 0
        self._seen = 0
        self._seconds = 0.0

    def load(self, state: checkpoint.State) -> None:
        """Takes up the state of a checkpoint; all parts must be built as they were then.

        Raises:
            OSError: the state does not fit; a part of it may be loaded then.
        """
        try:
            self.model.load_state_dict(state.model)
            self.optimizer.load_state_dict(state.optimizer)
            self.scheduler.load_state_dict(state.scheduler)
            opsin.set_rng_state(state.rng)
            self.rows = [EpochRow(**row) for row in state.progress["rows"]]
            self._steps = int(state.progress["steps"])
            self._loss_sum = float(state.progress["loss_sum"])
            self._correct = int(state.progress["correct"])
            self._seen = int(state.progress["seen"])
            self._seconds = float(state.progress["seconds"])
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise OSError(
                "checkpoint: expected the state of this model and optimizer, "
                f"got {type(error).__name__}: {error} (was it written by another version, or damaged?)"
            ) from None

    def save(self) -> None:
        """Writes the whole state to `checkpoint_path`."""
        progress = {
            "rows": [asdict(row) for row in self.rows],
            "steps": self._steps,
            "loss_sum": self._loss_sum,
            "correct": self._correct,
            "seen": self._seen,
            "seconds": self._seconds,
        }
        checkpoint.save(
            self.checkpoint_path,
            checkpoint.State(
                model=self.model.state_dict(),
                optimizer=self.optimizer.state_dict(),
                scheduler=self.scheduler.state_dict(),
                rng=opsin.get_rng_state(),
                progress=progress,
                config=self.config,
            ),
        )

    def fit(self) -> list[EpochRow]:
        """Trains what is left of `epochs`; returns the rows of all of them.

        Raises:
            Interrupted: SIGINT or SIGTERM arrived; the state is saved.
            RuntimeError: the loss is no longer finite.
        """
        per_epoch = len(self.train)
        try:
            with InterruptFlag() as flag:
                self.progress.start(self.epochs * per_epoch, len(self.rows) * per_epoch + self._steps)
                while len(self.rows) < self.epochs:
                    self._train_epoch(flag)
                    self._close_epoch(flag)
        finally:
            self.progress.close()
        return self.rows

    def evaluate(self, flag: InterruptFlag | None = None) -> Evaluation:
        """Measures the model on the test part, without gradients, in evaluation mode."""
        self.model.eval()
        loss_sum, correct, seen = 0.0, 0, 0
        probabilities: list[NDArray[np.float32]] = []
        with opsin.no_grad():
            for images, labels in self.test.batches():
                self._stop_if(flag)
                logits = self.model(images)
                loss_sum += nn.functional.cross_entropy(logits, labels).item() * len(labels)
                correct += int((logits.argmax(1) == labels).sum().item())
                seen += len(labels)
                probabilities.append(nn.functional.softmax(logits, 1).numpy())
        return Evaluation(loss_sum / seen, correct / seen, np.concatenate(probabilities))

    def _train_epoch(self, flag: InterruptFlag) -> None:
        epoch = len(self.rows)
        self.model.train()
        started = time.perf_counter()
        for images, labels in self.train.batches(epoch, self._steps):
            logits = self.model(images)
            loss = self.loss(logits, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            value = loss.item()
            if not math.isfinite(value):
                raise RuntimeError(
                    f"train: expected a finite loss, got {value} in epoch {epoch + 1}, "
                    f"step {self._steps + 1} "
                    "(lower --lr; the checkpoint before it is kept)"
                )
            self._loss_sum += value * len(labels)
            self._correct += int((logits.argmax(1) == labels).sum().item())
            self._seen += len(labels)
            self._steps += 1
            self.progress.step(epoch + 1, value)
            if flag.signum is not None:
                self._seconds += time.perf_counter() - started
                self._stop_if(flag)
        self._seconds += time.perf_counter() - started

    def _close_epoch(self, flag: InterruptFlag) -> None:
        learning_rate = float(self.optimizer.param_groups[0]["lr"])
        result = self.evaluate(flag)
        row = EpochRow(
            epoch=len(self.rows) + 1,
            learning_rate=learning_rate,
            train_loss=self._loss_sum / self._seen,
            train_accuracy=self._correct / self._seen,
            test_loss=result.loss,
            test_accuracy=result.accuracy,
            seconds=round(self._seconds, 3),
        )
        self.rows.append(row)
        self._steps, self._loss_sum, self._correct, self._seen = 0, 0.0, 0, 0
        self.save()
        if self.on_epoch is not None:
            self.on_epoch(self.rows)
        self.progress.epoch(row, self.epochs)
        if len(self.rows) < self.epochs:
            self._stop_if(flag, saved=True)

    def _stop_if(self, flag: InterruptFlag | None, saved: bool = False) -> None:
        if flag is None or flag.signum is None:
            return
        if not saved:
            self.save()
        raise Interrupted(flag.signum)
