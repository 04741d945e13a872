"""Sheets: the pixels that must be on them, and sizes that differ."""

import numpy as np
import pytest
from PIL import Image

from genmask_jax.utils.sheets import (
    generation_sheet,
    heat,
    label_colour,
    outlined,
    overlay,
    segmentation_sheet,
)

TEAL = (10, 130, 140)


def contains(path, block):
    """Whether the array `block` [h, w, 3] stands somewhere on the sheet."""
    sheet = np.asarray(Image.open(path))
    windows = np.lib.stride_tricks.sliding_window_view(sheet, block.shape)[..., 0, :, :, :]
    # Rows first: comparing whole windows everywhere would take gigabytes.
    ys, xs = np.nonzero((windows[:, :, 0, 0] == block[0, 0]).all(-1))
    return any((windows[y, x] == block).all() for y, x in zip(ys, xs, strict=True))


def example(height, width, text="the teal square", iou=0.75):
    image = np.full((height, width, 3), TEAL, np.uint8)
    image[: height // 4] = (200, 30, 90)
    mask = np.zeros((height, width), np.uint8)
    mask[2 : height // 2, 3 : width // 2] = 1
    mask[-2:] = 255
    probability = np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width)
    prediction = np.roll(mask == 1, 1, axis=0)
    row = {"image": image, "text": text, "mask": mask, "probability": probability}
    return row | {"prediction": prediction, "iou": iou}


def big(image, factor):
    return image.repeat(factor, 0).repeat(factor, 1)


def test_overlay_keeps_the_mask_outlines_it_and_greys_the_rest():
    image = np.full((6, 7, 3), (100, 200, 0), np.uint8)
    mask = np.zeros((6, 7), bool)
    mask[1:5, 2:6] = True
    drawn = overlay(image, mask, (200, 0, 100))
    assert drawn.dtype == np.uint8
    assert (drawn[~mask] == 50).all()
    assert (drawn[2:4, 3:5] == (100, 200, 0)).all()
    assert (drawn[1, 2:6] == (200, 0, 100)).all()
    assert (drawn[1:5, 5] == (200, 0, 100)).all()
    assert (image == (100, 200, 0)).all()


def test_overlay_of_everything_and_nothing():
    image = np.full((4, 4, 3), 255, np.uint8)
    assert (overlay(image, np.zeros((4, 4), bool)) == 127).all()
    drawn = overlay(image, np.ones((4, 4), bool), (255, 0, 1))
    assert (drawn[0] == (255, 0, 1)).all()
    assert (drawn[1:3, 1:3] == 255).all()


def test_regions_keep_their_own_colours_inside_borders_that_differ():
    yellow = (250, 220, 40)
    image = np.full((400, 300, 3), yellow, np.uint8)
    labels = np.full((400, 300), -1)
    labels[50:150, 50:150], labels[200:300, 100:200] = 0, 4  # 4 has a yellow border
    drawn = outlined(image, labels)
    for top, left, number in ((50, 50, 0), (200, 100, 4)):
        region = drawn[top : top + 100, left : left + 100]
        assert (region[:3] == label_colour(number)).all()
        assert (region[:, :3] == label_colour(number)).all()
        assert (region[3, 3:-3] == 0).all()  # between border and region
        assert (region[4:-4, 4:-4] == yellow).all()
    assert (drawn[labels < 0] == int(np.mean(yellow) / 2)).all()
    fine = outlined(image[:64, :64], labels[40:104, 40:104])
    assert (fine[10, 10:] == label_colour(0)).all()
    assert (fine[11:-1, 11:-1] == yellow).all()


def lightness(colours: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB colours (0 to 255)."""
    linear = np.where(colours <= 10, colours / 3294.6, ((colours / 255 + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


def seen_without(cone: int, colours: np.ndarray) -> np.ndarray:
    """Colours as seen without red (0) or green (1) cones, by Viénot, Brettel and Mollon (1999)."""
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.02996, 0.18431, 1.46709]])
    lms = ((colours / 255) ** 2.2) @ to_lms.T
    lms[:, cone] = lms @ ([0, 2.02344, -2.52581], [0.494207, 0, 1.24827])[cone]
    return np.clip(lms @ np.linalg.inv(to_lms).T, 0, 1) ** (1 / 2.2) * 255


@pytest.mark.parametrize("cone", [None, 0, 1])
def test_borders_of_a_few_phrases_can_be_told_apart_by_the_colour_blind(cone):
    colours = np.array([label_colour(i) for i in range(7)], float)
    seen = colours if cone is None else seen_without(cone, colours)
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(7, 1)]
    assert distances.min() > 30


def test_heat_grows_in_lightness_from_zero_to_the_top():
    drawn = heat(np.linspace(0, 0.2, 50, dtype=np.float32)[None], 0.2)[0]
    light = lightness(drawn.astype(float))
    assert (np.diff(light) > 0).all()
    assert light[0] < 1
    assert light[-1] > 95
    np.testing.assert_array_equal(heat(np.array([[0.9]], np.float32), 0.2)[0, 0], drawn[-1])


def test_a_segmentation_sheet_shows_all_four_images_enlarged(tmp_path):
    row = example(64, 64)
    segmentation_sheet([row], tmp_path / "sheet.png")
    truth = np.select([row["mask"] == 1, row["mask"] == 255], [255, 128], 0).astype(np.uint8)
    probability = np.round(row["probability"] * 255).astype(np.uint8)
    for panel in (row["image"], np.dstack([truth] * 3), np.dstack([probability] * 3)):
        assert contains(tmp_path / "sheet.png", big(panel, 2))
    assert contains(tmp_path / "sheet.png", overlay(big(row["image"], 2), big(row["prediction"], 2)))


def test_the_expression_and_the_score_are_written(tmp_path):
    sheets = []
    for changes in ({}, {"text": "the red one"}, {"iou": 0.25}):
        segmentation_sheet([example(64, 64) | changes], tmp_path / "sheet.png")
        sheets.append(np.asarray(Image.open(tmp_path / "sheet.png")).copy())
    assert (sheets[0] != sheets[1]).any()
    assert (sheets[0] != sheets[2]).any()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_examples_of_every_size_and_length_find_a_place(tmp_path, count):
    sizes = [(64, 64), (48, 96), (300, 500), (7, 9), (128, 120)]
    texts = ["", "a", "the small thing " * 12, "x" * 60, "Straße, café"]
    rows = [example(*size, text=text) for size, text in zip(sizes[:count], texts, strict=False)]
    segmentation_sheet(rows, tmp_path / "sheet.png", columns=2)
    assert contains(tmp_path / "sheet.png", big(rows[0]["image"], 2))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.mode == "RGB"
        assert max(sheet.size) < 3000


def test_a_large_image_is_reduced_with_its_proportions(tmp_path):
    generation_sheet([np.full((300, 600, 3), TEAL, np.uint8)], ["wide"], tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert np.count_nonzero((sheet == TEAL).all(-1)) == 128 * 256


def test_a_generation_sheet_shows_every_image_and_its_prompt(tmp_path):
    generator = np.random.default_rng(0)
    images = list(generator.integers(0, 256, (7, 32, 32, 3), dtype=np.uint8))
    generation_sheet(images, ["a star"] * 7, tmp_path / "a.png", columns=3)
    for image in images:
        assert contains(tmp_path / "a.png", big(image, 4))
    generation_sheet(images, ["a star"] * 6 + ["a blue ring"], tmp_path / "b.png", columns=3)
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_a_missing_prompt_is_refused(tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        generation_sheet(list(np.zeros((2, 8, 8, 3), np.uint8)), ["one"], tmp_path / "sheet.png")
