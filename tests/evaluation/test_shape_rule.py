"""The rule that scores generated shapes: accepts real images, rejects wrong names and other regions."""

import numpy as np
import pytest
from scipy import ndimage

from genmask_jax.data.refershapes.source import ReferShapesGenerate
from genmask_jax.data.refershapes.styles import MUTED, VARIED
from genmask_jax.evaluation.shape_rule import contains_shape

COUNT = 120


KINDS, COLOURS = MUTED.kinds, MUTED.colours


@pytest.fixture(scope="module")
def images():
    return real_images(MUTED)


def real_images(style):
    """(image, colour, kind) of test images of one shape."""
    source, images = ReferShapesGenerate("test", 64, style=style), []
    for i in range(len(source)):
        example = source[i]
        if " and " not in example["text"]:
            images.append((example["image"], *example["text"].split()[-2:]))
        if len(images) == COUNT:
            return images


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, (sigma, sigma, 0)) if sigma else image


@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_real_images_hold_their_prompt(images, sigma):
    hits = [contains_shape(blur(image, sigma), colour, kind, MUTED) for image, colour, kind in images]
    assert np.mean(hits) >= 0.95


def test_varied_images_hold_their_prompt_and_no_other_kind():
    images, kinds = real_images(VARIED), VARIED.kinds
    assert np.mean([contains_shape(image, colour, kind, VARIED) for image, colour, kind in images]) >= 0.95
    wrong = [kinds[(kinds.index(kind) + 1 + i % 7) % 8] for i, (_, _, kind) in enumerate(images)]
    hits = [
        contains_shape(image, colour, kind, VARIED)
        for (image, colour, _), kind in zip(images, wrong, strict=True)
    ]
    assert np.mean(hits) <= 0.02


@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_real_images_do_not_hold_another_kind(images, sigma):
    wrong = [KINDS[(KINDS.index(kind) + 1 + i % 5) % 6] for i, (_, _, kind) in enumerate(images)]
    hits = [
        contains_shape(blur(p, sigma), c, kind, MUTED) for (p, c, _), kind in zip(images, wrong, strict=True)
    ]
    assert np.mean(hits) <= 0.05


def test_real_images_do_not_hold_another_colour(images):
    names = list(COLOURS)
    wrong = [names[(names.index(c) + 1 + i % 7) % 8] for i, (_, c, _) in enumerate(images)]
    hits = [
        contains_shape(blur(p, 0.7), colour, k, MUTED)
        for (p, _, k), colour in zip(images, wrong, strict=True)
    ]
    assert np.mean(hits) <= 0.05


def test_an_image_matches_at_most_one_kind(images):
    for image, colour, kind in images[:20]:
        assert [name for name in KINDS if contains_shape(image, colour, name, MUTED)] in ([], [kind])


def _plain(colour: str, rows: slice, columns: slice) -> np.ndarray:
    image = np.full((64, 64, 3), 100, np.uint8)
    image[rows, columns] = COLOURS[colour]
    return image


def test_a_hue_between_two_colours_is_the_nearer_one():
    hue = 0.4 * np.array(COLOURS["orange"]) + 0.6 * np.array(COLOURS["yellow"])
    image = np.full((64, 64, 3), 100, np.uint8)
    image[20:38, 20:38] = hue
    assert contains_shape(image, "yellow", "square", MUTED)
    assert not contains_shape(image, "orange", "square", MUTED)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(_plain("red", slice(0, 0), slice(0, 0)), id="nothing"),
        pytest.param(_plain("red", slice(0, 64), slice(0, 64)), id="all of it"),
        pytest.param(_plain("red", slice(0, 64), slice(0, 32)), id="half of it"),
        pytest.param(_plain("red", slice(20, 24), slice(20, 24)), id="a speck"),
        pytest.param(_plain("red", slice(20, 30), slice(5, 60)), id="a bar"),
        pytest.param(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), id="noise"),
    ],
)
def test_other_regions_match_no_kind(image):
    assert not any(contains_shape(image, "red", kind, MUTED) for kind in KINDS)
