"""Anchors, box coding, matching, sampling and FCOS's targets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import ops
from opsin.models.detection import RetinaNetHead, RPNHead
from tests.device import DEVICE, place


def corners(n: int, seed: int = 0, rank: int = 2) -> opsin.Tensor:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 10, (n, rank))
    return place(opsin.tensor(np.concatenate([low, low + rng.uniform(1, 5, (n, rank))], 1)))


@pytest.mark.feature("DO05")
def test_faster_rcnn_has_nine_anchors_at_each_position() -> None:
    generator = ops.AnchorGenerator(sizes=((128, 256, 512),), aspect_ratios=((0.5, 1.0, 2.0),))
    assert generator.num_anchors_per_location() == [9]
    images, features = opsin.zeros(2, 3, 224, 320), opsin.zeros(2, 8, 14, 20)
    anchors = generator(images, [features])
    assert len(anchors) == 2 and tuple(anchors[0].shape) == (9 * 14 * 20, 4)
    nine = anchors[0][:9]
    size = nine[:, 2:] - nine[:, :2]
    # Ratios are height to width, areas those of the sizes, but for corners at whole pixels.
    root, edge = np.sqrt(np.repeat([0.5, 1, 2], 3)), np.array([128, 256, 512] * 3)
    assert np.array_equal(size.numpy(), 2 * np.round(np.stack([edge / root, edge * root], 1) / 2))
    assert bool((nine[:, :2] == -nine[:, 2:]).all())
    # The next position lies a stride to the right, the next row a stride down.
    assert opsin.equal(anchors[0][9:18], nine + opsin.tensor([16.0, 0.0, 16.0, 0.0]))
    assert opsin.equal(anchors[0][180:189], nine + opsin.tensor([0.0, 16.0, 0.0, 16.0]))


def test_anchors_of_a_pyramid() -> None:
    generator = ops.AnchorGenerator(sizes=(32, 64), aspect_ratios=(1.0, 2.0))
    assert generator.num_anchors_per_location() == [2, 2]
    anchors = generator(opsin.zeros(1, 3, 64, 64), [opsin.zeros(1, 1, 8, 8), opsin.zeros(1, 1, 4, 4)])
    assert tuple(anchors[0].shape) == (2 * 64 + 2 * 16, 4)
    assert anchors[0][0].tolist() == [-16.0, -16.0, 16.0, 16.0]
    with pytest.raises(ValueError, match=r"expected 2 feature maps.*got 1 grid sizes"):
        generator(opsin.zeros(1, 3, 64, 64), [opsin.zeros(1, 1, 8, 8)])
    with pytest.raises(ValueError, match="aspect_ratios for each of 2 feature maps, got 1"):
        ops.AnchorGenerator(sizes=(32, 64), aspect_ratios=((1.0,),))


@pytest.mark.feature("DO08")
def test_anchors_across_the_border_are_discarded_or_clipped() -> None:
    anchors = opsin.tensor([[0.0, 0, 20, 10], [-1, 0, 5, 5], [0, 0, 21, 5], [3, 3, 5, 5], [0, 9, 5, 11]])
    assert ops.anchors_inside(anchors, (10, 20)).tolist() == [0, 3]
    assert ops.anchors_inside(anchors, (10, 20), allowed_border=1).tolist() == [0, 1, 2, 3, 4]
    assert ops.clip_boxes_to_image(anchors, (10, 20))[1:].tolist() == [
        [0, 0, 5, 5],
        [0, 0, 20, 5],
        [3, 3, 5, 5],
        [0, 9, 5, 10],
    ]
    with pytest.raises(RuntimeError, match=r"anchors_inside: expected anchors \[N, 4\], got \[4\]"):
        ops.anchors_inside(anchors[0], (10, 20))


@pytest.mark.device
@pytest.mark.feature("DO06")
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_decoding_undoes_encoding(rank: int) -> None:
    coder = ops.BoxCoder([10.0] * rank + [5.0] * rank)
    boxes, proposals = corners(6, 1, rank), corners(6, 2, rank)
    codes = coder.encode_single(boxes, proposals)
    assert opsin.allclose(coder.decode_single(codes, proposals), boxes, rtol=1e-12)
    both = coder.encode([boxes[:2], boxes[2:]], [proposals[:2], proposals[2:]])
    assert [len(part) for part in both] == [2, 4] and opsin.equal(opsin.cat(both), codes)
    twice = coder.decode(opsin.cat([codes, codes], 1), [proposals[:2], proposals[2:]])
    assert tuple(twice.shape) == (6, 2, 2 * rank) and opsin.allclose(twice[:, 1], boxes, rtol=1e-12)
    assert tuple(coder.decode(codes[:0], [proposals[:0]]).shape) == (0, 0, 2 * rank)


@pytest.mark.feature("DO06")
def test_offsets_by_hand() -> None:
    coder = ops.BoxCoder((10.0, 10.0, 5.0, 5.0))
    box, proposal = opsin.tensor([[1.0, 2.0, 9.0, 6.0]]), opsin.tensor([[0.0, 0.0, 4.0, 8.0]])
    want = [10 * (5 - 2) / 4, 0.0, 5 * math.log(2), 5 * math.log(0.5)]
    assert np.allclose(coder.encode_single(box, proposal).tolist(), [want])
    # Sizes grow by a bounded factor.
    huge = coder.decode_single(opsin.tensor([[0.0, 0.0, 1e9, 1e9]]), proposal)
    assert np.allclose((huge[:, 2:] - huge[:, :2]).tolist(), [[4 * 62.5, 8 * 62.5]])


@pytest.mark.device
def test_gradients_of_box_coding() -> None:
    coder = ops.BoxCoder((10.0, 10.0, 5.0, 5.0))
    boxes, proposals = corners(2, 1).requires_grad_(), corners(2, 2).requires_grad_()
    codes = place(opsin.tensor(np.random.default_rng(0).normal(size=(2, 8)))).requires_grad_()
    for check in (opsin.autograd.gradcheck, opsin.autograd.gradgradcheck):
        assert check(coder.encode_single, (boxes, proposals))
        assert check(coder.decode_single, (codes, proposals))


def test_errors_of_box_coding() -> None:
    with pytest.raises(ValueError, match=r"expected 4 positive weights.*got"):
        ops.BoxCoder((1.0, 1.0, 0.0, 1.0))
    coder = ops.BoxCoder()
    with pytest.raises(RuntimeError, match=r"BoxCoder: expected proposals \[N, 4\], got \[3, 5\]"):
        coder.encode_single(opsin.zeros(3, 4), opsin.zeros(3, 5))
    with pytest.raises(RuntimeError, match=r"expected rel_codes \[3, 4 K\], got \[3, 6\]"):
        coder.decode_single(opsin.zeros(3, 6), opsin.zeros(3, 4))


QUALITY = [[0.9, 0.5, 0.2, 0.0, 0.3], [0.1, 0.6, 0.25, 0.0, 0.3]]


@pytest.mark.device
@pytest.mark.feature("DO07")
def test_matcher_gives_positives_negatives_and_neutrals() -> None:
    quality = place(opsin.tensor(QUALITY))
    assert ops.Matcher(0.7, 0.3)(quality).tolist() == [0, -2, -1, -1, -2]
    # The best of each box counts whatever its quality.
    assert ops.Matcher(0.7, 0.3, allow_low_quality_matches=True)(quality).tolist() == [0, 1, -1, -1, -2]
    assert ops.Matcher(0.5, 0.5)(quality).tolist() == [0, 1, -1, -1, -1]
    ties = place(opsin.tensor([[0.2, 0.2, 0.1]]))
    assert ops.Matcher(0.7, 0.3, allow_low_quality_matches=True)(ties).tolist() == [0, 0, -1]


def test_errors_of_the_matcher() -> None:
    with pytest.raises(ValueError, match=r"low_threshold <= high_threshold, got 0.7 and 0.3"):
        ops.Matcher(0.3, 0.7)
    for shape in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match=r"at least one box and one proposal.*got \["):
            ops.Matcher(0.7, 0.3)(opsin.zeros(*shape))


@pytest.mark.device
@pytest.mark.feature("DO07")
def test_sampler_balances_positives_and_negatives() -> None:
    labels = place(opsin.tensor([1] * 30 + [0] * 60 + [-1] * 10))
    few = place(opsin.tensor([2, 0, 0, -1]))
    generator = opsin.Generator().manual_seed(0)
    sampler = ops.BalancedPositiveNegativeSampler(40, 0.5, generator=generator)
    positive, negative = sampler([labels, few])
    assert [int(p.sum()) for p in positive] == [20, 1] and [int(n.sum()) for n in negative] == [20, 2]
    assert bool((labels[positive[0].bool()] >= 1).all()) and bool((labels[negative[0].bool()] == 0).all())
    assert positive[0].dtype == opsin.uint8 and positive[0].device == labels.device
    again = ops.BalancedPositiveNegativeSampler(40, 0.5, generator=opsin.Generator().manual_seed(0))
    assert opsin.equal(again([labels])[0][0], positive[0])
    assert not opsin.equal(sampler([labels])[0][0], positive[0])
    with pytest.raises(ValueError, match=r"fraction in \[0, 1\], got 4 and 2"):
        ops.BalancedPositiveNegativeSampler(4, 2)


@pytest.mark.device
@pytest.mark.feature("DO16")
def test_an_ambiguous_point_learns_the_smaller_box() -> None:
    points = ops.fcos_points((2, 3), 8, device=DEVICE)
    assert points.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    boxes = place(opsin.tensor([[0.0, 0.0, 24.0, 16.0], [2.0, 2.0, 14.0, 10.0], [19.0, 0.0, 21.0, 9.0]]))
    matches, distances = ops.fcos_targets(points, boxes)
    assert matches.tolist() == [1, 1, 2, 0, 0, 0]
    assert distances[0].tolist() == [2, 2, 10, 6] and distances[5].tolist() == [20, 12, 4, 4]
    # Levels have ranges of sizes.
    limits = place(opsin.tensor([[0.0, 8.0]] * 3 + [[8.0, 1e8]] * 3))
    matches, distances = ops.fcos_targets(points, boxes, limits)
    assert matches.tolist() == [-1, -1, 2, 0, 0, 0] and distances[0].tolist() == [0] * 4
    none, zero = ops.fcos_targets(points, boxes[:0])
    assert none.tolist() == [-1] * 6 and tuple(zero.shape) == (6, 4)
    with pytest.raises(RuntimeError, match=r"points \[P, 2\] and boxes \[N, 4\], got \[3\] and \[3, 4\]"):
        ops.fcos_targets(points[0, :1].expand(3), boxes)


@pytest.mark.device
@pytest.mark.feature("LS14")
def test_centerness_weighs_scores() -> None:
    distances = place(opsin.tensor([[4.0, 3.0, 4.0, 3.0], [2.0, 3.0, 8.0, 3.0], [0.0, 1.0, 3.0, 1.0]]))
    target = ops.centerness(distances)
    assert np.allclose(target.tolist(), [1.0, 0.5, 0.0])
    # Trained with binary cross-entropy, the logit tends to that of the target.
    logits = place(opsin.zeros(3)).requires_grad_()
    optimizer = opsin.optim.Adam([logits], lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        opsin.nn.functional.binary_cross_entropy_with_logits(logits, target).backward()
        optimizer.step()
    # Logits of targets 0 and 1 grow without end: after 60 steps they are this far.
    assert np.allclose(opsin.sigmoid(logits).tolist(), target.tolist(), atol=0.05)
    scores = ops.fcos_scores(place(opsin.tensor([[0.0, 2.0]] * 2)), place(opsin.tensor([[0.0], [-3.0]])))
    want: Any = np.outer(1 / (1 + np.exp([0.0, 3.0])), 1 / (1 + np.exp([0.0, -2.0])))
    assert np.allclose(scores.tolist(), want)


def test_the_proposal_head_is_one_convolution_and_two_siblings() -> None:
    head = RPNHead(8, 9, num_scores=2, kernel_size=5)
    assert [tuple(p.shape) for n, p in head.named_parameters() if n.endswith("weight")] == [
        (8, 8, 5, 5),
        (18, 8, 1, 1),
        (36, 8, 1, 1),
    ]
    scores, offsets = head([opsin.zeros(2, 8, 7, 6), opsin.zeros(2, 8, 3, 3)])
    assert [tuple(s.shape) for s in scores] == [(2, 18, 7, 6), (2, 18, 3, 3)]
    assert [tuple(o.shape) for o in offsets] == [(2, 36, 7, 6), (2, 36, 3, 3)]
    # Torchvision's keys, with one score for each anchor.
    keys = ["conv.0.0.weight", "conv.0.0.bias", "cls_logits.weight", "cls_logits.bias"]
    assert list(RPNHead(8, 3).state_dict()) == [*keys, "bbox_pred.weight", "bbox_pred.bias"]
    assert tuple(RPNHead(8, 3)([opsin.zeros(1, 8, 2, 2)])[0][0].shape) == (1, 3, 2, 2)


def test_the_retinanet_head_has_scores_of_each_class_and_four_offsets() -> None:
    head = RetinaNetHead(8, 9, 5)
    scores, offsets = head.maps(opsin.zeros(2, 8, 4, 3))
    assert tuple(scores.shape) == (2, 5 * 9, 4, 3) and tuple(offsets.shape) == (2, 4 * 9, 4, 3)
    for tower in (head.classification_head, head.regression_head):
        weights = [tuple(p.shape) for p in tower.parameters() if p.dim() == 4]
        assert weights[:4] == [(8, 8, 3, 3)] * 4 and len(weights) == 5
    features = [opsin.randn(1, 8, 4, 3), opsin.randn(1, 8, 2, 2)]
    out = head(features)
    assert tuple(out["cls_logits"].shape) == (1, 9 * 16, 5)
    # The rows are in the order of the anchors: positions, then anchors.
    maps = head.maps(features[0])[0]
    assert opsin.equal(out["cls_logits"][0, (1 * 3 + 2) * 9 + 4], maps[0, 20:25, 1, 2])
    assert abs(float(opsin.sigmoid(head.maps(opsin.zeros(1, 8, 1, 1))[0]).mean()) - 0.01) < 1e-3
