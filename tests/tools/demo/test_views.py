"""The HTML of the page's results."""

import dataclasses
import re

import numpy as np
import pytest

from genmask_jax.inference.segmentation import Segmentation
from genmask_jax.tools.demo import views

HOSTILE = "<img src=x onerror=alert(1)> {{value}} ${alert(2)}"


def make_result(*phrases: str, missing: tuple[str, ...] = ()) -> Segmentation:
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


def view(result: Segmentation) -> views.ResultView:
    indices = range(len(result.phrases))
    return views.ResultView(
        result=result,
        overlay="/t/overlay.png",
        label_map="/t/label_map.png",
        masks=[f"/t/mask_{i}.png" for i in indices],
        uncertainty=[f"/t/uncertainty_{i}.png" for i in indices],
        colour_range=0.25,
        files=[],
    )


@pytest.mark.parametrize(
    ("phrases", "missing", "summary"),
    [
        (("a",), (), "Found a mask."),
        (("a",), ("a",), "Nothing found for “a”."),
        (("a", "b"), (), "Found a mask for each of 2 phrases."),
        (("a", "b"), ("b",), "Found 1 of 2 phrases; nothing found for “b”."),
        (("a", "b", "c"), ("a", "b", "c"), "Nothing found for “a”, “b” and “c”."),
    ],
)
def test_the_summary_names_phrases_without_a_mask(phrases, missing, summary):
    assert views.summarize(make_result(*phrases, missing=missing)) == [summary]


def test_unknown_words_are_named_once():
    result = dataclasses.replace(
        make_result("a dog", "the dog; a cat"), unknown_words=(("dog",), ("dog", "cat"))
    )
    assert views.summarize(result)[1:] == [
        "The model was not trained on the words “dog” and “cat”; results for them are unreliable."
    ]


def test_every_phrase_has_its_pictures_with_captions_and_numbers():
    result = make_result("the red star", "the dog", missing=("the dog",))
    html = views.details(view(result), noises=4)
    for i, phrase in enumerate(result.phrases):
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
    assert "label_map" not in views.details(view(make_result("a")), noises=4)


def test_typed_texts_are_escaped():
    pages = [
        views.message(HOSTILE),
        views.overlay(view(make_result(HOSTILE))),
        views.details(view(make_result(HOSTILE)), 4),
        views.candidates({0: ["/t/1.png", "/t/2.png"]}, HOSTILE, 8),
        views.noise({"mask": "/t/1.png"}, HOSTILE, 0.5),
        views.examples([("/t/1.png", HOSTILE)]),
    ]
    for page in pages:
        assert "&lt;img src=x" in page
        assert "onerror=alert" in page
        assert not re.search(r"<img src=x|[{}$]", page)


def test_every_picture_has_a_name():
    pages = [
        views.overlay(view(make_result("a", "b"))),
        views.details(view(make_result("a", "b")), 4),
        views.noise({"mask": "/t/1.png"}, "a", 0.5),
        views.examples([("/t/1.png", "a")]),
    ]
    for page in pages:
        names = re.findall(r'<img [^>]*alt="([^"]*)"', page)
        assert len(names) == page.count("<img ")
        assert all(names)
    frames = {seed: [f"/t/{seed}_{i}.png" for i in range(20)] for seed in (7, 8)}
    steps = views.candidates(frames, "a star", 8)
    assert re.findall(r"\d+ of 20", steps) == [f"{i} of 20" for i in (1, 4, 6, 9, 12, 15, 17, 20)]
    for seed in frames:
        assert steps.count(f'alt="Drawn with seed {seed}: a star"') == 1  # only the last frame
        assert f"<figcaption>seed {seed}</figcaption>" in steps


def test_the_plot_of_densities_names_its_lines():
    html = views.densities({"masks (bimodal)": np.full(50, 9.0), "images (uniform)": np.ones(50)})
    assert 'aria-label="Plot of masks (bimodal), images (uniform)"' in html
    assert '<li class="line1">images (uniform)</li>' in html
