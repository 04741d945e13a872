"""The rule that scores generated scenes: accepts real images, rejects other prompts and images."""

import numpy as np
import pytest

from genmask_jax.data.refershapes.source import ReferShapesGenerate
from genmask_jax.data.refershapes.styles import MUTED, STYLES
from genmask_jax.evaluation.generation import evaluate_prompts
from genmask_jax.evaluation.scene_rule import detect_objects, found_objects, matches_prompt, parse_prompt
from tests.evaluation.test_shape_rule import blur

SOURCE = ReferShapesGenerate("test", 64)
COUNT = 80


def test_prompts_are_read():
    text = "a small red star, an orange cross and a large white circle"
    assert parse_prompt(text) == [
        ("small", "red", "star"),
        ("", "orange", "cross"),
        ("large", "white", "circle"),
    ]


@pytest.mark.parametrize(("style", "sigma"), [("muted", 0.0), ("muted", 0.7), ("varied", 0.0)])
def test_real_images_show_their_prompt_and_no_other(style, sigma):
    source = ReferShapesGenerate("test", 64, style=STYLES[style])
    examples = [source[i] for i in range(COUNT)]
    images = [blur(example["image"], sigma) for example in examples]
    texts = [example["text"] for example in examples]
    assert np.mean(
        [matches_prompt(image, text, source.style) for image, text in zip(images, texts, strict=True)]
    ) >= (0.98 if style == "muted" else 0.95)
    other_texts = texts[1:] + texts[:1]
    assert (
        np.mean(
            [
                matches_prompt(image, text, source.style)
                for image, text in zip(images, other_texts, strict=True)
            ]
        )
        <= 0.02
    )


def test_size_colour_kind_and_number_all_count():
    image = next(SOURCE[i]["image"] for i in range(COUNT) if len(parse_prompt(SOURCE[i]["text"])) == 1)
    ((radius, colour, kind),) = detect_objects(image, MUTED)
    size = "large" if radius > MUTED.middle_radius else "small"
    assert matches_prompt(image, f"a {size} {colour} {kind}", MUTED)
    assert matches_prompt(image, f"a {colour} {kind}", MUTED)
    assert not matches_prompt(image, f"a {'small' if size == 'large' else 'large'} {colour} {kind}", MUTED)
    assert not matches_prompt(image, f"a {'red' if colour != 'red' else 'blue'} {kind}", MUTED)
    assert not matches_prompt(image, f"a {colour} {'star' if kind != 'star' else 'cross'}", MUTED)
    assert not matches_prompt(image, f"a {colour} {kind} and a {colour} {kind}", MUTED)


def test_objects_that_are_found_are_counted():
    image = next(SOURCE[i]["image"] for i in range(COUNT) if len(parse_prompt(SOURCE[i]["text"])) == 1)
    ((_, colour, kind),) = detect_objects(image, MUTED)
    other = "star" if kind != "star" else "cross"
    for text, objects, colours in (
        (f"a {colour} {kind}", 1, 1),
        (f"a {colour} {other}", 0, 1),
        (f"a {colour} {kind} and a {colour} {kind}", 2 / 3, 2 / 3),
        (f"a {'red' if colour != 'red' else 'blue'} {kind}", 0, 0),
    ):
        found = found_objects(image, text, MUTED)
        assert found == {"objects": pytest.approx(objects), "colours": pytest.approx(colours)}


def test_a_region_of_no_known_shape_has_no_kind():
    image = np.full((64, 64, 3), 100, np.uint8)
    image[20:30, 5:60] = (220, 40, 40)  # a bar
    assert [detected[1:] for detected in detect_objects(image, MUTED)] == [("red", "")]
    assert detect_objects(np.full((64, 64, 3), 100, np.uint8), MUTED) == []


def test_real_images_score_high_and_reordered_ones_low():
    images = np.stack([SOURCE[i]["image"] for i in range(20)])
    scores = evaluate_prompts(images, SOURCE)
    assert scores["share_right"] == scores["share_right_of_real_images"] >= 0.95
    assert evaluate_prompts(images[::-1].copy(), SOURCE)["share_right"] <= 0.1
    assert set(scores["objects"]) == {"1", "2", "3"}
