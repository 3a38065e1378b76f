"""A network looks at one place of an image and learns where: 100 % right, 33 % without learning where.

Of nine cells one, marked by a faint glow, holds a bar whose direction is the class; the others hold bars at
random. A coarse view gives the probabilities of the cells, one is drawn, and only its pixels are read.
Drawing has no gradient: the logarithm of the probability of what was drawn is weighed with the reward above
a baseline (score function estimator; R. J. Williams, "Simple statistical gradient-following algorithms for
connectionist reinforcement learning", 1992; V. Mnih et al., "Recurrent models of visual attention", 2014).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import opsin
from opsin import Tensor, nn, ops
from opsin.nn import functional as F

GRID, CELL, CLASSES = 3, 8, 4


def draw_images(count: int, generator: opsin.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Images [N, 1, 24, 24], the marked cells [N] and the classes of their bars [N]."""
    bars = opsin.zeros(CLASSES, CELL, CELL)
    middle = opsin.arange(1, CELL - 1)
    bars[0, CELL // 2, 1:-1] = bars[1, 1:-1, CELL // 2] = 1.0
    bars[2, middle, middle] = bars[3, middle, CELL - 1 - middle] = 1.0
    kinds = opsin.randint(0, CLASSES, (count, GRID * GRID), generator=generator)
    cell = opsin.randint(0, GRID * GRID, (count,), generator=generator)
    row = opsin.arange(count)
    patches = bars[kinds]
    patches[row, cell] += 0.5
    images = ops.window_reverse(patches.flatten(0, 1).unsqueeze(-1), [GRID * CELL, GRID * CELL])
    noise = 0.2 * opsin.randn(count, 1, GRID * CELL, GRID * CELL, generator=generator)
    return images.permute(0, 3, 1, 2) + noise, cell, kinds[row, cell]


class Glimpse(nn.Module):
    """Where to look, from a coarse view, and what is there, from one cell."""

    def __init__(self) -> None:
        super().__init__()
        cells = GRID * GRID
        self.where = nn.Sequential(nn.AvgPool2d(CELL), nn.Flatten(), ops.MLP(cells, [32, cells]))
        self.what = nn.Sequential(nn.Flatten(), ops.MLP(CELL * CELL, [64, CLASSES]))

    def forward(self, images: Tensor, *, sample: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [N, CLASSES], the cells looked at [N] and the logarithms of their probabilities [N].

        Cells are drawn, or with `sample=False` the most likely ones.
        """
        score = F.log_softmax(self.where(images), 1)
        # The largest of scores with Gumbel noise is a draw from their softmax.
        noise = -(-opsin.rand_like(score).clamp(min=1e-20).log()).log() if sample else opsin.zeros_like(score)
        cell = (score.detach() + noise).argmax(1)
        row = opsin.arange(len(images))
        windows = ops.window_partition(images.permute(0, 2, 3, 1), CELL).squeeze(-1)
        patch = windows.unflatten(0, (len(images), GRID * GRID))[row, cell]
        return self.what(patch), cell, score[row, cell]


def accuracy(model: Glimpse, seed: int, *, sample: bool) -> float:
    """The share of 2,000 new images whose class is found."""
    images, _, labels = draw_images(2000, opsin.Generator().manual_seed(seed))
    with opsin.no_grad():
        logits, _, _ = model(images, sample=sample)
    return float((logits.argmax(1) == labels).float().mean())


def train(steps: int, seed: int = 0, *, learn_where: bool = True) -> float:
    """Trains anew; the accuracy on other images. Without `learn_where` cells stay drawn at random."""
    opsin.manual_seed(seed)
    generator = opsin.Generator().manual_seed(seed)
    model = Glimpse()
    optimizer = opsin.optim.Adam(model.parameters(), lr=3e-3)
    expected = 0.0
    for _ in range(steps):
        images, _, labels = draw_images(128, generator)
        logits, _, chosen = model(images, sample=True)
        errors = F.cross_entropy(logits, labels, reduction="none")
        reward = (logits.argmax(1) == labels).float()
        loss = errors.mean()
        if learn_where:
            loss = loss - (chosen * (reward - expected)).mean()
        expected = 0.9 * expected + 0.1 * float(reward.mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return accuracy(model, seed + 1, sample=not learn_where)


def main(arguments: Sequence[str]) -> int:
    """Trains with and without learning where to look, and prints the accuracies."""
    parser = argparse.ArgumentParser(prog="opsin run hard_attention", description=__doc__)
    parser.add_argument("--steps", type=int, default=400, help="batches of 128 images (default: 400)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    blind = train(options.steps, options.seed, learn_where=False)
    found = train(options.steps, options.seed)
    print(f"accuracy {100 * found:.1f} %, {100 * blind:.1f} % without learning where to look")
    return 0
