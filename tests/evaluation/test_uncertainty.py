"""Calibration, risk-coverage and boundary IoU against hand-computed cases."""

import json
import types
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from genmask_jax.config import SamplerConfig
from genmask_jax.data.refershapes.source import ReferShapesSegment
from genmask_jax.evaluation.metrics import boundary, boundary_intersection_union
from genmask_jax.evaluation.uncertainty import (
    evaluate_uncertainty,
    measure,
    risk_coverage,
    summarize_uncertainty,
)
from genmask_jax.evaluation.uncertainty_figure import draw_uncertainty
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.sharding import one_device

SAMPLER = SamplerConfig()


def square(first: int, last: int, size: int = 100) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[first:last, first:last] = True
    return mask


def test_boundaries_are_3_pixels_wide_in_an_image_of_100_pixels():
    # 2 % of the diagonal of 141.4 pixels.
    ring = square(20, 60) & ~square(23, 57)
    assert np.array_equal(boundary(square(20, 60)), ring)
    whole = np.ones((100, 100), bool)
    assert np.array_equal(boundary(whole), ~square(3, 97))
    assert np.array_equal(boundary(square(4, 6, 8)), square(4, 6, 8))


def test_boundary_iou_by_hand():
    truth = square(20, 60).astype(np.uint8)
    # Rings of 40^2 - 34^2 = 444 and 42^2 - 36^2 = 468 pixels; they share 40^2 - 36^2 = 304.
    assert boundary_intersection_union(square(19, 61), truth) == (304, 444 + 468 - 304)
    assert boundary_intersection_union(square(20, 60), truth) == (444, 444)
    assert boundary_intersection_union(square(20, 60) & False, truth) == (0, 444)
    truth[:40] = 255
    assert boundary_intersection_union(square(20, 60), truth)[0] < 444


def test_calibration_by_hand():
    truth = np.array([[1, 1, 0, 0, 255]], np.uint8)
    draws = np.array([[[0.9, 0.9, 0.9, 0.1, 0.1]]], np.float32)
    result = summarize_uncertainty([measure(draws, truth, SAMPLER)])
    assert [x["pixels"] for x in result["bins"]] == [1, 3]
    assert [x["share"] for x in result["bins"]] == [0, pytest.approx(2 / 3)]
    assert result["ece"] == pytest.approx((abs(0.1 - 0) + 3 * abs(0.9 - 2 / 3)) / 4)
    assert "spread" not in result
    assert result["probability"]["pixels"]["risk"] == 0.25
    assert result["probability"]["masks"]["risk"] == pytest.approx(1 / 3)


def test_risk_coverage_by_hand():
    result = risk_coverage(np.array([2, 0, 1, 1]), np.array([0, 0, 1, 0]))
    assert result["curve"] == [[0.5, 0], [0.75, pytest.approx(1 / 3)], [1, 0.25]]
    assert result["risk"] == 0.25
    assert result["aurc"] == pytest.approx((2 * 0 + 1 / 3 + 1 / 4) / 4)


def test_the_spread_finds_the_errors_of_pixels_and_masks():
    truth = np.zeros((8, 8), np.uint8)
    truth[:4] = 1
    certain = np.broadcast_to(truth * 0.8 + 0.1, (4, 8, 8)).astype(np.float32)
    wrong = certain.copy()
    wrong[:, 4:, :4] = np.array([0.4, 0.6, 0.9, 0.9])[:, None, None]
    result = summarize_uncertainty([measure(draws, truth, SAMPLER) for draws in (wrong, certain)])
    for part in ("pixels", "masks"):
        score = result["spread"][part]
        assert 0 < score["aurc"] < score["risk"] / 2 + 1e-6
    assert result["spread"]["masks"]["curve"] == [[0.5, 0], [1, pytest.approx((1 - 32 / 48) / 2)]]


class NoisySampler(MaskSampler):
    """Probabilities that depend on the index of the noise alone."""

    def __init__(self, source):
        self.networks, self.batch_size = types.SimpleNamespace(mesh=one_device(), size=source.size), 4
        self.sampler, self.seen = SAMPLER, []

    def __call__(self, images, texts, indices):
        self.seen += indices.tolist()
        return np.broadcast_to(0.1 + 0.02 * indices[:, None, None], (len(images), 32, 32)).astype(np.float32)


def test_every_noise_of_every_example_is_different():
    source = ReferShapesSegment("val", 32)
    sampler = NoisySampler(source)
    result = evaluate_uncertainty(sampler, source, 6, 3)
    assert sorted({*sampler.seen}) == list(range(18))
    assert json.loads(json.dumps(result)) == result
    assert sum(x["pixels"] for x in result["bins"]) == 6 * 32 * 32
    figure = ET.fromstring(draw_uncertainty(result))
    assert len(figure.findall("{*}svg")) == 3
