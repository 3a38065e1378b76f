"""One training run from configuration to finished folder: what `opsin train` does."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

import opsin
from opsin import Tensor, nn, optim
from opsin.data import ImageSource, Subset, load_split
from opsin.train import checkpoint
from opsin.train.batches import BatchPlan
from opsin.train.classifier import FILE_NAME as MODEL_FILE
from opsin.train.classifier import Classifier, Facts
from opsin.train.config import TrainConfig
from opsin.train.files import write_atomic
from opsin.train.progress import EpochRow, Progress
from opsin.train.trainer import Evaluation, Trainer
from opsin.transforms import Normalize, RandomHorizontalFlip, RandomShift, Transform

CHECKPOINT_FILE = "checkpoint.safetensors"
METRICS_FILE = "metrics.csv"
PICTURES = ("curves.png", "confusion.png", "filters.png", "predictions.png")
_EVALUATION_BATCH = 256
_STATISTICS_IMAGES = 10_000
_MOMENTUM_SWING = 0.05


@dataclass(frozen=True)
class Result:
    """A finished run; `seconds` is the time spent in training steps."""

    config: TrainConfig
    rows: list[EpochRow]
    evaluation: Evaluation
    test: ImageSource
    classifier: Classifier
    seconds: float

    @property
    def accuracy(self) -> float:
        """Test accuracy of the last epoch, 0 to 1."""
        return self.rows[-1].test_accuracy


def load_data(config: TrainConfig) -> tuple[ImageSource, ImageSource]:
    """Train and test parts as the configuration names them."""
    train, test = load_split(
        config.data, config.root, seed=config.seed, image_size=config.image_size, channels=config.channels
    )
    if config.limit is not None:
        rng = np.random.default_rng([config.seed, 0x11417])
        train, test = (
            Subset(part, np.sort(rng.permutation(len(part))[: config.limit])) for part in (train, test)
        )  # fmt: skip
    return train, test


def measure(train: ImageSource, seed: int) -> Facts:
    """Classes, size, and mean and deviation per channel (of pixels on 0..1, at most 10,000 images)."""
    count = len(train)
    most = min(count, 512 if train.lazy else _STATISTICS_IMAGES)
    picked = np.sort(np.random.default_rng([seed, 0x57A7]).permutation(count)[:most])
    values = train.images(picked).transpose(1, 0, 2, 3).reshape(train.image_shape[0], -1)
    mean = [float(row.mean(dtype=np.float64)) / 255 for row in values]
    std = [float(row.std(dtype=np.float64)) / 255 for row in values]
    return Facts(
        train.classes, train.image_shape, tuple(mean), tuple(value if value > 0 else 1.0 for value in std)
    )


def build(
    config: TrainConfig,
    train: ImageSource,
    test: ImageSource,
    facts: Facts,
    checkpoint_path: Path,
    *,
    progress: Progress | None = None,
) -> tuple[Trainer, Classifier]:
    """Model, optimizer, schedule and batches, seeded and ready to `fit()`."""
    opsin.manual_seed(config.seed)
    classifier = Classifier(config.model, facts)
    model = classifier.model
    if config.optimizer == "sgd":
        optimizer: optim.Optimizer = optim.SGD(
            model.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
        )
    else:
        optimizer = optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    transforms: list[Transform] = []
    if config.shift:
        transforms.append(RandomShift(config.shift))
    if config.flip:
        transforms.append(RandomHorizontalFlip())
    normalize = Normalize(facts.mean, facts.std)
    train_plan = BatchPlan(train, config.batch_size, normalize, seed=config.seed, transforms=transforms)
    scheduler = optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=config.lr,
        total_steps=config.epochs * len(train_plan),
        pct_start=config.warmup,
        cycle_momentum=config.optimizer == "sgd" and config.momentum > 0,
        base_momentum=max(config.momentum - _MOMENTUM_SWING, 0.0),
        max_momentum=min(config.momentum + _MOMENTUM_SWING, 0.99),
    )

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)

    trainer = Trainer(
        model,
        optimizer,
        scheduler,
        train_plan,
        BatchPlan(test, _EVALUATION_BATCH, normalize),
        loss=loss,
        epochs=config.epochs,
        checkpoint_path=checkpoint_path,
        config={**config.to_dict(), "facts": _summary(train, test, facts)},
        progress=progress,
    )
    return trainer, classifier


def train_run(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Trains into the folder `out`: checkpoint.safetensors, model.safetensors, config.json and metrics.csv.

    With `resume`, `config` must be the one of the checkpoint (see `saved_config`).

    Raises:
        FileExistsError: `out` holds a run, and neither `resume` nor `overwrite` was asked for.
        Interrupted: a signal stopped the run; the state is saved.
    """
    path = out / CHECKPOINT_FILE
    if path.exists() and not (resume or overwrite):
        raise FileExistsError(
            f"train: expected a folder without a run, got {out} with {CHECKPOINT_FILE} "
            "(--resume continues it, --overwrite starts anew, --out chooses another folder)"
        )
    state = checkpoint.load(path) if resume else None
    train, test = load_data(config)
    facts = measure(train, config.seed)
    trainer, classifier = build(config, train, test, facts, path, progress=progress)
    if state is not None:
        if state.config != trainer.config:
            raise ValueError(
                f"train: expected the data and configuration of the checkpoint {state.config}, got "
                f"{trainer.config} "
                "(--resume needs the same files and options)"
            )
        trainer.load(state)
    else:
        out.mkdir(parents=True, exist_ok=True)
        # The checkpoint first: as long as it cannot be written, a run that was here before stays whole.
        trainer.save()
        for name in (MODEL_FILE, METRICS_FILE, *PICTURES):
            (out / name).unlink(missing_ok=True)
        write_atomic(out / "config.json", _config_json(config, trainer.config["facts"], classifier.model))

    def after_epoch(rows: Sequence[EpochRow]) -> None:
        write_atomic(out / METRICS_FILE, metrics_csv(rows))
        classifier.save(out / MODEL_FILE)

    trainer.on_epoch = after_epoch
    rows = trainer.fit()
    # Again at the end: a signal or a full disk may have come between the last checkpoint and these.
    after_epoch(rows)
    return Result(config, rows, trainer.evaluate(), test, classifier, rows[-1].seconds)


def saved_config(out: Path) -> TrainConfig:
    """The configuration of the run in `out`, from its checkpoint."""
    values = dict(checkpoint.load(out / CHECKPOINT_FILE).config)
    values.pop("facts", None)
    return TrainConfig.from_dict(values)


def metrics_csv(rows: Sequence[EpochRow]) -> bytes:
    """The rows with a header; floats so that they read back to the same bits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(EpochRow)])
    writer.writerows([astuple(row) for row in rows])
    return text.getvalue().encode()


def _summary(train: ImageSource, test: ImageSource, facts: Facts) -> dict[str, Any]:
    return {"train_images": len(train), "test_images": len(test), **facts.to_dict()}


def _config_json(config: TrainConfig, facts: dict[str, Any], model: nn.Module) -> bytes:
    document = {
        "config": asdict(config),
        "data": facts,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {
            "opsin": opsin.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "platform": platform.platform(),
        },
        "threads": opsin.get_num_threads(),
    }
    return (json.dumps(document, indent=2) + "\n").encode()
