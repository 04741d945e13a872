"""Segmenter and Generator as users call them; launch/sample.py gives the same results."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import genmask_jax
from genmask_jax import Generator, Segmentation, Segmenter, UserError
from genmask_jax.config import SamplerConfig
from genmask_jax.data import masks as rle
from genmask_jax.data.refershapes.source import ReferShapesSegment
from genmask_jax.evaluation.metrics import intersection_union
from genmask_jax.evaluation.segmentation import evaluate_segmentation
from genmask_jax.inference.load import load
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.inference.masks import to_mask
from genmask_jax.utils.images import to_model_size, to_rgb

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
PHRASES = ["the red star", "a large circle"]


@pytest.fixture(scope="module")
def segmenter(micro_run) -> Segmenter:
    return Segmenter.from_pretrained(str(micro_run[0]))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)


def assert_same(a: Segmentation, b: Segmentation) -> None:
    np.testing.assert_array_equal(a.masks, b.masks)
    np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-5)


def test_paths_images_and_arrays_are_the_same_image(segmenter, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    first = segmenter(photo, PHRASES)
    assert first.masks.shape == first.probabilities.shape == (2, 50, 70)
    assert first.uncertainty is None
    assert_same(first, segmenter(str(tmp_path / "photo.png"), PHRASES))
    assert_same(first, segmenter(Image.open(tmp_path / "photo.png"), PHRASES))
    assert_same(first, segmenter(photo.astype(np.float32) / 255, PHRASES))


def test_a_list_gives_the_results_of_its_images(segmenter, photo):
    images = [photo, photo[:20, :33], photo[..., 0]]
    together = segmenter(images, PHRASES)
    for image, result in zip(images, together, strict=True):
        assert_same(result, segmenter(image, PHRASES))
        assert result.masks.shape[1:] == image.shape[:2]


def test_evaluation_gives_the_same_masks(segmenter, micro_run):
    """Example n of evaluation starts from noise n; its IoUs equal those of the user's masks exactly."""
    source = ReferShapesSegment("val", segmenter.networks.size, 0)
    sampler = MaskSampler(segmenter.networks, segmenter.sampler, batch_size=4)
    rows = evaluate_segmentation(sampler, source, 6, swapped=False).examples
    for n, row in enumerate(rows):
        example = source[n]
        mask = segmenter([example["image"]], example["text"], indices=[n])[0].masks[0]
        assert (row["intersection"], row["union"]) == intersection_union(mask, example["mask"])
    with pytest.raises(UserError, match="one for each"):
        segmenter([source[0]["image"]], "x", indices=[0, 1])


def test_the_numbers_of_a_result_match_its_masks(photo):
    masks = np.zeros((2, 50, 70), bool)
    masks[0, 10:20, 5:9] = True
    probabilities = np.where(masks, 0.75, 0.1).astype(np.float32)
    result = Segmentation(photo, ("a", "b"), masks, probabilities, np.float32([0.75, 0]), None, 0.5)
    assert result.areas.tolist() == [40, 0]
    assert result.boxes.tolist() == [[5, 10, 9, 20], [0, 0, 0, 0]]
    np.testing.assert_array_equal(result.label_map(), np.where(masks[0], 0, -1))
    for encoded, mask in zip(result.to_rle(), masks, strict=True):
        np.testing.assert_array_equal(rle.decode(encoded["counts"], (50, 70)), mask)
    assert result.to_dict()["phrases"][0]["share"] == pytest.approx(40 / 3500)


def test_the_no_target_rule_applies_to_every_view(segmenter, photo):
    unfiltered = segmenter(photo, PHRASES)
    assert unfiltered.found.all()
    min_score = float(unfiltered.scores.mean())
    rule = {"mask_threshold": unfiltered.threshold, "no_target_score": min_score}
    filtered = Segmenter(segmenter.networks, SamplerConfig(**rule))(photo, PHRASES)
    expected = unfiltered.scores >= min_score
    assert 0 < expected.sum() < 2
    for result in (filtered, filtered.at_threshold(unfiltered.threshold)):
        np.testing.assert_array_equal(result.found, expected)
        assert set(np.unique(result.label_map())) - {-1} == set(np.flatnonzero(expected))
    np.testing.assert_array_equal(filtered.scores, unfiltered.scores)


@pytest.mark.parametrize(("count", "mode"), [(255, "P"), (256, "I;16"), (300, "I;16")])
def test_label_maps_of_many_phrases_do_not_wrap(tmp_path, count, mode):
    probabilities = np.zeros((count, 20, 20), np.float32)
    for i in range(count):
        probabilities[i, i // 20, i % 20] = 0.9
    phrases, image = tuple(map(str, range(count))), np.zeros((20, 20, 3), np.uint8)
    masks, scores = probabilities > 0.5, np.full(count, 0.9, np.float32)
    result = Segmentation(image, phrases, masks, probabilities, scores, None, 0.5)
    result.save(tmp_path, ("label_map",))
    saved = Image.open(tmp_path / "label_map.png")
    assert saved.mode == mode
    expected = np.where(np.arange(400) < count, np.arange(400) + 1, 0).reshape(20, 20)
    np.testing.assert_array_equal(np.asarray(saved), expected)


def test_views_are_written_and_read_back(segmenter, photo, tmp_path):
    result = segmenter(photo, PHRASES, noises=2)
    assert result.uncertainty.max() > 0
    views = ("mask", "overlay", "probability", "uncertainty", "label_map", "rle", "boxes")
    paths = result.save(tmp_path, views, name="x")
    assert len(paths) == 11
    for i, mask in enumerate(result.masks, 1):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"x_mask_{i}.png")) > 0, mask)
    np.testing.assert_array_equal(Image.open(tmp_path / "x_label_map.png"), result.label_map() + 1)
    assert set(json.loads((tmp_path / "x_rle.json").read_text())) == set(PHRASES)
    with pytest.raises(UserError, match="there is no view 'masks'"):
        result.save(tmp_path, ("masks",))
    with pytest.raises(UserError, match="noises=8"):
        segmenter(photo, PHRASES).save(tmp_path, ("uncertainty",))


def test_arrays_of_every_kind_become_rgb():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    expected = np.repeat(grey[..., None], 3, -1)
    for array in (grey, grey[..., None], expected, grey.astype(np.uint16) * 257, grey / 255):
        np.testing.assert_array_equal(to_rgb(array), expected)
    clear = np.dstack([expected, np.zeros((3, 4), np.uint8)])
    assert (to_rgb(clear) == 255).all()
    np.testing.assert_array_equal(to_rgb(grey > 100), np.where(expected > 100, 255, 0))


def assert_close(a, b) -> None:
    """Compares images of different batches, which may differ by rounding."""
    np.testing.assert_allclose(np.asarray(a, int), np.asarray(b, int), atol=1)


def test_images_are_generated_step_by_step(micro_run):
    generator = Generator.from_pretrained(str(micro_run[0]))
    image = generator("a red star", seed=3, steps=3)
    assert image.size == (32, 32)
    one, other = generator(["a red star", "a red star"], seed=3, steps=3)
    assert_close(one, image)
    assert not np.array_equal(one, other)
    predictions = generator.steps("a red star", seed=3, steps=3)
    assert len(predictions) == 3
    assert_close(predictions[-1], image)
    with pytest.raises(UserError, match=r"^steps=0 must be"):
        generator("a red star", steps=0)


@pytest.mark.parametrize("count", [3, 5])
def test_candidates_are_the_images_of_consecutive_seeds(micro_run, count):
    """Both one by one and in a padded batch."""
    generator = Generator.from_pretrained(str(micro_run[0]))
    candidates = generator.candidates("a red star", count, seed=3, steps=2)
    assert len(candidates) == count
    for seed in (3, 2 + count):
        assert_close(candidates[seed - 3], generator("a red star", seed=seed, steps=2))
    assert len({image.tobytes() for image in candidates}) == count
    for changes, message in (
        ({"count": 0}, "^count=0 must be"),
        ({"seed": 2**32 - 1, "count": 2}, r"^seed \+ count - 1="),
    ):
        with pytest.raises(UserError, match=message):
            generator.candidates(**{"prompt": "a", "steps": 2} | changes)


def run_script(*arguments, cwd):
    command = [sys.executable, LAUNCH / "sample.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ)


def test_the_script_the_library_and_the_evaluation_give_the_same_masks(micro_run, photo, tmp_path):
    for i in range(3):
        Image.fromarray(photo[: 50 - 9 * i]).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    text = ";".join([*PHRASES, "the zebra"])
    shared = (f"--checkpoint={micro_run[0]}", "--image=.", f"--text={text}", "--out=out")
    completed = run_script(*shared, "--save=mask,boxes", "--json", cwd=tmp_path)
    assert completed.returncode == 1
    assert completed.stderr.count("the model was not trained on the word 'zebra'") == 1
    assert "1 of 4 images could not be read; the others were segmented" in completed.stderr
    lines = [json.loads(line) for line in completed.stdout.splitlines()]
    assert [line["image"] for line in lines if "error" in line] == ["broken.jpg"]
    assert [phrase["unknown_words"] for phrase in lines[0]["phrases"]] == [[], [], ["zebra"]]
    networks, config, _ = load(micro_run[0])
    segmenter = Segmenter(networks, config.sampler)
    sampler = MaskSampler(networks, config.sampler, batch_size=1)
    for i in range(3):
        image = photo[: 50 - 9 * i]
        result = segmenter(image, PHRASES)
        for k, phrase in enumerate(PHRASES):
            saved = np.asarray(Image.open(tmp_path / f"out/{i}_mask_{k + 1}.png")) > 0
            np.testing.assert_array_equal(saved, result.masks[k])
            alone = sampler(to_model_size(image, networks.size)[None], [phrase])[0]
            np.testing.assert_array_equal(saved, to_mask(alone, image.shape[:2], SamplerConfig())[0])
    again = run_script(*shared, "--save=mask", cwd=tmp_path)
    assert again.returncode == 1
    assert "holds 0_mask_1.png already; add --overwrite" in again.stderr


def test_importing_the_package_imports_no_jax():
    code = "import sys, genmask_jax; assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(genmask_jax.__all__) <= set(dir(genmask_jax))
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        _ = genmask_jax.Segmentor


def test_another_guidance_scale_causes_no_recompilation(micro_run, programs_made):
    generator = Generator.from_pretrained(str(micro_run[0]))
    images = [generator("a red star", steps=2)]
    before = len(programs_made)
    images += [generator("a red star", steps=2, guidance_scale=scale) for scale in (1.0, 1.5, 4.0)]
    assert len({image.tobytes() for image in images}) == 4
    assert len(programs_made) == before
    with pytest.raises(UserError, match="guidance_scale"):
        generator("a red star", guidance_scale=float("nan"))
