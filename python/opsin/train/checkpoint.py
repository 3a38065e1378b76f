"""The resumable state of a training as one safetensors file.

Tensors are `model.<key>`, `optimizer.<parameter>.<name>` and `rng`; everything else is JSON in the file's
metadata under "opsin". Python writes floats to JSON so that they read back to the same bits. No code is
stored or run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import opsin
from opsin import _C, Tensor

FORMAT = 1


@dataclass
class State:
    """What a checkpoint holds; the dicts are those of `state_dict()` of model, optimizer and scheduler."""

    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    rng: Tensor
    progress: dict[str, Any]
    config: dict[str, Any]


def _fail(path: Path, rule: str, got: str) -> OSError:
    return OSError(f"checkpoint: {rule}, got {got} in {path} (was it written by `opsin train`, completely?)")


def save(path: Path, state: State) -> None:
    """Replaces `path` atomically: a full disk or a crash leaves the previous checkpoint.

    Raises:
        OSError: the file cannot be written.
        TypeError: an optimizer or scheduler state that is neither tensor nor JSON.
    """
    tensors = {f"model.{key}": tensor for key, tensor in state.model.items()}
    tensors["rng"] = state.rng
    values: dict[str, dict[str, Any]] = {}
    for index, entries in state.optimizer["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                values.setdefault(str(index), {})[name] = value
    document = {
        "format": FORMAT,
        "engine": opsin.__version__,
        "config": state.config,
        "progress": state.progress,
        "optimizer": {"values": values, "param_groups": state.optimizer["param_groups"]},
        "scheduler": state.scheduler,
    }
    try:
        text = json.dumps(document)
    except TypeError as error:
        raise TypeError(
            f"checkpoint: expected optimizer and scheduler states of tensors, numbers and text, got {error} "
            "(keep functions out of state_dict())"
        ) from None
    write_tensors(path, tensors, {"opsin": text})


def load(path: Path) -> State:
    """Reads what `save` wrote.

    Raises:
        FileNotFoundError: no such file.
        OSError: damaged, truncated, or not a checkpoint of `opsin train`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: expected a file, found none at {path} (was this run started?)")
    tensors, metadata = _C._load_safetensors(str(path))
    document = read_document(path, metadata, "opsin")
    if document.get("format") != FORMAT:
        raise _fail(path, f"expected checkpoint format {FORMAT}", repr(document.get("format")))
    parts: dict[str, Any] = {
        name: document.get(name) for name in ("optimizer", "progress", "config", "scheduler")
    }
    if not all(isinstance(part, dict) for part in parts.values()) or "rng" not in tensors:
        raise _fail(path, "expected optimizer, progress, config, scheduler and rng", f"{sorted(document)}")
    model: dict[str, Tensor] = {}
    entries: dict[int, dict[str, Any]] = {}
    try:
        for index, values in parts["optimizer"]["values"].items():
            entries[int(index)] = dict(values)
        for key, tensor in tensors.items():
            kind, _, rest = key.partition(".")
            if kind == "model":
                model[rest] = tensor
            elif kind == "optimizer":
                index, _, name = rest.partition(".")
                entries.setdefault(int(index), {})[name] = tensor
        groups = parts["optimizer"]["param_groups"]
        # JSON has no tuples; optimizers hold betas as one.
        for group in groups:
            group.update({name: tuple(value) for name, value in group.items() if name == "betas"})
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise _fail(path, "expected an optimizer state", f"{type(error).__name__}: {error}") from None
    return State(
        model=model,
        optimizer={"state": entries, "param_groups": groups},
        scheduler=parts["scheduler"],
        rng=tensors["rng"],
        progress=parts["progress"],
        config=parts["config"],
    )


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Replaces a safetensors file atomically; what was there stays when the disk is full."""
    try:
        _C._save_safetensors(str(path), tensors, metadata)
    except OSError as error:
        raise OSError(
            f"checkpoint: expected to write {path}, got '{error}' "
            "(free some space or choose another --out; what was there before is untouched)"
        ) from None


def read_document(path: Path, metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """The JSON object under `key` of a safetensors file's metadata."""
    text = metadata.get(key)
    if text is None:
        raise _fail(path, f"expected metadata {key!r}", f"{sorted(metadata)}")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _fail(path, f"expected JSON in metadata {key!r}", str(error)) from None
    if not isinstance(document, dict):
        raise _fail(path, f"expected a JSON object in metadata {key!r}", type(document).__name__)
    return document
