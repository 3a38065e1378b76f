"""`save` and `load`: checkpoints as safetensors files, which hold data only and never code.

A flat dict of tensors becomes a plain safetensors file that other tools read. Anything else (nested dicts,
lists and tuples with tensors, numbers, strings and None) keeps its structure as JSON in the file's metadata:

    null, true, 1, 2.5, "text"              themselves
    {"float": "nan"}                        a float that JSON lacks
    {"tensor": "model.weight"}              a tensor of the file
    {"dict": [[key, value], ...]}           a dict; keys are themselves values
    {"list": [...]}, {"tuple": [...]}       a list, a tuple
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import Any

from opsin._C import Tensor, _cuda, _load_safetensors, _save_safetensors
from opsin._C import device as _device

__all__ = ["load", "save"]

_STRUCTURE = "opsin.structure"
_SHARED = "opsin.shared"
_DEVICES = "opsin.devices"
_MAX_DEPTH = 100


def save(obj: Any, f: str | os.PathLike[str]) -> None:
    """Writes tensors, numbers, strings, booleans and None in nested dicts, lists and tuples to the file `f`.

    The file appears complete or not at all. Tensors come back detached; equal views of the same memory
    (tied weights) come back as one tensor. Anything else is a TypeError that names where it is.
    """
    path = _path_of("save", f)
    if _is_flat(obj):
        shared = {}
        first: dict[Any, str] = {}
        for name, tensor in obj.items():
            original = first.setdefault(_identity(tensor), name)
            if original != name:
                # Other tools need the data under each name; the note lets `load` tie them again.
                shared[name] = original
        metadata = {_SHARED: json.dumps(shared)} if shared else {}
        _write(path, dict(obj), metadata)
        return
    packer = _Packer()
    structure = packer.pack(obj, (), 0)
    _write(path, packer.tensors, {_STRUCTURE: json.dumps(structure, separators=(",", ":"))})


def _write(path: str, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    devices = {name: str(tensor.device) for name, tensor in tensors.items() if tensor.is_cuda}
    if devices:
        metadata[_DEVICES] = json.dumps(devices)
    _save_safetensors(path, {name: tensor.detach() for name, tensor in tensors.items()}, metadata)


def load(f: str | os.PathLike[str], map_location: Any = None, *, weights_only: bool = True) -> Any:  # noqa: ARG001
    """Reads what `save` wrote, or any safetensors file as a dict of tensors.

    Nothing in the file is ever executed, whatever `weights_only` says. Tensors return to the device that they
    were saved from, or to the CPU where there is no such device. `map_location` says otherwise: a device or
    its text; a dict from texts of devices to devices; or a function that is called with a tensor on the CPU
    and the text of its old device, and returns that tensor where it shall be, or None for the default.

    Raises:
        FileNotFoundError: no such file.
        OSError: the file cannot be read, is truncated or damaged, or holds something else.
    """
    path = _path_of("load", f)
    if not os.path.exists(path):  # noqa: PTH110
        raise FileNotFoundError(f"load: expected a file, found none at {path!r} (check the path)")
    tensors, metadata = _load_safetensors(path)
    tensors = _place(path, tensors, metadata, map_location)
    if _STRUCTURE in metadata:
        return _unpack(_json_of(path, metadata[_STRUCTURE]), tensors, path, 0)
    if _SHARED in metadata:
        shared = _json_of(path, metadata[_SHARED])
        if not isinstance(shared, dict):
            raise _damaged(path, "the list of shared tensors is not a dict")
        for name, original in shared.items():
            if not isinstance(original, str) or name not in tensors or original not in tensors:
                raise _damaged(path, f"shared tensor {name!r} or {original!r} is missing")
            tensors[name] = tensors[original]
    return tensors


def _place(
    path: str, tensors: dict[str, Tensor], metadata: dict[str, str], map_location: Any
) -> dict[str, Tensor]:
    """The tensors on the devices that they belong to."""
    devices = _json_of(path, metadata[_DEVICES]) if _DEVICES in metadata else {}
    if not isinstance(devices, dict) or not all(isinstance(place, str) for place in devices.values()):
        raise _damaged(path, "the list of devices is not a dict of strings")
    if map_location is None and not devices:
        return tensors
    return {
        name: _placed(tensor, devices.get(name, "cpu"), map_location, path)
        for name, tensor in tensors.items()
    }


def _placed(tensor: Tensor, location: str, map_location: Any, path: str) -> Tensor:
    target = map_location
    if isinstance(target, dict):
        target = target.get(location, target.get(location.split(":", maxsplit=1)[0]))
    elif callable(target):
        function: Callable[[Tensor, str], Any] = target
        result = function(tensor, location)
        if isinstance(result, Tensor):
            return result
        target = result
    if target is not None:
        return tensor.to(target)
    try:
        place = _device(location)
    except (RuntimeError, ValueError):
        raise _damaged(path, f"unknown device {location[:40]!r}") from None
    if place.type == "cuda" and (place.index or 0) >= _cuda.device_count():
        return tensor
    return tensor.to(place)


def _path_of(op: str, f: Any) -> str:
    try:
        path = os.fspath(f)
    except TypeError:
        raise TypeError(
            f"{op}: f must be a path, got {type(f).__name__} (pass a string or pathlib.Path)"
        ) from None
    return os.fsdecode(path)


def _is_flat(obj: Any) -> bool:
    return (
        isinstance(obj, dict)
        and bool(obj)
        and all(type(key) is str and isinstance(value, Tensor) for key, value in obj.items())
        and "__metadata__" not in obj
    )


def _identity(tensor: Tensor) -> Any:
    """Equal for tensors that show the same memory in the same way."""
    if tensor.numel() == 0:
        return id(tensor)
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, str(tensor.device)


class _Packer:
    """Turns an object into its structure, and gathers the tensors under readable names."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[Any, str] = {}

    def pack(self, value: Any, path: tuple[Any, ...], depth: int) -> Any:
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, Tensor):
            return {"tensor": self._name_of(value, path)}
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": repr(float(value))}
        if depth >= _MAX_DEPTH:
            raise ValueError(
                f"save: nesting must be at most {_MAX_DEPTH} deep, got more at {_show(path)} (flatten it)"
            )
        if isinstance(value, dict):
            return {"dict": [self._pack_item(key, item, path, depth) for key, item in value.items()]}
        kind = "tuple" if isinstance(value, tuple) else "list" if isinstance(value, list) else None
        if kind is None or hasattr(value, "_fields"):
            raise TypeError(
                "save: can only hold tensors, numbers, strings, booleans, None, dicts, lists and tuples, "
                "got "
                f"{type(value).__name__} at {_show(path)} (convert it)"
            )
        return {kind: [self.pack(item, (*path, i), depth + 1) for i, item in enumerate(value)]}

    def _pack_item(self, key: Any, value: Any, path: tuple[Any, ...], depth: int) -> list[Any]:
        if key is not None and not isinstance(key, (bool, str, int, float)):
            raise TypeError(
                f"save: a dict key must be a string, number, boolean or None, got {type(key).__name__} at "
                f"{_show(path)} (use a string)"
            )
        return [self.pack(key, path, depth), self.pack(value, (*path, key), depth + 1)]

    def _name_of(self, tensor: Tensor, path: tuple[Any, ...]) -> str:
        identity = _identity(tensor)
        name = self._names.get(identity)
        if name is None:
            base = ".".join(str(part) for part in path) or "tensor"
            name, count = base, 1
            while name in self.tensors or name == "__metadata__":
                count += 1
                name = f"{base}#{count}"
            self._names[identity] = name
            self.tensors[name] = tensor
        return name


def _show(path: tuple[Any, ...]) -> str:
    return "the top level" if not path else "obj" + "".join(f"[{part!r}]" for part in path)


def _json_of(path: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its metadata is not JSON: {error}") from None


def _damaged(path: str, reason: str) -> OSError:
    return OSError(
        f"load: the structure in the file must be what save wrote, got {path!r}: {reason} (save it anew)"
    )


def _unpack(node: Any, tensors: dict[str, Tensor], path: str, depth: int) -> Any:
    if node is None or isinstance(node, (bool, str, int, float)):
        return node
    if depth > _MAX_DEPTH:
        raise _damaged(path, f"it is nested more than {_MAX_DEPTH} deep")
    if not isinstance(node, dict) or len(node) != 1:
        raise _damaged(path, f"unknown entry {str(node)[:40]!r}")
    ((kind, value),) = node.items()
    if kind == "tensor" and isinstance(value, str):
        if value not in tensors:
            raise _damaged(path, f"tensor {value!r} is missing")
        return tensors[value]
    if kind == "float" and value in ("inf", "-inf", "nan"):
        return float(value)
    if kind in ("list", "tuple", "dict") and isinstance(value, list):
        if kind != "dict":
            items = [_unpack(item, tensors, path, depth + 1) for item in value]
            return tuple(items) if kind == "tuple" else items
        result = {}
        for pair in value:
            if not isinstance(pair, list) or len(pair) != 2:
                raise _damaged(path, "an entry of a dict is not a pair")
            key = _unpack(pair[0], tensors, path, depth + 1)
            if key is not None and not isinstance(key, (bool, str, int, float)):
                raise _damaged(path, "a key of a dict is not a string or number")
            result[key] = _unpack(pair[1], tensors, path, depth + 1)
        return result
    raise _damaged(path, f"unknown entry {kind[:40]!r}")
