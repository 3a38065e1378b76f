"""Recurrent layers whose matrix products are convolutions."""

from __future__ import annotations

from typing import Any

from opsin import stack, zeros
from opsin._C import Tensor
from opsin.nn._checks import choice, integer, integers
from opsin.nn._container import ModuleList
from opsin.nn._conv import Conv1d, Conv2d, Conv3d
from opsin.nn.module import Module

_CONVS: tuple[Any, ...] = (Conv1d, Conv2d, Conv3d)


class _ConvCell(Module):
    """Sizes and convolutions of a cell; `_gates` per hidden channel."""

    _rank: int
    _gates: int

    def __init__(
        self,
        input_channels: int,
        hidden_channels: int,
        kernel_size: Any,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        layer, rank = type(self).__name__, self._rank
        self.input_channels = integer(layer, "input_channels", input_channels, 1)
        self.hidden_channels = integer(layer, "hidden_channels", hidden_channels, 1)
        self.kernel_size = integers(layer, "kernel_size", kernel_size, rank, 1)
        make = lambda inputs, gates, bias: _CONVS[rank - 1](  # noqa: E731
            inputs,
            gates * self.hidden_channels,
            self.kernel_size,
            padding="same",
            bias=bias,
            padding_mode=padding_mode,
            device=device,
            dtype=dtype,
        )
        self.input_conv = make(self.input_channels, self._gates, bias)
        self.hidden_conv = make(self.hidden_channels, self._gates, False)

    def _start(self, input: Tensor) -> Tensor:
        """A state of zeros."""
        axis = input.dim() - self._rank - 1
        sizes = list(input.shape)
        sizes[axis] = self.hidden_channels
        return zeros(*sizes, dtype=input.dtype, device=input.device)

    def extra_repr(self) -> str:
        return f"{self.input_channels}, {self.hidden_channels}, kernel_size={self.kernel_size}"


class _ConvRNNCell(_ConvCell):
    """h' = tanh(W * x + U * h + b) with convolutions of [N, C, spatial...]; h is zero where none is given.

    `nonlinearity` is 'tanh' or 'relu'.
    """

    _gates = 1

    def __init__(
        self,
        input_channels: int,
        hidden_channels: int,
        kernel_size: Any,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        nonlinearity: str = "tanh",
    ) -> None:
        super().__init__(input_channels, hidden_channels, kernel_size, bias, padding_mode, device, dtype)
        self.nonlinearity = choice(type(self).__name__, "nonlinearity", nonlinearity, ("tanh", "relu"))

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        h = self._start(input) if hx is None else hx
        sums = self.input_conv(input) + self.hidden_conv(h)
        return sums.tanh() if self.nonlinearity == "tanh" else sums.relu()


class _ConvGRUCell(_ConvCell):
    """r, z = sigmoid(W * x + U * h), n = tanh(W' * x + r (U' * h)), h' = (1 - z) n + z h; `*` convolves.

    Source: N. Ballas, L. Yao, C. Pal, A. Courville, "Delving deeper into convolutional networks for learning
    video representations" (2016), with the reset gate after the product, as in `GRUCell`.
    """

    _gates = 3

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        h = self._start(input) if hx is None else hx
        axis = -self._rank - 1
        r, z, n = self.input_conv(input).chunk(3, axis)
        hidden_r, hidden_z, hidden_n = self.hidden_conv(h).chunk(3, axis)
        r, z = (r + hidden_r).sigmoid(), (z + hidden_z).sigmoid()
        n = (n + r * hidden_n).tanh()
        return n + z * (h - n)


class _ConvLSTMCell(_ConvCell):
    """i, f, g, o = W * x + U * h + b, c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c').

    Takes and returns (h', c') as `LSTMCell`; `*` convolves. Source: X. Shi et al., "Convolutional LSTM
    network" (2015), without its peepholes.
    """

    _gates = 4

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        h, c = (self._start(input), self._start(input)) if hx is None else hx
        sums = self.input_conv(input) + self.hidden_conv(h)
        i, f, g, o = sums.chunk(4, -self._rank - 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class _ConvRecurrent(Module):
    """Layers of cells over a sequence [T, N, C, spatial...], or [N, T, ...] with `batch_first`.

    Returns what the last layer gives at every step, and the last states of all layers, stacked: h, or (h, c)
    of LSTMs, which may be passed as `hx`. Further keywords are the cells'.
    """

    _cell: type[Any]

    def __init__(
        self,
        input_channels: int,
        hidden_channels: int,
        kernel_size: Any,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.num_layers = integer(type(self).__name__, "num_layers", num_layers, 1)
        self.batch_first = batch_first
        self.cells = ModuleList(
            self._cell(
                hidden_channels if i else input_channels, hidden_channels, kernel_size, bias, **options
            )
            for i in range(self.num_layers)
        )

    def forward(self, input: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        pairs = self._cell._gates == 4
        steps = input.unbind(1 if self.batch_first else 0)
        last = []
        for i, cell in enumerate(self.cells):
            state = None
            if hx is not None:
                state = (hx[0][i], hx[1][i]) if pairs else hx[i]
            outputs = []
            for x in steps:
                state = cell(x, state)
                outputs.append(state[0] if pairs else state)
            steps = tuple(outputs)
            last.append(state)
        states = tuple(map(stack, zip(*last, strict=True))) if pairs else stack(last)
        return stack(steps, 1 if self.batch_first else 0), states


class ConvRNNCell1d(_ConvRNNCell):
    __doc__ = _ConvRNNCell.__doc__
    _rank = 1


class ConvRNNCell2d(_ConvRNNCell):
    __doc__ = _ConvRNNCell.__doc__
    _rank = 2


class ConvRNNCell3d(_ConvRNNCell):
    __doc__ = _ConvRNNCell.__doc__
    _rank = 3


class ConvGRUCell1d(_ConvGRUCell):
    __doc__ = _ConvGRUCell.__doc__
    _rank = 1


class ConvGRUCell2d(_ConvGRUCell):
    __doc__ = _ConvGRUCell.__doc__
    _rank = 2


class ConvGRUCell3d(_ConvGRUCell):
    __doc__ = _ConvGRUCell.__doc__
    _rank = 3


class ConvLSTMCell1d(_ConvLSTMCell):
    __doc__ = _ConvLSTMCell.__doc__
    _rank = 1


class ConvLSTMCell2d(_ConvLSTMCell):
    __doc__ = _ConvLSTMCell.__doc__
    _rank = 2


class ConvLSTMCell3d(_ConvLSTMCell):
    __doc__ = _ConvLSTMCell.__doc__
    _rank = 3


class ConvRNN1d(_ConvRecurrent):
    __doc__ = _ConvRecurrent.__doc__
    _cell = ConvRNNCell1d


class ConvRNN2d(_ConvRecurrent):
    __doc__ = _ConvRecurrent.__doc__
    _cell = ConvRNNCell2d


class ConvRNN3d(_ConvRecurrent):
    __doc__ = _ConvRecurrent.__doc__
    _cell = ConvRNNCell3d


class ConvGRU1d(_ConvRecurrent):
    __doc__ = _ConvRecurrent.__doc__
    _cell = ConvGRUCell1d


class ConvGRU2d(_ConvRecurrent):
    __doc__ = _ConvRecurrent.__doc__
    _cell = ConvGRUCell2d


class ConvGRU3d(_ConvRecurrent):
    __doc__ = _ConvRecurrent.__doc__
    _cell = ConvGRUCell3d


class ConvLSTM1d(_ConvRecurrent):
    __doc__ = _ConvRecurrent.__doc__
    _cell = ConvLSTMCell1d


class ConvLSTM2d(_ConvRecurrent):
    __doc__ = _ConvRecurrent.__doc__
    _cell = ConvLSTMCell2d


class ConvLSTM3d(_ConvRecurrent):
    __doc__ = _ConvRecurrent.__doc__
    _cell = ConvLSTMCell3d
