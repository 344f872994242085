"""Scores of masks by hand, and AP beside COCO's own evaluation."""

import numpy as np
import pytest
import torch

from darkroom.training.metrics.masks import (
    average_precision,
    average_recall,
    best_of,
    iou,
    pairwise_iou,
    recall,
)


def masks(count, seed, size=24):
    rng = np.random.default_rng(seed)
    made = torch.zeros(count, size, size, dtype=torch.bool)
    for i in range(count):
        top, left = rng.integers(0, size - 8, 2)
        high, wide = rng.integers(3, 9, 2)
        made[i, top : top + high, left : left + wide] = True
    return made


def test_iou_by_hand():
    a = torch.zeros(2, 4, 4, dtype=torch.bool)
    a[0, :2] = True
    b = torch.zeros(4, 4, dtype=torch.bool)
    b[:, :2] = True
    assert iou(a[0], b).item() == pytest.approx(4 / 12)
    assert iou(a[1], a[1]).item() == 0
    assert torch.allclose(pairwise_iou(a, b[None]), torch.tensor([[4 / 12], [0.0]]))


def test_recall_by_hand():
    ious = [torch.tensor([[0.9, 0.1], [0.2, 0.6]]), torch.zeros(0, 2)]
    assert best_of(ious[0]).tolist() == pytest.approx([0.9, 0.6])
    assert recall(ious, 0.75) == 1 / 4 and recall(ious, 0.5) == 2 / 4
    assert average_recall(ious) == pytest.approx((9 + 3) / 40)
    assert recall([], 0.5) == 0


def test_average_precision_is_coco_s():
    coco, evaluation, mask = (
        pytest.importorskip(f"pycocotools.{name}") for name in ("coco", "cocoeval", "mask")
    )
    ious, scores, truths, answers = [], [], [], []
    rng = np.random.default_rng(5)
    for picture in range(6):
        true = masks(4, picture)
        shifts = rng.integers(-1, 2, (4, 2))
        near = [true[i].roll(tuple(map(int, s)), (0, 1)) for i, s in enumerate(shifts)]
        found = torch.cat((torch.stack(near), masks(3, 100 + picture)))
        score = torch.from_numpy(rng.random(len(found)))
        ious.append(pairwise_iou(found, true))
        scores.append(score)
        for part, target in ((true, truths), (found, answers)):
            for i, one in enumerate(part):
                code = mask.encode(np.asfortranarray(one.numpy().astype(np.uint8)))
                row = {"image_id": picture, "category_id": 1, "segmentation": code}
                row |= {"area": float(one.sum()), "iscrowd": 0, "id": len(target) + 1}
                row["bbox"] = mask.toBbox(code).tolist()
                target.append(row | ({"score": float(score[i])} if target is answers else {}))
    known = coco.COCO()
    known.dataset = {
        "images": [{"id": i, "height": 24, "width": 24} for i in range(6)],
        "categories": [{"id": 1}], "annotations": truths, "info": {},
    }  # fmt: skip
    known.createIndex()
    judge = evaluation.COCOeval(known, known.loadRes(answers), "segm")
    judge.evaluate()
    judge.accumulate()
    # (thresholds, recalls, classes, areas, most)
    precision = judge.eval["precision"][:, :, 0, 0, -1]
    for i, threshold in ((0, 0.5), (5, 0.75)):
        mine = average_precision(ious, scores, threshold)
        assert mine == pytest.approx(precision[i].mean(), abs=1e-3)


def test_nothing_found_is_no_error():
    assert average_precision([torch.zeros(0, 3)], [torch.zeros(0)]) == 0
