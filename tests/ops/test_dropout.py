"""Random zeroing; each call draws a mask of its own, so its properties are tested and not its values."""

from __future__ import annotations

import numpy as np
import pytest

import opsin
from opsin.autograd import gradcheck, gradgradcheck

NAMES = ("dropout", "dropout1d", "dropout2d", "dropout3d")
SHAPES = {
    "dropout": (40, 50),
    "dropout1d": (20, 30, 4),
    "dropout2d": (20, 30, 3, 2),
    "dropout3d": (20, 30, 2, 2, 2),
}


def drop(name: str, *arguments, **options):
    return getattr(opsin.nn.functional, name)(*arguments, **options)


@pytest.mark.feature("RG02")
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_kept_values_are_scaled_by_the_keep_probability(name: str, dtype: str) -> None:
    x = opsin.ones(*SHAPES[name], dtype=getattr(opsin, dtype))
    y = drop(name, x, 0.25)
    assert y.dtype == x.dtype
    scale = opsin.tensor(1 / 0.75, dtype=x.dtype).to(opsin.float64).item()
    assert set(np.unique(y.to(opsin.float64).numpy())) == {0.0, scale}
    if name != "dropout":  # whole channels go
        flat = y.to(opsin.float64).numpy().reshape(600, -1)
        assert np.array_equal(flat, np.repeat(flat[:, :1], flat.shape[1], axis=1))


@pytest.mark.feature("RG02")
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_of_zeros(p: float) -> None:
    y = drop("dropout", opsin.ones(200_000), p).numpy()
    # Six standard deviations of a binomial share.
    assert abs((y == 0).mean() - p) < 6 * np.sqrt(p * (1 - p) / 200_000)
    assert abs(y.mean() - 1) < 6 * np.sqrt(p / (1 - p) / 200_000)


@pytest.mark.feature("RG02")
@pytest.mark.parametrize("name", NAMES)
def test_identity_outside_training_and_at_the_ends(name: str) -> None:
    x = opsin.randn(*SHAPES[name])
    assert np.array_equal(drop(name, x, 0.5, training=False).numpy(), x.numpy())
    assert np.array_equal(drop(name, x, 0.0).numpy(), x.numpy())
    assert not drop(name, x, 1.0).numpy().any()


@pytest.mark.feature("RG02")
def test_same_seed_same_mask_for_any_thread_count() -> None:
    before = opsin.get_num_threads()
    masks = []
    try:
        for threads in (1, 2):
            opsin.set_num_threads(threads)
            opsin.manual_seed(7)
            masks.append(
                (
                    drop("dropout", opsin.ones(100_000), 0.5).numpy(),
                    drop("dropout", opsin.ones(10), 0.5).numpy(),
                )
            )
    finally:
        opsin.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*masks, strict=True))
    opsin.manual_seed(8)
    assert not np.array_equal(drop("dropout", opsin.ones(100_000), 0.5).numpy(), masks[0][0])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_use_the_mask_of_the_forward(name: str) -> None:
    shape = {
        "dropout": (4, 3),
        "dropout1d": (2, 3, 2),
        "dropout2d": (2, 3, 2, 1),
        "dropout3d": (2, 3, 1, 2, 1),
    }[name]

    def seeded(x):
        opsin.manual_seed(3)
        return drop(name, x, 0.4)

    x = opsin.randn(*shape, dtype=opsin.float64, requires_grad=True)
    assert gradcheck(seeded, x) and gradgradcheck(seeded, x)


def test_inplace() -> None:
    x = opsin.ones(1000)
    y = drop("dropout", x, 0.5, inplace=True)
    assert y is x and set(x.tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_bad_probability(name: str, p: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .*{p}"):
        drop(name, opsin.ones(*SHAPES[name]), p)
