"""Recurrent layers and cells."""

from __future__ import annotations

import math
import warnings
from typing import Any

from opsin import (
    empty,
    gru,
    gru_cell,
    lstm,
    lstm_cell,
    rnn_relu,
    rnn_relu_cell,
    rnn_tanh,
    rnn_tanh_cell,
    zeros,
)
from opsin._C import ShapeError, Tensor
from opsin.nn import init
from opsin.nn._checks import choice, integer, probability
from opsin.nn._packed import PackedSequence, permuted
from opsin.nn.module import Module
from opsin.nn.parameter import Parameter

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
_LAYERS: dict[str, Any] = {"LSTM": lstm, "GRU": gru, "RNN_TANH": rnn_tanh, "RNN_RELU": rnn_relu}
_CELLS: dict[str, Any] = {"tanh": rnn_tanh_cell, "relu": rnn_relu_cell}


class RNNBase(Module):
    """What `RNN`, `LSTM` and `GRU` share; `mode` is 'RNN_TANH', 'RNN_RELU', 'LSTM' or 'GRU'.

    With G gates (4 of LSTM, 3 of GRU, else 1) and D = 2 directions if `bidirectional`, else 1, layer k has
    `weight_ih_lk` [G hidden_size, input_size], D hidden_size instead of input_size above layer 0,
    `weight_hh_lk` [G hidden_size, hidden_size] and with `bias` `bias_ih_lk` and `bias_hh_lk` [G hidden_size];
    those of the other direction end in `_reverse`. All are uniform in +-1/sqrt(hidden_size) at first.

    Takes `input` [T, N, input_size], [N, T, input_size] with `batch_first`, [T, input_size] without a batch,
    or a `PackedSequence`, and `hx`, the first states [num_layers D, N, hidden_size], zeros by default.
    Returns what the last layer says at every step, [T, N, D hidden_size] in the form of the input, and the
    last states. `dropout` is the share of what one layer hands to the next that is zeroed in training.
    """

    mode: str
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        self.mode = choice(layer, "mode", mode, tuple(_GATES))
        self.input_size = integer(layer, "input_size", input_size, 0)
        self.hidden_size = integer(layer, "hidden_size", hidden_size, 1)
        self.num_layers = integer(layer, "num_layers", num_layers, 1)
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(probability(layer, "dropout", dropout))
        self.bidirectional = bidirectional
        self.proj_size = integer(layer, "proj_size", proj_size, 0)
        if self.proj_size >= self.hidden_size:
            raise ValueError(
                f"{layer}: proj_size must be smaller than hidden_size, got {proj_size} and {hidden_size} "
                "(0 projects nothing)"
            )
        if self.proj_size and mode != "LSTM":
            raise ValueError(
                f"{layer}: proj_size is for LSTM only, got {proj_size} for {mode} (leave it out)"
            )
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=2,
            )
        self._names: list[tuple[str, ...]] = []
        gates = _GATES[mode] * self.hidden_size
        outputs = self.proj_size or self.hidden_size
        directions = 2 if bidirectional else 1
        for k in range(self.num_layers):
            inputs = directions * outputs if k else self.input_size
            shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, inputs), "weight_hh": (gates, outputs)}
            if bias:
                shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
            if self.proj_size:
                shapes["weight_hr"] = (outputs, self.hidden_size)
            for suffix in ("", "_reverse")[:directions]:
                self._names.append(tuple(f"{name}_l{k}{suffix}" for name in shapes))
                for name, shape in zip(self._names[-1], shapes.values(), strict=True):
                    self.register_parameter(name, Parameter(empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._names]

    def flatten_parameters(self) -> None:
        """Nothing to do: kernels take parameters where they are."""

    def _start(self, input: Tensor, batch: int | None, size: int) -> Tensor:
        """A state of zeros; a `batch` of None is none."""
        count = len(self._names)
        sizes = (count, size) if batch is None else (count, batch, size)
        return zeros(*sizes, dtype=input.dtype, device=input.device)

    def _check_input(self, input: Tensor, ranks: tuple[int, ...]) -> None:
        layer = type(self).__name__
        if input.dim() not in ranks:
            allowed = " or ".join(f"{rank}D" for rank in ranks)
            raise ValueError(f"{layer}: Expected input to be {allowed}, got {input.dim()}D instead")
        if input.shape[-1] != self.input_size:
            raise ShapeError(
                f"{layer}: input.size(-1) must be equal to input_size. Expected {self.input_size}, "
                f"got {input.shape[-1]} (input {list(input.shape)})"
            )

    def _check_states(self, states: tuple[Tensor, ...], batch: int | None) -> None:
        layer, count = type(self).__name__, len(self._names)
        for i, state in enumerate(states):
            size = self.hidden_size if i else self.proj_size or self.hidden_size
            expected = [count, size] if batch is None else [count, batch, size]
            if list(state.shape) != expected:
                what = (
                    "Expected hidden[0] size" if len(states) == 2 else "Expected hidden size",
                    "Expected hidden[1] size",
                )[i]
                raise ShapeError(
                    f"{layer}: {what} {expected}, got {list(state.shape)} "
                    "(num_layers times directions, batch unless the input has none, hidden size)"
                )

    def _run(self, input: Tensor | PackedSequence, hx: tuple[Tensor, ...] | None) -> tuple[Any, ...]:
        """(output, states...)."""
        packed = input if isinstance(input, PackedSequence) else None
        x: Tensor = input if packed is None else packed.data  # type: ignore[assignment]
        self._check_input(x, (2, 3) if packed is None else (2,))
        if packed is not None:
            batch: int | None = int(packed.batch_sizes[0])
        else:
            batch = x.shape[0 if self.batch_first else 1] if x.dim() == 3 else None
        is_lstm = self.mode == "LSTM"
        if hx is None:
            states = (self._start(x, batch, self.proj_size or self.hidden_size),)
            if is_lstm:
                states += (self._start(x, batch, self.hidden_size),)
        else:
            self._check_states(hx, batch)
            states = hx if packed is None else tuple(permuted(s, packed.sorted_indices) for s in hx)
        parameters: dict[str, Any] = self._parameters  # type: ignore[assignment]
        names = [name for group in self._names for name in group]
        try:
            weights = [parameters[name] for name in names]
        except KeyError:
            # One of them was replaced by a plain tensor or a property, as re-parametrisation does.
            weights = [getattr(self, name) for name in names]
        settings = (self.bias, self.num_layers, self.dropout, self.training, self.bidirectional)
        run = _LAYERS[self.mode]
        first = list(states) if is_lstm else states[0]
        if packed is None:
            return tuple(run(x, first, weights, *settings, self.batch_first))
        y, *last = run(x, packed.batch_sizes, first, weights, *settings)
        output = PackedSequence(y, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        return (output, *(permuted(s, packed.unsorted_indices) for s in last))

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        defaults = {
            "proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0,
            "bidirectional": False,
        }  # fmt: skip
        parts += [f"{n}={getattr(self, n)}" for n, default in defaults.items() if getattr(self, n) != default]
        return ", ".join(parts)


class RNN(RNNBase):
    """h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), or relu with `nonlinearity='relu'`.

    `RNNBase` says what it takes and holds; returns (output, h_n). Source: J. L. Elman, "Finding structure in
    time" (1990).
    """

    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        choice("RNN", "nonlinearity", nonlinearity, ("tanh", "relu"))
        super().__init__(
            f"RNN_{nonlinearity.upper()}",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        output, h = self._run(input, None if hx is None else (hx,))
        return output, h


class LSTM(RNNBase):
    """Long short-term memory: c_t = f c_(t-1) + i g, h_t = o tanh(c_t).

    i, f, o = sigmoid(.) and g = tanh(.) of W_ih x_t + b_ih + W_hh h_(t-1) + b_hh, whose rows are in this
    order: i, f, g, o. `RNNBase` says what it takes and holds. `hx` is (h_0, c_0) and the result (output,
    (h_n, c_n)). With `proj_size`, h_t = W_hr (o tanh(c_t)) has that size instead of hidden_size in all
    results, states h and weights, and `weight_hr_lk` is [proj_size, hidden_size]. Sources: S. Hochreiter and
    J. Schmidhuber, "Long short-term memory" (1997); H. Sak et al., "Long short-term memory based recurrent
    neural network architectures" (2014).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )

    def forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        output, h, c = self._run(input, None if hx is None else _pair("LSTM", hx))
        return output, (h, c)


class GRU(RNNBase):
    """Gated recurrent unit: h_t = (1 - z) n + z h_(t-1).

    r, z = sigmoid(a + b) and n = tanh(a + r b) for the parts r, z, n, in this order, of a = W_ih x_t + b_ih
    and b = W_hh h_(t-1) + b_hh. `RNNBase` says what it takes and holds; returns (output, h_n). Source: K. Cho
    et al., "Learning phrase representations using RNN encoder-decoder" (2014), with the reset gate after the
    product.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "GRU",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        output, h = self._run(input, None if hx is None else (hx,))
        return output, h


def _pair(layer: str, hx: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        raise TypeError(
            f"{layer}: hx must be the two tensors (h, c), got {type(hx).__name__} (pass both states)"
        )
    h, c = hx
    return h, c


class RNNCellBase(Module):
    """What the cells share: one step for `input` [N, input_size], or [input_size] without a batch.

    Parameters: `weight_ih` [G hidden_size, input_size], `weight_hh` [G hidden_size, hidden_size] and with
    `bias` `bias_ih` and `bias_hh` [G hidden_size] for G = `num_chunks` gates, uniform in
    +-1/sqrt(hidden_size) at first. States are zeros where none are given.
    """

    input_size: int
    hidden_size: int
    bias: bool
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        self.input_size = integer(layer, "input_size", input_size, 0)
        self.hidden_size = integer(layer, "hidden_size", hidden_size, 1)
        self.bias = bias
        gates = num_chunks * self.hidden_size
        make = lambda *shape: Parameter(empty(shape, device=device, dtype=dtype))  # noqa: E731
        self.weight_ih = make(gates, self.input_size)
        self.weight_hh = make(gates, self.hidden_size)
        if bias:
            self.bias_ih = make(gates)
            self.bias_hh = make(gates)
        else:
            self.register_parameter("bias_ih", None)
            self.register_parameter("bias_hh", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _weights(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def _states(self, input: Tensor, given: tuple[Tensor, ...] | None, count: int) -> tuple[Tensor, ...]:
        layer = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{layer}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        if given is None:
            sizes = (*input.shape[:-1], self.hidden_size)
            return (zeros(*sizes, dtype=input.dtype, device=input.device),) * count
        for state in given:
            if state.dim() not in (1, 2):
                raise ValueError(f"{layer}: Expected hidden to be 1D or 2D, got {state.dim()}D instead")
        return given

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        if self.bias is not True:
            parts.append(f"bias={self.bias}")
        nonlinearity = getattr(self, "nonlinearity", "tanh")
        if nonlinearity != "tanh":
            parts.append(f"nonlinearity={nonlinearity}")
        return ", ".join(parts)


class RNNCell(RNNCellBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu with `nonlinearity='relu'`; see `RNNCellBase`."""

    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        choice("RNNCell", "nonlinearity", nonlinearity, ("tanh", "relu"))
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        (h,) = self._states(input, None if hx is None else (hx,), 1)
        return _CELLS[self.nonlinearity](input, h, *self._weights())


class LSTMCell(RNNCellBase):
    """One step of `LSTM`: takes and returns (h, c); see `RNNCellBase`."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        states = self._states(input, None if hx is None else _pair("LSTMCell", hx), 2)
        h, c = lstm_cell(input, list(states), *self._weights())
        return h, c


class GRUCell(RNNCellBase):
    """One step of `GRU`: takes and returns h; see `RNNCellBase`."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        (h,) = self._states(input, None if hx is None else (hx,), 1)
        return gru_cell(input, h, *self._weights())
