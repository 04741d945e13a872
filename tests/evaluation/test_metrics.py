"""Metrics against hand-counted cases and the published definitions."""

import json

import numpy as np
import pytest

from genmask_jax.evaluation.metrics import intersection_union, summarize


def test_counts_pixels_in_both_and_in_either():
    truth = np.array([[1, 1, 0], [0, 1, 0]], np.uint8)
    prediction = np.array([[1, 0, 1], [0, 1, 0]], bool)
    assert intersection_union(prediction, truth) == (2, 4)
    assert intersection_union(np.zeros((2, 3), bool), truth) == (0, 3)
    assert intersection_union(np.zeros((2, 3), bool), np.zeros((2, 3), np.uint8)) == (0, 0)


def test_ignored_pixels_count_in_neither():
    truth = np.array([[1, 0, 255, 255]], np.uint8)
    assert intersection_union(np.array([[True, False, True, False]]), truth) == (1, 1)
    assert intersection_union(np.array([[False, True, True, True]]), truth) == (0, 2)
    assert intersection_union(np.ones((2, 2), bool), np.full((2, 2), 255, np.uint8)) == (0, 0)


def test_another_shape_is_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        intersection_union(np.zeros((2, 3), bool), np.zeros((3, 2), np.uint8))


def test_summary_by_hand():
    # IoUs 0.5, 1, 0 (nothing there, nothing predicted), 0.
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


def test_an_empty_set_and_uneven_lists_are_refused():
    with pytest.raises(ValueError, match="one at least"):
        summarize([], [])
    with pytest.raises(ValueError, match="2, 1"):
        summarize([1, 1], [2])


def test_all_unions_empty_scores_zero():
    assert summarize([0, 0], [0, 0])["oIoU"] == 0
