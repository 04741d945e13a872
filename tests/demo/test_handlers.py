"""What the page does, without the page."""

import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from genmask_jax.demo import limits
from genmask_jax.demo.noise import NAMES
from genmask_jax.errors import UserError
from genmask_jax.images import to_model_size
from genmask_jax.pixels import to_signed


@pytest.fixture(scope="module")
def found(handlers):
    return handlers.segment(handlers.examples[0][0], "the red star; a circle")


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_phrases_are_separated_and_limited():
    assert limits.read_phrases(" the red star ;; a  circle\nthe red star\n") == ["the red star", "a circle"]
    for text, why in ((" ; ", "Say what"), (";".join("abcdefg"), "at most 6"), ("a" * 201, "201 characters")):
        with pytest.raises(UserError, match=why):
            limits.read_phrases(text)


def test_large_images_are_reduced_and_keep_their_shape():
    assert limits.reduced(np.zeros((3000, 2000, 3), np.uint8)).shape == (1024, 683, 3)
    assert limits.reduced(np.zeros((5, 4000, 3), np.uint8)).shape == (1, 1024, 3)
    small = np.zeros((10, 20, 3), np.uint8)
    assert limits.reduced(small) is small


def test_a_visitor_waits_after_too_many_requests(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    rate = limits.Rate(3, visitors=2)
    for _ in range(3):
        rate.count("a")
    with pytest.raises(UserError, match="wait 61 seconds"):
        rate.count("a")
    rate.count("b")
    now[0] = 60.5
    rate.count("a")


def test_the_views_are_those_of_the_masks(handlers, found):
    shown = handlers.show(found, 0.5)
    masks = found.probabilities > 0.5
    for mask, (image, phrase), text in zip(masks, shown.masks, found.phrases, strict=True):
        assert phrase == text
        np.testing.assert_array_equal(pixels(image) > 0, mask)
    assert [row[1] for row in shown.table] == [f"{mask.sum():,}" for mask in masks]
    names = {pathlib.Path(path).name for path in shown.files}
    assert {"mask_1.png", "mask_2.png", "label_map.png", "rle.json", "boxes.json"} <= names


def test_a_threshold_needs_no_other_pass(handlers, found):
    areas = [handlers.show(found, t).table[0][1] for t in (0.05, 0.95)]
    assert areas == [f"{(found.probabilities[0] > t).sum():,}" for t in (0.05, 0.95)]


def test_files_of_old_results_are_deleted(handlers, found, monkeypatch):
    monkeypatch.setattr("genmask_jax.demo.handlers.KEPT", 2)
    paths = [pathlib.Path(handlers.show(found, 0.5).files[0]) for _ in range(4)]
    assert [path.exists() for path in paths][-2:] == [True, True]
    assert not paths[0].exists()
    assert pathlib.Path(handlers.examples[0][0]).exists()


def test_files_that_are_no_images_are_named(handlers, tmp_path):
    (tmp_path / "x.png").write_text("hello")
    with pytest.raises(UserError, match=r"x\.png cannot be read: it is not an image"):
        handlers.segment(str(tmp_path / "x.png"), "a star")
    with pytest.raises(UserError, match="Drop an image"):
        handlers.segment(None, "a star")


def test_images_emerge_step_by_step(handlers):
    frames = list(handlers.generate("a red star", 3, 2.0, 5))
    assert len(frames) == 5
    assert [caption for _, caption in frames[-1][1]] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    whole = handlers.generator("a red star", seed=3, steps=5, guidance_scale=2.0)
    np.testing.assert_allclose(pixels(frames[-1][0]), np.asarray(whole), atol=1)
    for wrong in (("", 0, 1.0, 5), ("a", -1, 1.0, 5), ("a", 0, 99.0, 5), ("a", 0, 1.0, 7)):
        with pytest.raises(UserError):
            next(handlers.generate(*wrong))


def test_no_noise_is_the_vae_and_pure_noise_is_the_mask_of_one_pass(handlers, found):
    networks = handlers.segmenter.networks
    clean = dict(zip(NAMES, handlers.look_at_noise(found, 0.0), strict=True))
    small = to_model_size(found.image, networks.size)[None]
    vae = networks.merge(networks.params, networks.frozen).vae
    through = np.asarray(jax.jit(lambda x: vae.decode(vae.encode(to_signed(x))))(small))[0]
    levels = np.clip(through * 127.5 + 127.5, 0, 255)
    for name in ("image, with noise", "image, from one pass"):
        np.testing.assert_allclose(pixels(clean[name]), levels, atol=1)
    one = handlers.segmenter(small[0], found.phrases[0]).probabilities[0]
    noisy = dict(zip(NAMES, handlers.look_at_noise(found, 1.0), strict=True))
    drawn = pixels(noisy["mask, from one pass"]).mean(-1) / 255
    assert np.abs(drawn - one).mean() < 0.05  # clipped before and after the mean of the channels
    with pytest.raises(UserError, match="Segment an image first"):
        handlers.look_at_noise(None, 0.5)


def test_densities_are_those_of_the_laws(handlers):
    rows = handlers.densities()
    for law in {law for _, _, law in rows}:
        values = [(t, value) for t, value, name in rows if name == law]
        assert np.mean([value for _, value in values]) == pytest.approx(1.0)
        extremes = np.mean([value * (t < 0.1 or t > 0.8) for t, value in values])
        assert (extremes > 0.9) if law.startswith("masks") else (extremes < 0.5)


def test_a_large_image_is_shown_as_it_is(handlers):
    shown = handlers.show(handlers.segment(Image.new("RGB", (900, 600)), "a star"), 0.5)
    assert Image.open(shown.overlay).size == (900, 600)
