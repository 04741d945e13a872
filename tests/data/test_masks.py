"""Run lengths against pycocotools, and what must not reach it."""

import numpy as np
import pytest
from pycocotools import mask as coco

from genmask_jax.data import masks


def random_masks(count, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(count):
        mask = rng.random(rng.integers(1, 40, 2)) < rng.random()
        yield np.kron(mask, np.ones((7, 5), bool)) if i % 3 else mask  # runs of several characters too


def test_masks_come_back_and_are_those_of_pycocotools():
    for mask in random_masks(300):
        counts = masks.encode(mask)
        assert counts.encode() == coco.encode(np.asfortranarray(mask, np.uint8))["counts"]
        assert (masks.decode(counts, mask.shape) == mask).all()
        assert masks.area(counts, mask.shape) == mask.sum()
        assert masks.from_rle({"size": mask.shape, "counts": counts}, mask.shape) == counts
        lengths = masks.run_lengths(counts)
        as_list = {"size": list(mask.shape), "counts": lengths}
        assert coco.frPyObjects(as_list, *mask.shape)["counts"].decode() == counts


@pytest.mark.parametrize("counts", ["", "0", "`0`0", "zz", "\x00", "é", "`", "P1"])
def test_counts_that_are_no_mask_of_that_size_are_refused(counts):
    with pytest.raises(ValueError, match=r"pixels|counts|number|length"):
        masks.from_rle({"size": [4, 4], "counts": counts}, (4, 4))


def test_a_mask_of_another_size_is_not_prepared():
    with pytest.raises(ValueError, match="do not add up to 4 x 5 pixels"):
        masks.from_coco(masks.encode(np.ones((5, 5))), (4, 5))


def test_polygons_are_a_union_and_lists_of_runs_are_read():
    square, other = [1, 1, 6, 1, 6, 6, 1, 6], [4, 4, 9, 4, 9, 9, 4, 9]
    segmentation, complaints = masks.usable([square, other, [1, 1, 5, 5], [0, 0]], (12, 12))
    assert complaints == ["polygon 2 has 2 points", "polygon 3 has 1 points"]
    each = [coco.decode(coco.frPyObjects([p], 12, 12))[..., 0] for p in (square, other)]
    assert (each[0] & each[1]).any()
    union = masks.decode(masks.from_coco(segmentation, (12, 12)), (12, 12))
    assert (union == (each[0] | each[1])).all()
    crowd, _ = masks.usable({"size": [2, 3], "counts": [1, 2, 3]}, (2, 3))
    assert masks.decode(masks.from_coco(crowd, (2, 3)), (2, 3)).tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ([], "no segmentation"),
        (None, "no segmentation"),
        ([[1, 1, 5, 5]], "2 points"),
        ([[0, 0, 1, 1, float("nan"), 3]], "not numbers"),
        (["abcdef"], "0 points"),
        ({"size": [3, 2], "counts": [6]}, "3 x 2 pixels for an image of 2 x 3"),
        ({"size": [2, 3], "counts": [5]}, "do not add up"),
        ({"size": [2, 3], "counts": [8, -2]}, "do not add up"),
        ({"size": [2, 3], "counts": "0"}, "do not add up"),
        ({"size": [2, 3]}, "no counts"),
        ({"counts": [6]}, "no pixels"),
    ],
)
def test_segmentations_that_are_none_are_refused_and_say_why(segmentation, says):
    with pytest.raises(ValueError, match=says):
        masks.usable(segmentation, (2, 3))


def test_at_the_models_size_a_pixel_is_the_targets_where_half_of_it_is_covered():
    rng = np.random.default_rng(0)
    mask = np.kron(rng.random((8, 8)) < 0.5, np.ones((16, 16))).astype(
        np.uint8
    )  # some pixels are covered whole
    mask ^= rng.random(mask.shape) < 0.3
    mask[:40, :40] = 1
    shares = mask.reshape(16, 8, 16, 8).mean((1, 3))
    np.testing.assert_array_equal(masks.to_model_mask(mask, 16), shares >= 0.5)
    ignored = np.where(mask == 1, 1, masks.IGNORE).astype(np.uint8)
    np.testing.assert_array_equal(masks.to_model_mask(ignored, 16), shares >= 0.5)
    np.testing.assert_array_equal(masks.to_model_mask(mask, 128), mask)
    larger = masks.to_model_mask(mask, 256)
    np.testing.assert_array_equal(larger, np.kron(mask, np.ones((2, 2))))


def test_a_thin_target_stays_and_only_an_empty_mask_becomes_empty():
    """The pole covers an eighth of the pixels that it passes, the dot one of 16 thousand."""
    pole = np.zeros((256, 256), np.uint8)
    pole[16:240, 99] = 1
    found = masks.to_model_mask(pole, 32)
    assert found.sum() == 28
    assert found[2:30, 12].all()
    dot = np.zeros((2048, 2048), np.uint8)
    dot[500, 1500] = 1
    assert np.argwhere(masks.to_model_mask(dot, 16)).tolist() == [[3, 11]]
    assert not masks.to_model_mask(np.zeros_like(pole), 32).any()
    assert not masks.to_model_mask(np.full_like(pole, masks.IGNORE), 32).any()
