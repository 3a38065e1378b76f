"""The configuration of a run: what config.json and the checkpoint hold, what the command line sets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from opsin import data, models

OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the result of a run, apart from the machine."""

    data: str = "digits"
    root: str | None = None  # folder of the files; none for digits
    model: str = "small_resnet"
    epochs: int = 10
    batch_size: int = 64
    optimizer: str = "sgd"
    lr: float = 0.1  # peak of the one-cycle schedule
    momentum: float = 0.9  # middle of its cycle, SGD (Nesterov) alone
    weight_decay: float = 5e-4
    warmup: float = 0.3  # share of the steps before the peak
    label_smoothing: float = 0.0
    shift: int = 0  # random shifts of up to so many pixels
    flip: bool = False  # random mirroring
    image_size: int = 64  # side length, data=folder alone
    channels: int = 3  # 1 grey, 3 RGB, data=folder alone
    seed: int = 0
    limit: int | None = None  # at most so many images of either part, for a quick try

    def __post_init__(self) -> None:
        _require(self.data in data.NAMES, "data", f"one of {', '.join(data.NAMES)}", self.data)
        _require(self.model in models.NAMES, "model", f"one of {', '.join(models.NAMES)}", self.model)
        _require(self.optimizer in OPTIMIZERS, "optimizer", f"one of {', '.join(OPTIMIZERS)}", self.optimizer)
        for name in ("epochs", "batch_size", "image_size"):
            _require(_is_int(getattr(self, name), 1), name, "an integer of at least 1", getattr(self, name))
        _require(
            _is_int(self.seed, 0) and self.seed < 2**63, "seed", "an integer from 0 to 2^63 - 1", self.seed
        )
        _require(_is_int(self.shift, 0), "shift", "an integer of at least 0", self.shift)
        _require(
            self.limit is None or _is_int(self.limit, 1), "limit", "an integer of at least 1", self.limit
        )
        _require(self.channels in (1, 3), "channels", "1 or 3", self.channels)
        _require(_is_number(self.lr) and 0 < self.lr < 1e6, "lr", "a number above 0", self.lr)
        for name in ("momentum", "warmup", "label_smoothing"):
            value = getattr(self, name)
            _require(_is_number(value) and 0 <= value < 1, name, "a number in [0, 1)", value)
        _require(_is_number(self.weight_decay) and 0 <= self.weight_decay < 1e6, "weight_decay",
        "a number of at least 0",
                 self.weight_decay)  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`; unknown names are errors."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        _require(not unknown, "config", f"names of {', '.join(sorted(known))}", ", ".join(unknown))
        return cls(**values)


def _is_int(value: Any, low: int) -> bool:
    return type(value) is int and value >= low


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _require(condition: bool, name: str, rule: str, got: Any) -> None:
    if not condition:
        raise ValueError(f"train: expected {name} to be {rule}, got {got!r} (see `opsin train --help`)")


def defaults(name: str) -> TrainConfig:
    """The configuration `opsin train --data NAME` starts from."""
    if name == "digits":
        from opsin.recipes.digits import CONFIG

        return CONFIG
    if name == "mnist":
        return TrainConfig(data="mnist", epochs=5, batch_size=128, shift=2)
    if name in ("cifar10", "cifar100"):
        return TrainConfig(data=name, epochs=30, batch_size=128, shift=4, flip=True)
    return TrainConfig(data=name, epochs=30, batch_size=32, shift=4, flip=True)
