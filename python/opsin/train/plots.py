"""The pictures of a run, drawn by Matplotlib without a display."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opsin import nn
from opsin.data import ImageSource
from opsin.metrics import confusion_matrix
from opsin.train.files import write_atomic
from opsin.train.progress import EpochRow

_BLUE, _ORANGE, _RED = "#1f6feb", "#e8710a", "#d1242f"


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plots: needs Matplotlib, found none (pip install matplotlib)") from None
    # Figure without pyplot: no global state, no display; savefig chooses Agg for PNG.
    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def _write(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    write_atomic(path, buffer.getvalue())


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#d8dee4", linewidth=0.8)
    axes.set_axisbelow(True)


def curves(rows: Sequence[EpochRow], path: Path, train_label: str = "train") -> None:
    """Loss and accuracy over the epochs; `train_label` says how the training part was measured."""
    figure = _figure(10, 4)
    loss, accuracy = figure.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    style: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1.6}
    loss.plot(epochs, [row.train_loss for row in rows], color=_BLUE, label=train_label, **style)
    loss.plot(epochs, [row.test_loss for row in rows], color=_ORANGE, label="test", **style)
    loss.set(title="Loss", xlabel="epoch", ylabel="cross-entropy")
    loss.set_ylim(bottom=0)
    accuracy.plot(epochs, [100 * row.train_accuracy for row in rows], color=_BLUE, label=train_label, **style)
    accuracy.plot(epochs, [100 * row.test_accuracy for row in rows], color=_ORANGE, label="test", **style)
    accuracy.set(
        title=f"Accuracy (last epoch: test {100 * rows[-1].test_accuracy:.1f} %)", xlabel="epoch", ylabel="%"
    )
    for axes in (loss, accuracy):
        _tidy(axes)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
    _write(figure, path)


def confusion(predicted: NDArray[Any], labels: NDArray[Any], classes: Sequence[str], path: Path) -> None:
    """Confusion matrix with counts; colour is the share of the true class."""
    counts = confusion_matrix(predicted, labels, len(classes))
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(14.0, max(5.0, 0.55 * len(classes) + 1.6))
    figure = _figure(side + 0.8, side)
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    wrong = int(counts.sum() - np.trace(counts))
    axes.set(title=f"{wrong} of {counts.sum()} test images wrong", xlabel="predicted", ylabel="true")
    if len(classes) <= 30:
        ticks = range(len(classes))
        long_names = max(map(len, classes)) > 3
        axes.set_xticks(
            ticks, classes, rotation=45 if long_names else 0, ha="right" if long_names else "center"
        )
        axes.set_yticks(ticks, classes)
        for row, column in zip(*np.nonzero(counts), strict=True):
            ink = "white" if share[row, column] > 0.5 else _RED if row != column else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=ink, fontsize=9)
    _write(figure, path)


def filters(model: nn.Module, path: Path) -> None:
    """The filters of the first convolution, in colour where its input has three channels."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        return
    weight = first.weight.detach().numpy()
    count = min(len(weight), 64)
    columns = 8
    rows = math.ceil(count / columns)
    colour = weight.shape[1] == 3
    reach = float(np.abs(weight).max()) or 1.0
    figure = _figure(columns * 0.85 + 0.6, rows * 0.85 + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False)
    image = None
    for axes, index in zip(grid.flat, range(rows * columns), strict=True):
        axes.set_axis_off()
        if index >= count:
            continue
        if colour:
            axes.imshow((weight[index].transpose(1, 2, 0) / reach + 1) / 2)
        else:
            image = axes.imshow(weight[index].mean(axis=0), cmap="RdBu_r", vmin=-reach, vmax=reach)
    if image is not None:
        figure.colorbar(image, ax=grid, shrink=0.8, aspect=30)
    size = " x ".join(map(str, weight.shape[2:]))
    figure.suptitle(f"First layer: {len(weight)} filters of {size}", fontsize=12)
    _write(figure, path)


def predictions(source: ImageSource, probabilities: NDArray[np.float32], path: Path) -> None:
    """A sheet of 40 test images with prediction and confidence: mistakes first, in red."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != source.labels)
    # Of the mistakes the most confident, of the rest an even spread over the set.
    wrong = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:16]
    right = np.flatnonzero(predicted == source.labels)
    room = max(0, min(40, len(source)) - len(wrong))
    right = right[np.linspace(0, len(right) - 1, min(room, len(right))).astype(int)] if len(right) else right
    shown = np.concatenate([wrong, right])
    images = source.images(shown)
    columns = min(8, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = _figure(columns * 1.3, rows * 1.55 + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, index, image in zip(grid.flat, shown, images, strict=False):
        picture = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        guess, truth = source.classes[predicted[index]], source.classes[source.labels[index]]
        sure = f"{100 * probabilities[index].max():.0f} %"
        if predicted[index] == source.labels[index]:
            axes.set_title(f"{guess}  {sure}", fontsize=9)
        else:
            axes.set_title(f"{guess}  {sure}\nis {truth}", fontsize=9, color=_RED, fontweight="bold")
    mistakes = int((predicted != source.labels).sum())
    note = f"{mistakes} of {len(source)} wrong" + (", shown first" if mistakes else "")
    figure.suptitle(f"Predictions on the test part: {note}", fontsize=12)
    _write(figure, path)
