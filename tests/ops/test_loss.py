"""Loss functions: cross entropy, negative log likelihood and squared error."""

from __future__ import annotations

import inspect
import math
import warnings

import numpy as np
import pytest

import opsin
from tests.opcheck import FLOAT, Call, Err, Op, c, const, ints, make_tests, t

F = "nn.functional."
REDUCTIONS = ("mean", "sum", "none")
IGNORED = const([0, -100, 2, 1], dtype="int64", grad=False)
ALL_IGNORED = const([-100, -100, -100, -100], dtype="int64", grad=False)
WEIGHT = t(3, low=0.5, high=2.0, grad=False)


def label(*values: int) -> object:
    return const(list(values), dtype="int64", grad=False)


def class_cases() -> list[Call]:
    """What cross_entropy and nll_loss share: classes in dimension 1, labels by index."""
    found = []
    for reduction in REDUCTIONS:
        found += [
            c(t(4, 3), ints(4, high=3), reduction=reduction),
            c(t(4, 3), IGNORED, WEIGHT, reduction=reduction).but(id=f"weight_ignored_{reduction}"),
            c(t(4, 3), ints(4, high=3), WEIGHT, ignore_index=1, reduction=reduction),
            c(t(2, 3, 4, 2), ints(2, 4, 2, high=3), WEIGHT, reduction=reduction),
            c(t(3), ints(high=3), reduction=reduction),
            c(t(2, 3, 4), ints(2, 4, high=3), reduction=reduction),
        ]
    found += [
        c(t(4, 3), ALL_IGNORED, reduction="sum").but(id="all_ignored_sum"),
        c(t(4, 3), ALL_IGNORED, reduction="none").but(id="all_ignored_none"),
        c(t(4, 3), ALL_IGNORED).but(id="all_ignored_mean", grad=False),
        c(t(0, 3), ints(0), reduction="sum"),
        c(t(0, 3), ints(0)).but(grad=False),
    ]
    return found


SOFT = t(4, 3, low=0.1, high=1.0)
CROSS_ENTROPY = [
    *class_cases(),
    *(c(t(4, 3), ints(4, high=3), label_smoothing=0.1, reduction=r) for r in REDUCTIONS),
    *(
        c(t(4, 3), IGNORED, WEIGHT, label_smoothing=0.2, reduction=r).but(id=f"smooth_all_{r}")
        for r in REDUCTIONS
    ),
    *(c(t(4, 3), SOFT, reduction=r).but(id=f"probabilities_{r}") for r in REDUCTIONS),
    c(t(4, 3), SOFT, WEIGHT, label_smoothing=0.1).but(id="probabilities_weight_smooth"),
    c(t(2, 3, 4), t(2, 3, 4, low=0.1, high=1.0)).but(id="probabilities_per_pixel"),
    c(t(3), t(3, low=0.1, high=1.0)).but(id="probabilities_unbatched"),
    c(const([[1000.0, 0.0, -1000.0]]), label(0)).but(
        id="far_right", numerical=False, dtypes=("float64", "float32")
    ),
    c(const([[1000.0, 0.0, -1000.0]]), label(2)).but(
        id="far_wrong", numerical=False, dtypes=("float64", "float32")
    ),
]


def class_errors() -> list[Err]:
    return [
        Err(c(t(4, 3), label(0, 1, 3, 2)), (IndexError), "3"),
        Err(c(t(4, 3), label(0, 1, -1, 2)), (IndexError), "-1"),
        Err(c(t(4, 3), ints(3, high=3)), ValueError, r"\[4, 3\].*\[3\]|4.*3"),
        Err(c(t(4, 3), ints(4, high=3), t(2)), RuntimeError, r"\[2\]|2.*3|3.*2"),
        Err(c(t(4, 3), ints(4, high=3), reduction="average"), ValueError, "average"),
    ]


def pair_cases() -> list[Call]:
    return [
        *(c(t(2, 3), t(2, 3), reduction=r) for r in REDUCTIONS),
        c(t(), t()),
        c(t(0, 3), t(0, 3), reduction="sum"),
        c(t(0, 3), t(0, 3)).but(grad=False),
        c(t(2, 3, 4, 5), t(2, 3, 4, 5)),
    ]


OPS = [
    Op(
        f"{F}cross_entropy",
        CROSS_ENTROPY,
        tol=4,
        half_tol=1,
        dtypes=FLOAT,
        features=("LS01",),
        demands=("B4",),
        bench=[c(t(256, 1000), ints(256, high=1000)), c(t(4, 21, 64, 64), ints(4, 64, 64, high=21))],
        errors=[
            *class_errors(),
            Err(c(t(4, 3), t(4, 2)), RuntimeError, r"\[4, 3\].*\[4, 2\]|\[4, 2\].*\[4, 3\]|3.*2"),
            Err(c(t(4, 3), ints(4, high=3), label_smoothing=1.5), RuntimeError, "1.5"),
        ],
    ),
    Op(
        f"{F}nll_loss",
        class_cases(),
        tol=4,
        half_tol=4,
        dtypes=FLOAT,
        features=("LS02",),
        errors=class_errors(),
        demands=("B4",),
    ),
    Op(
        f"{F}mse_loss",
        pair_cases(),
        tol=4,
        half_tol=1,
        dtypes=FLOAT,
        features=("LS04",),
        bench=[c(t(256, 1000), t(256, 1000))],
        errors=[
            Err(c(t(2, 3), t(2, 4)), RuntimeError, r"\[2, 3\].*\[2, 4\]"),
            Err(c(t(2), t(2), reduction="average"), ValueError, "average"),
        ],
    ),
]

TestOps = make_tests(OPS)


@pytest.mark.feature("LS01")
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_loss_of_equal_scores_is_the_logarithm_of_the_class_count(classes: int) -> None:
    loss = opsin.nn.functional.cross_entropy(opsin.zeros(4, classes), opsin.tensor([0, 1, 0, 1]))
    assert math.isclose(float(loss), math.log(classes), rel_tol=1e-6)


@pytest.mark.feature("LS01")
def test_index_and_one_hot_labels_agree() -> None:
    x = opsin.randn(6, 5, dtype=opsin.float64)
    y = opsin.tensor([0, 4, 2, 2, 1, 3])
    one_hot = opsin.nn.functional.one_hot(y, 5).to(opsin.float64)
    assert math.isclose(
        float(opsin.nn.functional.cross_entropy(x, y)),
        float(opsin.nn.functional.cross_entropy(x, one_hot)),
        rel_tol=1e-14,
    )


@pytest.mark.feature("LS01", "LS02")
def test_cross_entropy_is_nll_of_log_softmax() -> None:
    x, y = opsin.randn(6, 5, 4, dtype=opsin.float64), opsin.randint(0, 5, (6, 4))
    fused = opsin.nn.functional.cross_entropy(x, y, reduction="none")
    apart = opsin.nn.functional.nll_loss(opsin.log_softmax(x, 1), y, reduction="none")
    assert np.allclose(fused.numpy(), apart.numpy(), rtol=1e-13, atol=1e-14)


@pytest.mark.feature("LS01")
@pytest.mark.demand("B4")
def test_a_wrong_label_names_its_value_and_place() -> None:
    with pytest.raises(IndexError, match=r"^cross_entropy: .*\b7\b.*\b5\b"):
        opsin.nn.functional.cross_entropy(opsin.zeros(3, 5), opsin.tensor([0, 7, 1]))
    assert float(opsin.nn.functional.cross_entropy(opsin.zeros(1, 5), opsin.tensor([4]))) > 0


@pytest.mark.feature("LS04")
def test_root_mean_square_error() -> None:
    x, y = opsin.tensor([1.0, 2.0, 5.0]), opsin.tensor([1.0, 4.0, 1.0])
    assert math.isclose(float(opsin.nn.functional.mse_loss(x, y).sqrt()), math.sqrt(20 / 3), rel_tol=1e-6)


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_a_broadcast_of_input_and_target_is_warned_about(name: str) -> None:
    loss = getattr(opsin.nn.functional, name)
    x, y = opsin.tensor([[1.0], [3.0]]), opsin.tensor([1.0, 2.0])
    message = (
        r"Using a target size \(opsin.Size\(\[2\]\)\) that is different to the input size \(opsin.Size\(\["
    )
    with pytest.warns(UserWarning, match=message) as caught:
        assert loss(x, y, reduction="none").shape == (2, 2)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(x, target=x)
    assert str(inspect.signature(loss)).startswith("(input, target, ")


@pytest.mark.parametrize("name", ["nll_loss", "cross_entropy"])
def test_targets_without_classes_are_refused_even_if_all_are_ignored(name: str) -> None:
    for target in ([-100, -100], [0, 1]):
        with pytest.raises(IndexError, match="out of bounds for 0 classes"):
            getattr(opsin.nn.functional, name)(opsin.zeros(2, 0), opsin.tensor(target))
