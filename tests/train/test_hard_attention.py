"""The recipe of a network that learns where to look by the score function."""

from __future__ import annotations

import numpy as np
import pytest

import opsin
from opsin.nn import functional as F
from opsin.recipes import hard_attention


def test_images_hold_a_marked_bar() -> None:
    images, cells, labels = hard_attention.draw_images(300, opsin.Generator().manual_seed(0))
    assert set(labels.tolist()) == {0, 1, 2, 3} and set(cells.tolist()) == set(range(9))
    glow = F.avg_pool2d(images, 8).flatten(1)
    assert float((glow.argmax(1) == cells).float().mean()) > 0.99


def test_the_estimator_is_the_gradient_of_the_expectation() -> None:
    # d/ds sum_i p_i r_i against the mean of r d/ds log p over many draws.
    opsin.manual_seed(0)
    score = opsin.tensor([0.5, -0.3, 0.1], dtype=opsin.float64, requires_grad=True)
    reward = opsin.tensor([1.0, 0.2, -0.5], dtype=opsin.float64)
    (exact,) = opsin.autograd.grad((F.softmax(score, 0) * reward).sum(), score)
    noise = -(-opsin.rand(40_000, 3, dtype=opsin.float64).log()).log()
    drawn = (score.detach() + noise).argmax(1)
    (estimate,) = opsin.autograd.grad((F.log_softmax(score, 0)[drawn] * reward[drawn]).mean(), score)
    # Four standard deviations of the mean.
    np.testing.assert_allclose(estimate.numpy(), exact.numpy(), atol=0.015)


@pytest.mark.feature("AT02")
def test_looking_at_one_place_is_learned(capsys: pytest.CaptureFixture[str]) -> None:
    assert hard_attention.main(["--steps", "300"]) == 0
    text = capsys.readouterr().out
    found, blind = (float(word) for word in text.split() if word[0].isdigit())
    # Eight of nine cells tell nothing: 1 / 9 + 8 / 9 / 4 of the classes are right by luck.
    assert abs(blind - 100 / 3) < 6 and found > 90, text
