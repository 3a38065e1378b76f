"""A network that reads and writes a memory copies sequences longer than any it was trained with.

Rows of bits are shown, then asked for in their order. The controller has no state of its own: all that it
knows of earlier steps it has written. It addresses by content (cosine similarity with a key) and by place (a
shift of where it was), softly, so that everything has a gradient. Source: A. Graves, G. Wayne and
I. Danihelka, "Neural Turing machines", 2014, https://arxiv.org/abs/1410.5401.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import opsin
from opsin import Tensor, nn
from opsin.nn import functional as F

BITS = 4


class Address(nn.Module):
    """Where a head looks: weights [N, slots] from the controller, the memory and where it looked before."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.settings = nn.Linear(inputs, width + 6)

    def forward(self, state: Tensor, memory: Tensor, before: Tensor) -> Tensor:
        key, strength, gate, shift, sharpness = self.settings(state).split([self.width, 1, 1, 3, 1], 1)
        lengths = memory.norm(2, 2) * key.norm(2, 1, keepdim=True)
        similar = (memory @ key.unsqueeze(2)).squeeze(2) / (lengths + 1e-4)
        content = F.softmax((1 + F.softplus(strength)) * similar, 1)
        at = before + gate.sigmoid() * (content - before)
        back, stay, on = F.softmax(shift, 1).chunk(3, 1)
        at = back * at.roll(-1, 1) + stay * at + on * at.roll(1, 1)
        # A step to the side blurs: this sharpens.
        at = (at + 1e-6) ** (1 + F.softplus(sharpness))
        return at / at.sum(1, keepdim=True)


class TuringMachine(nn.Module):
    """A controller without state, a memory [N, slots, width], a head that writes and one that reads."""

    def __init__(self, slots: int = 16, width: int = 8, hidden: int = 48) -> None:
        super().__init__()
        self.slots, self.width = slots, width
        self.controller = nn.Sequential(nn.Linear(BITS + 2 + width, hidden), nn.Tanh())
        self.read, self.write = Address(hidden, width), Address(hidden, width)
        self.change = nn.Linear(hidden, 2 * width)
        self.out = nn.Linear(hidden + width, BITS)

    def forward(self, steps: Tensor) -> Tensor:
        """Logits [T, N, BITS] for inputs [T, N, BITS + 2]."""
        count = steps.shape[1]
        memory = opsin.full((count, self.slots, self.width), 1e-3)
        writes = opsin.zeros(count, self.slots)
        writes[:, 0] = 1.0
        reads, seen, outputs = writes, opsin.zeros(count, self.width), []
        for x in steps.unbind(0):
            state = self.controller(opsin.cat([x, seen], 1))
            writes = self.write(state, memory, writes)
            erase, add = self.change(state).unsqueeze(1).chunk(2, 2)
            here = writes.unsqueeze(2)
            memory = memory * (1 - here * erase.sigmoid()) + here * add.tanh()
            reads = self.read(state, memory, reads)
            seen = (reads.unsqueeze(1) @ memory).squeeze(1)
            outputs.append(self.out(opsin.cat([state, seen], 1)))
        return opsin.stack(outputs)


def draw_rows(count: int, length: int, generator: opsin.Generator) -> tuple[Tensor, Tensor]:
    """Inputs [2 length, count, BITS + 2], rows and then nothing, marked as such, and the rows."""
    rows = (opsin.rand(length, count, BITS, generator=generator) < 0.5).float()
    shown = opsin.cat([rows, opsin.ones(length, count, 1), opsin.zeros(length, count, 1)], 2)
    asked = opsin.cat([opsin.zeros(length, count, BITS + 1), opsin.ones(length, count, 1)], 2)
    return opsin.cat([shown, asked]), rows


def accuracy(model: TuringMachine, length: int, seed: int) -> float:
    """The share of bits that are right in 200 sequences."""
    steps, rows = draw_rows(200, length, opsin.Generator().manual_seed(seed))
    with opsin.no_grad():
        return float(((model(steps)[length:] > 0) == (rows > 0.5)).float().mean())


def train(steps: int, seed: int = 0, longest: int = 6) -> TuringMachine:
    """Trains anew on sequences of 1 to `longest` rows."""
    opsin.manual_seed(seed)
    generator = opsin.Generator().manual_seed(seed)
    model = TuringMachine()
    optimizer = opsin.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(steps):
        length = 1 + step % longest
        inputs, rows = draw_rows(32, length, generator)
        loss = F.binary_cross_entropy_with_logits(model(inputs)[length:], rows)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    return model


def main(arguments: Sequence[str]) -> int:
    """Trains and prints the accuracy for each length."""
    parser = argparse.ArgumentParser(prog="opsin run neural_turing_machine", description=__doc__)
    parser.add_argument("--steps", type=int, default=600, help="batches of 32 sequences (default: 600)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    model = train(options.steps, options.seed)
    for length in (3, 6, 9, 12):
        print(f"{length} rows: {100 * accuracy(model, length, options.seed + 1):.1f} % of the bits")
    return 0
