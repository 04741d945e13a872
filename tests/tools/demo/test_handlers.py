"""The work of the page, without its layout."""

import concurrent.futures
import dataclasses
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from genmask_jax.data.refershapes.source import ReferShapesSegment
from genmask_jax.data.refershapes.styles import VARIED
from genmask_jax.timesteps import TimestepDistribution
from genmask_jax.tools.demo import limits
from genmask_jax.tools.demo.handlers import EXAMPLE_SIZE, Handlers
from genmask_jax.tools.demo.noise import quartiles
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import to_model_size
from genmask_jax.utils.pixels import to_signed
from genmask_jax.utils.sheets import HEAT


@pytest.fixture(scope="module")
def result(handlers):
    return handlers.segment(handlers.examples[0][0], "the red star; a circle")


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_phrases_are_separated_and_limited():
    assert limits.read_phrases(" the red star ;; a  circle\nthe red star\n") == ["the red star", "a circle"]
    for text, message in (
        (" ; ", "Type what"),
        (";".join("abcdefg"), "at most 6"),
        ("a" * 201, "201 characters"),
    ):
        with pytest.raises(UserError, match=message):
            limits.read_phrases(text)


def test_large_images_are_reduced_and_keep_their_shape():
    assert limits.limit_size(np.zeros((3000, 2000, 3), np.uint8)).shape == (1024, 683, 3)
    assert limits.limit_size(np.zeros((5, 4000, 3), np.uint8)).shape == (1, 1024, 3)
    small = np.zeros((10, 20, 3), np.uint8)
    assert limits.limit_size(small) is small


def test_a_visitor_waits_after_too_many_requests(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    limiter = limits.RateLimiter(3, max_visitors=2)
    for _ in range(3):
        limiter.count("a")
    with pytest.raises(UserError, match="wait 61 seconds"):
        limiter.count("a")
    limiter.count("b")
    now[0] = 60.5
    limiter.count("a")


def test_pictures_and_files_match_the_masks(handlers, result):
    view = handlers.render(result, 0.5)
    masks = result.probabilities > 0.5
    for mask, path in zip(masks, view.masks, strict=True):
        factor = len(pixels(path)) // len(mask)
        np.testing.assert_array_equal(pixels(path)[::factor, ::factor] > 0, mask)
    np.testing.assert_array_equal(view.result.masks, masks)
    names = {pathlib.Path(path).name for path in view.files}
    assert {"mask_1.png", "mask_2.png", "label_map.png", "rle.json", "boxes.json"} <= names


def test_colours_of_uncertainty_span_its_range(handlers, result):
    for maximum in (0.06, 0.5):
        values = np.linspace(0, maximum, result.masks.size, dtype=np.float32).reshape(result.masks.shape)
        view = handlers.render(dataclasses.replace(result, uncertainty=values), 0.5)
        assert view.colour_range == pytest.approx(maximum)
        np.testing.assert_array_equal(pixels(view.uncertainty[0])[0, 0], HEAT[0])
        np.testing.assert_array_equal(pixels(view.uncertainty[-1])[-1, -1], HEAT[-1])
    certain = dataclasses.replace(result, uncertainty=np.full(result.masks.shape, 0.001, np.float32))
    assert pixels(handlers.render(certain, 0.5).uncertainty[0]).max() < 40  # small values stay dark


def test_a_threshold_needs_no_other_pass(handlers, result):
    for t in (0.05, 0.95):
        np.testing.assert_array_equal(handlers.render(result, t).result.masks, result.probabilities > t)


def test_files_of_old_results_are_deleted(handlers, result, monkeypatch):
    monkeypatch.setattr("genmask_jax.tools.demo.handlers.MAX_RESULTS", 2)
    paths = [pathlib.Path(handlers.render(result, 0.5).files[0]) for _ in range(4)]
    assert [path.exists() for path in paths][-2:] == [True, True]
    assert not paths[0].exists()
    assert pathlib.Path(handlers.examples[0][0]).exists()


def test_results_that_are_drawn_at_once_have_their_own_files(handlers, result):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        views = list(pool.map(lambda _: handlers.render(result, 0.5), range(32)))
    assert len({view.overlay for view in views}) == len(views)


def test_images_of_too_many_pixels_are_refused(handlers, monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "MAX_PIXELS", 10**6)
    Image.new("1", (2000, 1000)).save(tmp_path / "x.png")
    with pytest.raises(
        UserError, match=r"x\.png cannot be read: it has 2,000 by 1,000 pixels; reduce it to 1 "
    ):
        handlers.segment(str(tmp_path / "x.png"), "a star")


def test_examples_are_scenes_in_the_style_that_the_model_was_trained_on(handlers):
    data = dataclasses.replace(handlers.config.data, scenes="varied")
    other = Handlers(handlers.segmenter.networks, dataclasses.replace(handlers.config, data=data))
    source = ReferShapesSegment("test", EXAMPLE_SIZE, data.seed, VARIED)
    for i, (path, phrases) in enumerate(other.examples):
        np.testing.assert_array_equal(pixels(path), source[i]["image"])
        assert phrases.startswith(source[i]["text"])


def test_files_that_are_no_images_are_named(handlers, tmp_path):
    (tmp_path / "x.png").write_text("hello")
    with pytest.raises(UserError, match=r"x\.png cannot be read: it is not an image"):
        handlers.segment(str(tmp_path / "x.png"), "a star")
    with pytest.raises(UserError, match="Add an image"):
        handlers.segment(None, "a star")


def test_candidates_emerge_step_by_step_and_each_can_be_drawn_again(handlers):
    frames = handlers.generate("a red star", 3, 2, 2.0, 5)
    assert list(frames) == [3, 4]
    for seed, paths in frames.items():
        assert len(paths) == 5
        image = handlers.generator("a red star", seed=seed, steps=5, guidance_scale=2.0)
        np.testing.assert_allclose(pixels(paths[-1]), np.asarray(image), atol=1)
    again = handlers.generate("a red star", 4, 1, 2.0, 5)
    np.testing.assert_array_equal(pixels(again[4][-1]), pixels(frames[4][-1]))
    for wrong in (
        ("", 0, 4, 1.0, 5),
        ("a", -1, 4, 1.0, 5),
        ("a", None, 4, 1.0, 5),
        ("a", limits.MAX_SEED, 2, 1.0, 5),
        ("a", 0, 0, 1.0, 5),
        ("a", 0, limits.MAX_CANDIDATES + 1, 1.0, 5),
        ("a", 0, 4, 99.0, 5),
        ("a", 0, 4, 1.0, 7),
    ):
        with pytest.raises(UserError):
            handlers.generate(*wrong)


def test_no_noise_is_the_vae_and_pure_noise_is_the_mask_of_one_pass(handlers, result):
    networks = handlers.segmenter.networks
    clean = handlers.preview_noise(result, 0.0)
    small = to_model_size(result.image, networks.size)[None]
    vae = networks.merge(networks.params, networks.frozen).vae
    reconstruction = np.asarray(jax.jit(lambda x: vae.decode(vae.encode(to_signed(x))))(small))[0]
    levels = np.clip(reconstruction * 127.5 + 127.5, 0, 255)
    for name in ("image, with noise", "image, from one pass"):
        np.testing.assert_allclose(pixels(clean[name]), levels, atol=1)
    probability = handlers.segmenter(small[0], result.phrases[0]).probabilities[0]
    noisy = handlers.preview_noise(result, 1.0)
    decoded = pixels(noisy["mask, from one pass"]).mean(-1) / 255
    assert np.abs(decoded - probability).mean() < 0.05  # clipped before and after the mean of the channels


def test_densities_match_the_distributions(handlers):
    distributions = handlers.densities()
    t = (np.arange(50) + 0.5) / 50
    for distribution, values in distributions.items():
        assert np.mean(values) == pytest.approx(1.0)
        extremes = np.mean(values * ((t < 0.1) | (t > 0.8)))
        assert (extremes > 0.9) if distribution.startswith("masks") else (extremes < 0.5)


def test_quartiles_match_the_formula():
    for mean, std in ((0.0, 1.0), (1.6, 0.8)):  # the default, and the package's model
        expected = 1 / (1 + np.exp(-(mean + std * np.array([-0.67449, 0.67449]))))
        assert quartiles(TimestepDistribution("logit_normal", mean=mean, std=std)) == pytest.approx(
            expected, abs=0.01
        )


def test_a_large_image_is_shown_as_it_is(handlers):
    view = handlers.render(handlers.segment(Image.new("RGB", (900, 600)), "a star"), 0.5)
    assert Image.open(view.overlay).size == (900, 600)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK", "I;16", "P", "1"])
def test_images_of_every_mode_are_segmented(handlers, tmp_path, mode):
    Image.new(mode, (40, 30)).save(path := tmp_path / ("x.jpg" if mode == "CMYK" else "x.png"))
    assert handlers.segment(str(path), "a star").image.shape == (30, 40, 3)
