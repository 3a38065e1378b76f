"""How good detected boxes and masks are: precision and recall, average precision, COCO's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
RECALLS: Floats = np.asarray(np.linspace(0, 1, 101), np.float64)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


def precision_recall(scores: ArrayLike, correct: ArrayLike, positives: int) -> tuple[Floats, Floats]:
    """Precision and recall `[N]` of the 1, 2, ... N detections with the highest scores.

    Args:
        scores: `[N]`; equal ones keep their order.
        correct: `[N]`, whether each detection found an object that no detection before it had found.
        positives: how many objects there are.
    """
    s, hit = np.asarray(scores, np.float64), np.asarray(correct, bool)
    if s.ndim != 1 or s.shape != hit.shape:
        raise ValueError(
            f"precision_recall: expected scores and correct of one shape [N], got {list(s.shape)} and "
            f"{list(hit.shape)}"
        )
    found = np.cumsum(hit[np.argsort(-s, kind="stable")])
    return found / np.arange(1, len(s) + 1), found / max(positives, 1)


def average_precision(
    scores: ArrayLike, correct: ArrayLike, positives: int, *, points: int | None = None
) -> float:
    """The area under precision over recall, where precision is the best at any higher recall.

    Arguments as for `precision_recall`. `points` takes the mean of the precision at so many equally spaced
    recalls instead: 11 (Pascal VOC 2007) or 101 (COCO). NaN without objects.
    """
    precision, recall = precision_recall(scores, correct, positives)
    if positives == 0:
        return float("nan")
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if points is None:
        return float(np.sum(np.diff(recall, prepend=0.0) * best))
    at = np.searchsorted(recall, np.linspace(0, 1, points), side="left")
    return float(np.append(best, 0.0)[at].mean())


def match_detections(iou: ArrayLike, scores: ArrayLike, iou_threshold: float = 0.5) -> NDArray[np.int64]:
    """The object that each detection finds, `[D]`, or -1.

    By falling score each detection takes the object with the greatest IoU of those that are free; `iou` is
    `[D, G]`. A second detection of an object finds nothing, and counts as wrong.
    """
    overlap, order = np.asarray(iou, np.float64), np.argsort(-np.asarray(scores), kind="stable")
    matches = np.full(len(overlap), -1, np.int64)
    free = np.ones(overlap.shape[1] if overlap.ndim == 2 else 0, bool)
    for d in order:
        candidates = np.where(free, overlap[d], -1.0)
        if len(candidates) and candidates.max() >= iou_threshold:
            matches[d] = candidates.argmax()
            free[matches[d]] = False
    return matches


class _Group(NamedTuple):
    """What one class has in one image; detections by falling score."""

    scores: Floats  # [D]
    far: NDArray[np.bool_]  # [A, D]: of another size than the area wants
    reachable: NDArray[np.intp]  # [K]: the detections that lie near any object
    iou: Floats  # [K, G]
    crowd: NDArray[np.bool_]  # [G]
    ignore: NDArray[np.bool_]  # [A, G]


class _Found(NamedTuple):
    """The detections of a group after matching, and how many objects count."""

    scores: Floats  # [D]
    matched: NDArray[np.bool_]  # [A, T, D]
    ignored: NDArray[np.bool_]  # [A, T, D]
    positives: NDArray[np.int64]  # [A]


def _match_chunk(groups: Sequence[_Group], limits: Floats) -> list[_Found]:
    """COCO's greedy matching in many groups side by side: first the best detection of each, and so on."""
    counts = [group.iou.shape for group in groups]
    steps, objects = (max(n) for n in zip(*counts, strict=True))
    iou = np.full((len(groups), steps, objects), -1.0)
    crowd = np.zeros((len(groups), objects), bool)
    ignore = np.ones((len(groups), len(AREAS), objects), bool)
    for p, group in enumerate(groups):
        near, width = group.iou.shape
        iou[p, :near, :width], crowd[p, :width], ignore[p, :, :width] = group.iou, group.crowd, group.ignore
    shape = (len(groups), len(AREAS), len(limits))
    matched, ignored = np.zeros((2, *shape, steps), bool)
    taken = np.zeros((*shape, objects), bool)
    # What counts goes before what is ignored.
    bonus = np.where(ignore, 0.0, 2.0)[:, :, None]
    for k in range(steps if objects else 0):
        row = iou[:, k, None, None]
        free = (row >= limits[:, None]) & (~taken | crowd[:, None, None])
        # Of equally near objects the last is taken.
        worth = np.where(free, row + bonus, -1.0)[..., ::-1]
        best = objects - 1 - worth.argmax(axis=-1)
        at = np.nonzero(worth.max(axis=-1) >= 0)
        matched[(*at, k)] = True
        ignored[(*at, k)] = ignore[at[0], at[1], best[at]]
        taken[(*at, best[at])] = True
    result: list[_Found] = []
    for p, group in enumerate(groups):
        flags = np.zeros((2, *shape[1:], len(group.scores)), bool)
        near = len(group.reachable)
        flags[0][..., group.reachable] = matched[p, ..., :near]
        flags[1][..., group.reachable] = ignored[p, ..., :near]
        flags[1] |= ~flags[0] & group.far[:, None]
        result.append(_Found(group.scores, flags[0], flags[1], (~group.ignore).sum(axis=1)))
    return result


def _match(groups: Sequence[_Group], thresholds: Floats) -> list[_Found]:
    """The groups in their order, matched in chunks of similar size and bounded memory."""
    limits = np.minimum(thresholds, 1 - 1e-10)
    order = sorted(range(len(groups)), key=lambda i: groups[i].iou.shape)
    found: dict[int, _Found] = {}
    while order:
        largest = groups[order[-1]].iou.shape
        size = max(1, 2_000_000 // (len(AREAS) * len(limits) * max(1, largest[1])))
        chunk, order = order[-size:], order[:-size]
        found.update(zip(chunk, _match_chunk([groups[i] for i in chunk], limits), strict=True))
    return [found[i] for i in range(len(groups))]


def _sizes(boxes: Floats) -> Floats:
    sides: Floats = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return sides.prod(axis=1)


def _overlaps(detected: Floats, objects: Floats, crowd: NDArray[np.bool_], as_masks: bool) -> Floats:
    """IoU [D, G]; the share of the detection that lies in it for crowds."""
    if as_masks:
        inter: Floats = detected @ objects.T
        size, own = detected.sum(axis=1), objects.sum(axis=1)
    else:
        low = np.maximum(detected[:, None, :2], objects[:, :2])
        high = np.minimum(detected[:, None, 2:], objects[:, 2:])
        inter = np.maximum(high - low, 0).prod(axis=-1)
        size, own = _sizes(detected), _sizes(objects)
    union = np.where(crowd, size[:, None], size[:, None] + own - inter)
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def _array(item: Mapping[str, Any], key: str, op: str) -> NDArray[Any]:
    if key not in item:
        raise ValueError(f"{op}: expected the keys boxes (or masks), scores and labels, got {sorted(item)}")
    return np.asarray(item[key])


class MeanAveragePrecision:
    """COCO's mean average precision and recall, of boxes or masks, over all images given to `update`.

    Follows COCO's own evaluation: precision at 101 recalls; crowds and objects of other areas are neither
    right nor wrong to find; a second detection of an object is wrong.

    Args:
        iou_type: "bbox" (corners `[N, 4]`) or "segm" (masks `[N, H, W]`).
        iou_thresholds: None for 0.5, 0.55, ... 0.95.
        max_detections: of each image and class; three numbers for the three recalls, the last for all else.

    Raises:
        ValueError: another `iou_type`, thresholds outside (0, 1], or entries of different lengths.
    """

    def __init__(
        self,
        iou_type: str = "bbox",
        iou_thresholds: Sequence[float] | None = None,
        max_detections: Sequence[int] = (1, 10, 100),
    ) -> None:
        if iou_type not in ("bbox", "segm"):
            raise ValueError(f"MeanAveragePrecision: expected iou_type bbox or segm, got {iou_type!r}")
        given = np.asarray(
            np.linspace(0.5, 0.95, 10) if iou_thresholds is None else iou_thresholds, np.float64
        )
        if len(given) == 0 or not ((given > 0) & (given <= 1)).all():
            raise ValueError(f"MeanAveragePrecision: expected iou_thresholds in (0, 1], got {iou_thresholds}")
        self.iou_type = iou_type
        self.iou_thresholds: Floats = given
        self.max_detections = sorted(int(m) for m in max_detections)
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self._groups: dict[int, list[_Group]] = {}

    def _item(self, item: Mapping[str, Any], needs_scores: bool) -> dict[str, NDArray[Any]]:
        op = "MeanAveragePrecision"
        result: dict[str, NDArray[Any]] = {"labels": _array(item, "labels", op).astype(np.int64)}
        count = len(result["labels"])
        if self.iou_type == "bbox":
            result["shapes"] = _array(item, "boxes", op).astype(np.float64).reshape(-1, 4)
            size = _sizes(result["shapes"])
        else:
            masks = _array(item, "masks", op)
            result["shapes"] = (masks.reshape(len(masks), -1) != 0).astype(np.float64)
            size = result["shapes"].sum(axis=1)
        if needs_scores:
            result["scores"] = _array(item, "scores", op).astype(np.float64)
            result["area"] = size
        else:
            result["crowd"] = np.asarray(item.get("iscrowd", np.zeros(count)), bool)
            result["area"] = np.asarray(item.get("area", size), np.float64)
        for key, value in result.items():
            if len(value) != count:
                raise ValueError(f"{op}: expected {count} {key}, one for each label, got {len(value)}")
        if needs_scores and np.isnan(result["scores"]).any():
            raise ValueError(f"{op}: expected scores that are numbers, got nan")
        return result

    def update(self, preds: Sequence[Mapping[str, Any]], target: Sequence[Mapping[str, Any]]) -> None:
        """Adds images.

        Args:
            preds: for each image `boxes` `[D, 4]` (or `masks` `[D, H, W]`), `scores` and `labels` `[D]`.
            target: for each image `boxes` (or `masks`) and `labels` `[G]`; maybe `iscrowd` `[G]`, and `area`
                `[G]` where that is not the area of the box (or mask).
        """
        if len(preds) != len(target):
            raise ValueError(
                f"MeanAveragePrecision: expected preds and target of the same images, got {len(preds)} and "
                f"{len(target)}"
            )
        for pred, truth in zip(preds, target, strict=True):
            self._add(self._item(pred, True), self._item(truth, False))

    def _add(self, detected: dict[str, NDArray[Any]], objects: dict[str, NDArray[Any]]) -> None:
        """Splits an image into its classes."""
        low, high = np.array(list(AREAS.values())).T[:, :, None]
        far, ignore = ((x["area"] < low) | (x["area"] > high) for x in (detected, objects))
        crowd, scores = objects["crowd"], detected["scores"]
        ignore |= crowd
        iou = _overlaps(detected["shapes"], objects["shapes"], crowd, self.iou_type == "segm")
        least = min(float(self.iou_thresholds.min()), 1 - 1e-10)
        order = np.argsort(-scores, kind="stable")
        kinds = detected["labels"][order]
        for label in {*kinds.tolist(), *objects["labels"].tolist()}:
            mine = order[kinds == label][: self.max_detections[-1]]
            theirs = np.flatnonzero(objects["labels"] == label)
            own = iou[mine[:, None], theirs]
            near = np.flatnonzero((own >= least).any(axis=1))
            self._groups.setdefault(label, []).append(
                _Group(scores[mine], far[:, mine], near, own[near], crowd[theirs], ignore[:, theirs])
            )

    def _accumulate(self, found: list[_Found], most: int) -> tuple[Floats, Floats]:
        """Precision [A, T, 101] and recall [A, T] of a class; NaN for areas without objects."""
        scores = np.concatenate([f.scores[:most] for f in found])
        order = np.argsort(-scores, kind="stable")
        matched = np.concatenate([f.matched[:, :, :most] for f in found], axis=2)[:, :, order]
        ignored = np.concatenate([f.ignored[:, :, :most] for f in found], axis=2)[:, :, order]
        right = np.cumsum(matched & ~ignored, axis=2, dtype=np.float64)
        wrong = np.cumsum(~matched & ~ignored, axis=2, dtype=np.float64)
        positives = np.sum([f.positives for f in found], axis=0)
        precisions = np.full((*matched.shape[:2], len(RECALLS)), np.nan)
        recalls = np.full(matched.shape[:2], np.nan)
        for a in np.flatnonzero(positives):
            recall = right[a] / positives[a]
            precision = right[a] / np.maximum(right[a] + wrong[a], np.spacing(1))
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            recalls[a] = recall[:, -1] if len(order) else 0
            for t, row in enumerate(best):
                precisions[a, t] = np.append(row, 0.0)[np.searchsorted(recall[t], RECALLS, side="left")]
        return precisions, recalls

    def compute(self) -> dict[str, Any]:
        """COCO's numbers: `map`, `map_50`, `map_75`, `map_small`, `map_medium`, `map_large`, `mar_1`, ...

        `mar_<n>` is the recall with n detections of each class in each image; `mar_small`, ... that with the
        most. `classes` are the labels seen, `map_per_class` their average precisions. -1 where there is no
        object or no such threshold.
        """
        classes = sorted(self._groups)
        most = self.max_detections[-1]
        every = iter(_match([g for c in classes for g in self._groups[c]], self.iou_thresholds))
        found = [[next(every) for _ in self._groups[c]] for c in classes]
        parts = [self._accumulate(f, most) for f in found]
        empty = (len(AREAS), len(self.iou_thresholds))
        precision = np.array([p for p, _ in parts]).reshape(len(classes), *empty, len(RECALLS))
        recall = np.array([r for _, r in parts]).reshape(len(classes), *empty)

        def mean(values: Floats) -> float:
            there = values[~np.isnan(values)]
            return float(there.mean()) if there.size else -1.0

        def at(threshold: float) -> float:
            return mean(precision[:, 0, np.isclose(self.iou_thresholds, threshold)])

        result: dict[str, Any] = {"map": mean(precision[:, 0]), "map_50": at(0.5), "map_75": at(0.75)}
        names = list(AREAS)
        result |= {f"map_{name}": mean(precision[:, names.index(name)]) for name in names[1:]}
        for few in self.max_detections[:-1]:
            result[f"mar_{few}"] = mean(np.array([self._accumulate(f, few)[1][0] for f in found]))
        result[f"mar_{most}"] = mean(recall[:, 0])
        result |= {f"mar_{name}": mean(recall[:, names.index(name)]) for name in names[1:]}
        result["classes"] = classes
        result["map_per_class"] = [mean(precision[k, 0]) for k in range(len(classes))]
        return result
