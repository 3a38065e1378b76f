"""How tensors print: like PyTorch's, so that examples and doctests carry over."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from opsin._C import Tensor

__all__ = ["set_printoptions", "tensor_repr"]


@dataclass
class _Options:
    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_options = _Options()
_PROFILES = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Sets how tensors print.

    Digits after the point (4), elements before summarising (1000), items kept at each end when summarising
    (3), characters per line (80), a `profile` 'default', 'short' or 'full', and scientific notation, where
    None chooses by the values.
    """
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(
                f"set_printoptions: profile must be 'default', 'short' or 'full', got {profile!r} "
                "(check the spelling)"
            )
        for name, value in _PROFILES[profile].items():
            setattr(_options, name, value)
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    for name, value in given.items():
        if value is not None:
            setattr(_options, name, value)
    _options.sci_mode = sci_mode


class _Formatter:
    """One format for all elements that are shown.

    Integers, fixed point or scientific, padded to equal width.
    """

    def __init__(self, values: list[Any], is_float: bool) -> None:
        self._is_float = is_float
        self._integral = True
        self._scientific = False
        self.width = 1
        if not is_float:
            self.width = max([1, *(len(str(value)) for value in values)])
            return
        seen = [value for value in values if math.isfinite(value) and value != 0]
        if not seen:
            return
        magnitudes = [abs(value) for value in seen]
        low, high = min(magnitudes), max(magnitudes)
        self._integral = all(value == math.ceil(value) for value in seen)
        wide_range = high / low > 1000.0 or high > 1e8
        self._scientific = wide_range or (not self._integral and low < 1e-4)
        if _options.sci_mode is not None:
            self._scientific = _options.sci_mode
        # An integral value is followed by a point, which the width counts even for inf and nan.
        extra = 1 if self._integral and not self._scientific else 0
        self.width = max(1, *(len(self._number(value)) + extra for value in seen))

    def _number(self, value: float) -> str:
        if self._scientific:
            return f"{value:.{_options.precision}e}"
        return f"{value:.0f}" if self._integral else f"{value:.{_options.precision}f}"

    def __call__(self, value: Any) -> str:
        text = self._number(value) if self._is_float else str(value)
        if self._is_float and self._integral and not self._scientific and math.isfinite(value):
            text += "."
        return text.rjust(self.width)


class _ComplexFormatter:
    def __init__(self, values: list[complex]) -> None:
        self._real = _Formatter([value.real for value in values], True)
        self._imag = _Formatter([value.imag for value in values], True)
        self.width = self._real.width + self._imag.width + 1

    def __call__(self, value: complex) -> str:
        imag = self._imag(value.imag).lstrip()
        sign = "" if imag.startswith("-") else "+"
        return f"{self._real(value.real)}{sign}{imag}j"


def _corners(tensor: Tensor) -> Tensor:
    """Only the elements that a summary shows: the first and last few along each dimension."""
    from opsin import cat

    keep = _options.edgeitems
    for dim in range(tensor.dim()):
        size = tensor.shape[dim]
        if size > 2 * keep:
            # On the CPU, where GPUs have no say in how their tensors print.
            tensor = cat(
                [tensor.narrow(dim, 0, keep).cpu(), tensor.narrow(dim, size - keep, keep).cpu()], dim
            )
    return tensor


def _flat(values: Any) -> list[Any]:
    if not isinstance(values, list):
        return [values]
    return [item for part in values for item in _flat(part)]


def _vector(values: list[Any], size: int, indent: int, format: Any) -> str:
    per_line = max(1, (_options.linewidth - indent) // (format.width + 2))
    texts = [format(value) for value in values]
    if size > len(values):
        texts.insert(_options.edgeitems, " ...")
    lines = [", ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _body(values: Any, shape: tuple[int, ...], indent: int, format: Any) -> str:
    if not shape:
        return format(values)
    if len(shape) == 1:
        return _vector(values, shape[0], indent, format)
    parts = [_body(value, shape[1:], indent + 1, format) for value in values]
    if shape[0] > len(values):
        parts.insert(_options.edgeitems, "...")
    return "[" + ("," + "\n" * (len(shape) - 1) + " " * (indent + 1)).join(parts) + "]"


def _suffixes(tensor: Tensor) -> list[str]:
    import opsin

    result = []
    if tensor.device.type != "cpu":
        result.append(f"device='{tensor.device}'")
    if tensor.numel() == 0 and tensor.dim() != 1:
        result.append(f"size={tuple(tensor.shape)}")
    default = opsin.get_default_dtype()
    implied = [default, opsin.complex128 if default == opsin.float64 else opsin.complex64]
    if tensor.numel():
        implied += [opsin.int64, opsin.bool]
    if tensor.dtype not in implied:
        result.append(f"dtype={tensor.dtype}")
    if tensor.grad_fn is not None:
        result.append(f"grad_fn=<{tensor.grad_fn.name()}>")
    elif tensor.requires_grad:
        result.append("requires_grad=True")
    return result


def tensor_repr(tensor: Tensor) -> str:
    """The text of `repr(tensor)`."""
    prefix = "tensor("
    indent = len(prefix)
    if tensor.numel() == 0:
        text = "[]"
    else:
        shown = tensor.detach()
        if tensor.numel() > _options.threshold:
            shown = _corners(shown)
        values = shown.tolist()
        flat = _flat(values)
        format = (
            _ComplexFormatter(flat) if tensor.is_complex() else _Formatter(flat, tensor.is_floating_point())
        )
        text = _body(values, tuple(tensor.shape), indent, format)
    text = prefix + text
    # A suffix that does not fit goes to a line of its own.
    used = len(text) - text.rfind("\n")
    for suffix in _suffixes(tensor):
        if used + len(suffix) + 2 > _options.linewidth:
            text += ",\n" + " " * indent + suffix
            used = indent + len(suffix)
        else:
            text += ", " + suffix
            used += len(suffix) + 2
    return text + ")"
