"""The training loop, its checkpoints that resume to the same bits, and what `opsin train` does with them."""

from opsin.train.batches import BatchPlan
from opsin.train.classifier import Classifier, Facts
from opsin.train.config import TrainConfig, defaults
from opsin.train.interrupt import Interrupted
from opsin.train.progress import EpochRow, Progress, console
from opsin.train.run import Result, saved_config, train_run
from opsin.train.trainer import Evaluation, Trainer

__all__ = [
    "BatchPlan", "Classifier", "EpochRow", "Evaluation", "Facts", "Interrupted", "Progress", "Result",
    "TrainConfig", "Trainer", "console", "defaults", "saved_config", "train_run",
]  # fmt: skip
