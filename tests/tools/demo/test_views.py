"""What the page says and shows of a result, as HTML."""

import dataclasses
import re

import numpy as np
import pytest

from genmask_jax.inference.segmentation import Segmentation
from genmask_jax.tools.demo import views

HOSTILE = "<img src=x onerror=alert(1)> {{value}} ${alert(2)}"


def result(*phrases: str, missing: tuple[str, ...] = ()) -> Segmentation:
    probabilities = np.zeros((len(phrases), 8, 8), np.float32)
    for i, phrase in enumerate(phrases):
        probabilities[i, i, :4] = phrase not in missing
    return Segmentation(
        image=np.zeros((8, 8, 3), np.uint8),
        phrases=phrases,
        masks=probabilities > 0.5,
        probabilities=probabilities,
        scores=probabilities.max((1, 2)),
        uncertainty=probabilities / 4,
        threshold=0.5,
    )


def shown(found: Segmentation) -> views.Shown:
    numbers = range(len(found.phrases))
    return views.Shown(
        found=found,
        overlay="/t/overlay.png",
        label_map="/t/label_map.png",
        masks=[f"/t/mask_{i}.png" for i in numbers],
        uncertainty=[f"/t/uncertainty_{i}.png" for i in numbers],
        top=0.25,
        files=[],
    )


@pytest.mark.parametrize(
    ("phrases", "missing", "said"),
    [
        (("a",), (), "Found a mask."),
        (("a",), ("a",), "Nothing found for “a”."),
        (("a", "b"), (), "Found a mask for each of 2 phrases."),
        (("a", "b"), ("b",), "Found 1 of 2 phrases; nothing found for “b”."),
        (("a", "b", "c"), ("a", "b", "c"), "Nothing found for “a”, “b” and “c”."),
    ],
)
def test_what_was_found_is_said(phrases, missing, said):
    assert views.summary(result(*phrases, missing=missing)) == [said]


def test_words_that_the_model_cannot_know_are_said_once():
    found = dataclasses.replace(result("a dog", "the dog; a cat"), unknown_words=(("dog",), ("dog", "cat")))
    assert views.summary(found)[1:] == [
        "The model was not trained on the words “dog” and “cat”; what it makes of them means little."
    ]


def test_every_phrase_has_its_pictures_with_captions_and_numbers():
    found = result("the red star", "the dog", missing=("the dog",))
    html = views.details(shown(found), noises=4)
    for i, phrase in enumerate(found.phrases):
        assert f'src="gradio_api/file=/t/mask_{i}.png" alt="Mask of “{phrase}”"' in html
        assert (
            f'src="gradio_api/file=/t/uncertainty_{i}.png" alt="Uncertainty of the mask of “{phrase}”"'
            in html
        )
    assert re.findall(r"<p>([^<]*)</p>", html)[:2] == [
        "4 px (6.2%), in the box from 0, 0 to 4, 1; score 1.00",
        "Nothing found.",
    ]
    assert html.count("<figcaption>") == 5  # of two masks, two uncertainties and the label map
    assert "4 noises" in html
    assert ">0.25<" in html
    assert "label_map" not in views.details(shown(result("a")), noises=4)


def test_nothing_that_was_typed_becomes_code():
    pages = [
        views.message(HOSTILE),
        views.overlay(shown(result(HOSTILE))),
        views.details(shown(result(HOSTILE)), 4),
        views.drawn({0: ["/t/1.png", "/t/2.png"]}, HOSTILE, 8),
        views.noise({"mask": "/t/1.png"}, HOSTILE, 0.5),
        views.examples([("/t/1.png", HOSTILE)]),
    ]
    for page in pages:
        assert "&lt;img src=x" in page
        assert "onerror=alert" in page
        assert not re.search(r"<img src=x|[{}$]", page)


def test_every_picture_has_a_name():
    pages = [
        views.overlay(shown(result("a", "b"))),
        views.details(shown(result("a", "b")), 4),
        views.noise({"mask": "/t/1.png"}, "a", 0.5),
        views.examples([("/t/1.png", "a")]),
    ]
    for page in pages:
        names = re.findall(r'<img [^>]*alt="([^"]*)"', page)
        assert len(names) == page.count("<img ")
        assert all(names)
    drawn = {seed: [f"/t/{seed}_{i}.png" for i in range(20)] for seed in (7, 8)}
    steps = views.drawn(drawn, "a star", 8)
    assert re.findall(r"\d+ of 20", steps) == [f"{i} of 20" for i in (1, 4, 6, 9, 12, 15, 17, 20)]
    for seed in drawn:
        assert steps.count(f'alt="Drawn with seed {seed}: a star"') == 1  # of frames in one place, the last
        assert f"<figcaption>seed {seed}</figcaption>" in steps


def test_the_plot_of_densities_names_its_lines():
    html = views.densities({"masks (bimodal)": np.full(50, 9.0), "images (uniform)": np.ones(50)})
    assert 'aria-label="Plot of masks (bimodal), images (uniform)"' in html
    assert '<li class="line1">images (uniform)</li>' in html
