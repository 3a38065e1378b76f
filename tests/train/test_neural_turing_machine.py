"""The recipe of a network with a memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import opsin
from opsin.recipes import neural_turing_machine as ntm


def test_addresses_find_content_and_step_aside() -> None:
    head = ntm.Address(2, 3)
    memory = opsin.eye(5, 3).unsqueeze(0) + 1e-3
    before = opsin.zeros(1, 5)
    before[0, 3] = 1.0

    def look(key: Sequence[float], gate: float, shift: Sequence[float]) -> np.ndarray:
        with opsin.no_grad():
            head.settings.weight.zero_()
            head.settings.bias.copy_(opsin.tensor([*key, 50.0, gate, *shift, 5.0]))
            return head(opsin.zeros(1, 2), memory, before)[0].numpy()

    # By content: the slot like the key. By place: where it was, one back (around the ends) and one on.
    assert look([0, 1, 0], 30.0, [-30, 30, -30]).argmax() == 1
    for shift, place in (([-30, 30, -30], 3), ([30, -30, -30], 2), ([-30, -30, 30], 4)):
        at = look([0, 1, 0], -30.0, shift)
        assert at.argmax() == place and at.max() > 0.99 and np.isclose(at.sum(), 1)
    assert look([0, 0, 1], 30.0, [-30, -30, 30]).argmax() == 3


@pytest.mark.feature("AT15")
def test_a_memory_copies_longer_sequences_than_it_was_trained_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ntm.main(["--steps", "300"]) == 0
    found = {int(line.split()[0]): float(line.split()[2]) for line in capsys.readouterr().out.splitlines()}
    # Half of the bits are right by luck.
    assert found[3] > 95 and found[6] > 95 and found[9] > 85, found


def test_without_the_memory_nothing_is_copied() -> None:
    model = ntm.train(120)
    whole = ntm.accuracy(model, 3, 9)
    with opsin.no_grad():
        # Nothing is added to the memory.
        model.change.weight[model.width :] = 0
        model.change.bias[model.width :] = 0
    assert whole > 0.9 and ntm.accuracy(model, 3, 9) < 0.65
