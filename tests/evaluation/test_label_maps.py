"""Label maps, and their scores compared with a definition in plain NumPy."""

import types

import numpy as np
import pytest

from genmask_jax.data.examples import IGNORED_PIXEL, NO_CLASS
from genmask_jax.data.prepared.source import PreparedLabelMaps
from genmask_jax.evaluation.label_maps import IMAGES_PER_BATCH, confusion, evaluate_label_maps, score
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.inference.masks import label_map
from genmask_jax.sharding import one_device

CLASSES = ("sky", "road", "car", "never")


def random_maps(count=5, seed=0):
    rng = np.random.default_rng(seed)
    truths = [rng.integers(-2, 3, (9, 11)) for _ in range(count)]
    return truths, [
        np.where(rng.random((9, 11)) < 0.6, t.clip(-1), rng.integers(-1, 3, (9, 11))) for t in truths
    ]


def test_the_iou_of_a_class_counts_the_pixels_of_all_images():
    truths, predictions = random_maps()
    total = np.sum([confusion(t, p, 4) for t, p in zip(truths, predictions, strict=True)], axis=0)
    scores = score(total, CLASSES)
    truth, predicted = np.concatenate(truths), np.concatenate(predictions)
    counted = truth != IGNORED_PIXEL
    expected = {}
    for number, name in enumerate(CLASSES):
        t, p = (truth == number) & counted, (predicted == number) & counted
        expected[name] = (t & p).sum() / (t | p).sum() if (t | p).any() else None
    assert scores["IoU"] == pytest.approx(expected)
    assert expected["never"] is None
    present = [value for value in expected.values() if value is not None]
    assert scores["mIoU"] == pytest.approx(np.mean(present))
    assert scores["pixel_accuracy"] == pytest.approx((truth == predicted)[counted].mean())
    t, p = (truth == NO_CLASS) & counted, (predicted == NO_CLASS) & counted
    assert scores["mIoU_with_none"] == pytest.approx(np.mean([*present, (t & p).sum() / (t | p).sum()]))


def test_the_mean_with_no_class_is_left_out_if_every_pixel_has_a_class():
    truth = np.array([[0, 1], [2, IGNORED_PIXEL]])
    scores = score(confusion(truth, np.array([[0, 1], [1, 0]]), 4), CLASSES)
    assert "mIoU_with_none" not in scores
    assert scores["IoU"] == {"sky": 1.0, "road": 0.5, "car": 0.0, "never": None}


class FakeSampler(MaskSampler):
    """Predicts the first class everywhere, and records the shapes of its calls."""

    def __init__(self):
        self.calls = set()
        self.networks, self.batch_size = types.SimpleNamespace(mesh=one_device()), 4

    def sample_phrases(self, images, texts, indices, *, batch_sizes):
        self.calls.add((len(images), len(texts), len(indices), batch_sizes))
        probabilities = np.zeros((len(images), len(texts), 4, 4), np.float32)
        probabilities[:, 0] = 0.9
        return probabilities, 0 * probabilities


class FakeLabels(PreparedLabelMaps):
    """The first two images show the first class on a quarter of their pixels; the others show no class."""

    def __init__(self):
        self.classes = self.phrases = ("sky", "road", "car")

    def __len__(self):
        return 17

    def __getitem__(self, i):
        labels = np.full((8, 8), NO_CLASS, np.int32)
        labels[:4, :4] = 0 if i < 2 else NO_CLASS
        return {"image": np.zeros((4, 4, 3), np.uint8), "full_image": None, "labels": labels}


@pytest.mark.parametrize("count", [1, 9, 17])
def test_images_without_classes_count_and_all_batches_have_one_size(count):
    segmenter = FakeSampler()
    result = evaluate_label_maps(segmenter, FakeLabels(), 0.5, count, keep=2)
    assert result.metrics["IoU"]["sky"] == pytest.approx(min(count, 2) / 4 / count)
    assert result.metrics["pixel_accuracy"] == result.metrics["IoU"]["sky"]
    assert len(result.predicted) == min(count, 2)
    assert segmenter.calls == {(IMAGES_PER_BATCH, 3, IMAGES_PER_BATCH, (IMAGES_PER_BATCH, 4))}


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
