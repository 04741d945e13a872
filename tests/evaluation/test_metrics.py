"""Metrics against hand-counted cases and the published definitions."""

import json

import numpy as np
import pytest

from genmask_jax.evaluation.metrics import (
    PROTOCOLS,
    Counts,
    count_pixels,
    intersection_union,
    summarize,
    summarize_grefcoco,
    summarize_reasonseg,
)


def test_counts_pixels_in_both_and_in_either():
    truth = np.array([[1, 1, 0], [0, 1, 0]], np.uint8)
    prediction = np.array([[1, 0, 1], [0, 1, 0]], bool)
    assert intersection_union(prediction, truth) == (2, 4)
    assert intersection_union(np.zeros((2, 3), bool), truth) == (0, 3)
    assert intersection_union(np.zeros((2, 3), bool), np.zeros((2, 3), np.uint8)) == (0, 0)


def test_ignored_pixels_are_not_counted():
    truth = np.array([[1, 0, 255, 255]], np.uint8)
    assert intersection_union(np.array([[True, False, True, False]]), truth) == (1, 1)
    assert intersection_union(np.array([[False, True, True, True]]), truth) == (0, 2)
    assert intersection_union(np.ones((2, 2), bool), np.full((2, 2), 255, np.uint8)) == (0, 0)


def test_different_shapes_are_rejected_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        intersection_union(np.zeros((2, 3), bool), np.zeros((3, 2), np.uint8))


def test_summary_by_hand():
    # IoUs 0.5, 1, 0 (both masks empty), 0.
    summary = summarize([5, 10, 0, 0], [10, 10, 0, 20])
    assert summary == {
        "count": 4,
        "mIoU": 0.375,
        "oIoU": 15 / 40,
        "P@0.5": 0.5,
        "P@0.6": 0.25,
        "P@0.7": 0.25,
        "P@0.8": 0.25,
        "P@0.9": 0.25,
    }
    assert json.loads(json.dumps(summary)) == summary
    assert all(type(value) is (int if key == "count" else float) for key, value in summary.items())


def test_the_mean_and_the_overall_iou_weigh_objects_differently():
    summary = summarize([900, 0], [1000, 10])
    assert summary["mIoU"] == pytest.approx(0.45)
    assert summary["oIoU"] == pytest.approx(900 / 1010)


@pytest.mark.parametrize("tenths", [5, 6, 7, 8, 9])
def test_a_threshold_itself_is_reached(tenths):
    unions = np.arange(10, 100_000, 10)
    at, below = unions // 10 * tenths, unions // 10 * tenths - 1
    assert summarize(at, unions)[f"P@0.{tenths}"] == 1
    assert summarize(below, unions)[f"P@0.{tenths}"] == 0


def test_sums_are_exact_beyond_float_and_int32():
    n, pixels = 5000, 2**22 + 1
    assert n * pixels > 2**31
    summary = summarize(np.full(n, pixels - 1, np.int32), np.full(n, pixels, np.int32))
    assert summary["oIoU"] == (n * (pixels - 1)) / (n * pixels)


def test_an_empty_set_and_different_lengths_are_rejected():
    with pytest.raises(ValueError, match="at least one"):
        summarize([], [])
    with pytest.raises(ValueError, match="2, 1"):
        summarize([1, 1], [2])


def test_all_unions_empty_scores_zero():
    assert summarize([0, 0], [0, 0])["oIoU"] == 0


def random_pairs(count, seed):
    """Predictions and truths of all sizes: some empty, some full, some with ignored regions."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        shape = tuple(rng.integers(1, 24, 2))
        density = rng.choice([0, 0.02, 0.3, 0.7, 1])
        truth = (rng.random(shape) < density).astype(np.uint8)
        if rng.random() < 0.4:
            truth[rng.random(shape) < rng.choice([0.1, 0.5, 1])] = 255
        noise = rng.random(shape) < rng.choice([0, 0, 0.05, 0.5])
        prediction = ((truth == 1) ^ noise) if rng.random() < 0.8 else np.zeros(shape, bool)
        yield prediction, truth


def reference(pairs):
    """Every metric by its definition, in floating point."""
    ious, lisa, rela, inter, unions = [], [], [], 0.0, 0.0
    none, some, reached = [], [], {0.7: [], 0.8: [], 0.9: []}
    for prediction, truth in pairs:
        valid = truth.ravel() != 255
        p, t = prediction.ravel()[valid].astype(float), (truth.ravel()[valid] == 1).astype(float)
        i, u = np.minimum(p, t).sum(), np.maximum(p, t).sum()
        inter, unions = inter + i, unions + u
        ious.append(i / u if u > 0 else 0.0)
        lisa.append(i / (u + 1e-5) if u > 0 else 1.0)
        if t.sum() == 0:
            none.append(float(p.sum() == 0))
            rela.append(1.0 if p.sum() == 0 else 0.0)
        else:
            some.append(float(p.sum() > 0))
            rela.append(i / u)
            for x, hits in reached.items():
                hits.append(float(i / u >= x))
    overall = inter / unions
    refcoco = {"mIoU": np.mean(ious), "oIoU": overall, "cIoU": overall}
    refcoco |= {f"P@{x}": np.mean([iou >= x for iou in ious]) for x in (0.5, 0.6, 0.7, 0.8, 0.9)}
    grefcoco = {"gIoU": np.mean(rela), "cIoU": overall, "N-acc": np.mean(none), "T-acc": np.mean(some)}
    grefcoco |= {f"Pr@{x}": np.mean(hits) for x, hits in reached.items()}
    reasonseg = {"gIoU": np.mean(lisa), "cIoU": overall}
    return {"refcoco": refcoco, "grefcoco": grefcoco, "reasonseg": reasonseg}


@pytest.mark.parametrize("seed", range(3))
def test_all_protocols_agree_with_a_plain_reference(seed):
    pairs = list(random_pairs(4000, seed))
    counts = [count_pixels(p, t, no_target=not (t == 1).any()) for p, t in pairs]
    for protocol, expected in reference(pairs).items():
        summary = PROTOCOLS[protocol](counts)
        assert summary.pop("count") == 4000
        assert summary.keys() == expected.keys()
        for name, value in expected.items():
            assert abs(summary[name] - value) < 1e-9, (protocol, name)


def test_grefcoco_by_hand():
    rejected = Counts(0, 0, 0, no_target=True)
    invented = Counts(0, 50, 50, no_target=True)
    missed = Counts(0, 80, 0)
    found = Counts(60, 80, 70)
    summary = summarize_grefcoco([rejected, invented, missed, found])
    assert summary["gIoU"] == pytest.approx((1 + 0 + 0 + 0.75) / 4)
    assert summary["cIoU"] == 60 / (50 + 80 + 80)
    assert summary["N-acc"] == 0.5
    assert summary["T-acc"] == 0.5
    assert [summary[f"Pr@{x}"] for x in (0.7, 0.8, 0.9)] == [0.5, 0, 0]
    assert summarize_grefcoco([found])["N-acc"] is None
    assert summarize_grefcoco([rejected])["T-acc"] is None
    assert summarize_reasonseg([rejected])["gIoU"] == 1
    # An object that is too small to cover a pixel still counts as a target.
    tiny = summarize_grefcoco([Counts(0, 0, 0), Counts(0, 9, 9)])
    assert (tiny["gIoU"], tiny["N-acc"], tiny["T-acc"]) == (0, None, 0.5)
