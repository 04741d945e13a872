"""Scores of label maps, by a definition in plain NumPy; label maps themselves."""

import types

import numpy as np
import pytest

from genmask_jax.data.examples import IGNORED_PIXEL, NO_CLASS
from genmask_jax.data.prepared.source import PreparedLabelMaps
from genmask_jax.evaluation.label_maps import IMAGES, confusion, evaluate_label_maps, score
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.inference.masks import label_map
from genmask_jax.sharding import one_device

CLASSES = ("sky", "road", "car", "never")


def maps(count=5, seed=0):
    rng = np.random.default_rng(seed)
    truths = [rng.integers(-2, 3, (9, 11)) for _ in range(count)]
    return truths, [
        np.where(rng.random((9, 11)) < 0.6, t.clip(-1), rng.integers(-1, 3, (9, 11))) for t in truths
    ]


def test_the_mean_over_classes_is_of_the_pixels_of_all_images_together():
    truths, predictions = maps()
    total = np.sum([confusion(t, p, 4) for t, p in zip(truths, predictions, strict=True)], axis=0)
    found = score(total, CLASSES)
    truth, predicted = np.concatenate(truths), np.concatenate(predictions)
    counted = truth != IGNORED_PIXEL
    expected = {}
    for number, name in enumerate(CLASSES):
        t, p = (truth == number) & counted, (predicted == number) & counted
        expected[name] = (t & p).sum() / (t | p).sum() if (t | p).any() else None
    assert found["IoU"] == pytest.approx(expected)
    assert expected["never"] is None
    named = [value for value in expected.values() if value is not None]
    assert found["mIoU"] == pytest.approx(np.mean(named))
    assert found["pixel_accuracy"] == pytest.approx((truth == predicted)[counted].mean())
    t, p = (truth == NO_CLASS) & counted, (predicted == NO_CLASS) & counted
    assert found["mIoU_with_none"] == pytest.approx(np.mean([*named, (t & p).sum() / (t | p).sum()]))


def test_where_every_pixel_has_a_class_there_is_no_other_mean():
    truth = np.array([[0, 1], [2, IGNORED_PIXEL]])
    found = score(confusion(truth, np.array([[0, 1], [1, 0]]), 4), CLASSES)
    assert "mIoU_with_none" not in found
    assert found["IoU"] == {"sky": 1.0, "road": 0.5, "car": 0.0, "never": None}


class Finds(MaskSampler):
    """Stands in for a sampler: the first class everywhere. Keeps how it was called."""

    def __init__(self):
        self.calls = set()
        self.networks, self.batch_size = types.SimpleNamespace(mesh=one_device()), 4

    def sample_phrases(self, images, texts, indices, *, batch_sizes):
        self.calls.add((len(images), len(texts), len(indices), batch_sizes))
        found = np.zeros((len(images), len(texts), 4, 4), np.float32)
        found[:, 0] = 0.9
        return found, 0 * found


class Labelled(PreparedLabelMaps):
    """Images that show the first class on a quarter of their pixels, and, from the third on, none."""

    def __init__(self):
        self.classes = self.phrases = ("sky", "road", "car")

    def __len__(self):
        return 17

    def __getitem__(self, i):
        labels = np.full((8, 8), NO_CLASS, np.int32)
        labels[:4, :4] = 0 if i < 2 else NO_CLASS
        return {"image": np.zeros((4, 4, 3), np.uint8), "whole": None, "labels": labels}


@pytest.mark.parametrize("count", [1, 9, 17])
def test_an_image_that_shows_no_class_counts_and_every_batch_has_one_size(count):
    segmenter = Finds()
    found = evaluate_label_maps(segmenter, Labelled(), 0.5, count, keep=2)
    assert found.metrics["IoU"]["sky"] == pytest.approx(min(count, 2) / 4 / count)
    assert found.metrics["pixel_accuracy"] == found.metrics["IoU"]["sky"]
    assert len(found.predicted) == min(count, 2)
    assert segmenter.calls == {(IMAGES, 3, IMAGES, (IMAGES, 4))}


def test_a_label_map_has_the_most_probable_phrase_or_none():
    probabilities = np.zeros((3, 2, 2), np.float32)
    probabilities[:, 0, 0] = 0.2, 0.7, 0.6
    probabilities[:, 1, 1] = 0.3, 0.1, 0.2
    np.testing.assert_array_equal(label_map(probabilities, (2, 2), 0.4), [[1, -1], [-1, -1]])
    np.testing.assert_array_equal(label_map(probabilities, (2, 2), 0.0), [[1, -1], [-1, 0]])
    large = label_map(probabilities, (8, 6), 0.4)
    assert large.shape == (8, 6)
    assert large[0, 0] == 1
    assert large[-1, -1] == -1
