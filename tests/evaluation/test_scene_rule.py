"""The rule that scores generated scenes: right on real ones, wrong on other prompts and other images."""

import numpy as np
import pytest

from genmask_jax.data.refershapes.source import ReferShapesGenerate
from genmask_jax.data.refershapes.styles import MUTED, STYLES
from genmask_jax.evaluation.generation import evaluate_prompts
from genmask_jax.evaluation.scene_rule import named_in, objects_in, shows
from tests.evaluation.test_shape_rule import soften

SOURCE = ReferShapesGenerate("test", 64)
COUNT = 80


def test_prompts_are_read():
    text = "a small red star, an orange cross and a large white circle"
    assert named_in(text) == [("small", "red", "star"), ("", "orange", "cross"), ("large", "white", "circle")]


@pytest.mark.parametrize(("style", "sigma"), [("muted", 0.0), ("muted", 0.7), ("varied", 0.0)])
def test_real_images_show_their_prompt_and_no_other(style, sigma):
    source = ReferShapesGenerate("test", 64, style=STYLES[style])
    examples = [source[i] for i in range(COUNT)]
    images = [soften(example["image"], sigma) for example in examples]
    texts = [example["text"] for example in examples]
    assert np.mean([shows(image, text, source.style) for image, text in zip(images, texts, strict=True)]) >= (
        0.98 if style == "muted" else 0.95
    )
    others = texts[1:] + texts[:1]
    assert (
        np.mean([shows(image, text, source.style) for image, text in zip(images, others, strict=True)])
        <= 0.02
    )


def test_size_colour_kind_and_number_all_count():
    image = next(SOURCE[i]["image"] for i in range(COUNT) if len(named_in(SOURCE[i]["text"])) == 1)
    ((radius, colour, kind),) = objects_in(image, MUTED)
    size = "large" if radius > MUTED.middle_radius else "small"
    assert shows(image, f"a {size} {colour} {kind}", MUTED)
    assert shows(image, f"a {colour} {kind}", MUTED)
    assert not shows(image, f"a {'small' if size == 'large' else 'large'} {colour} {kind}", MUTED)
    assert not shows(image, f"a {'red' if colour != 'red' else 'blue'} {kind}", MUTED)
    assert not shows(image, f"a {colour} {'star' if kind != 'star' else 'cross'}", MUTED)
    assert not shows(image, f"a {colour} {kind} and a {colour} {kind}", MUTED)


def test_what_has_no_shape_is_something_else():
    image = np.full((64, 64, 3), 100, np.uint8)
    image[20:30, 5:60] = (220, 40, 40)  # a bar
    assert [found[1:] for found in objects_in(image, MUTED)] == [("red", "")]
    assert objects_in(np.full((64, 64, 3), 100, np.uint8), MUTED) == []


def test_real_images_score_as_they_should():
    images = np.stack([SOURCE[i]["image"] for i in range(20)])
    found = evaluate_prompts(images, SOURCE)
    assert found["share_right"] == found["share_right_of_real_images"] >= 0.95
    assert evaluate_prompts(images[::-1].copy(), SOURCE)["share_right"] <= 0.1
    assert set(found["objects"]) == {"1", "2", "3"}
