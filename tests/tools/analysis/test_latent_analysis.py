"""The analysis of latents finds what is planted, and the command runs on the model in the package."""

import json
import math

import numpy as np
import pytest
from etils import epath
from matplotlib import rc_context

from genmask_jax.tools.analysis import figures
from genmask_jax.tools.analysis.analyze import CANDIDATES, LEVELS, compare, log_snr
from genmask_jax.tools.analysis.autoencoder import DEFAULT_SIZE, image_size, open_autoencoder
from genmask_jax.tools.analysis.noise_law import fitting_fields, spectrum
from genmask_jax.tools.analysis.readers import cell_scores, least_squares, linear_svm, matched_filter
from genmask_jax.tools.analysis.scenes import read_scenes
from genmask_jax.tools.analysis.statistics import (
    excess_kurtosis,
    histograms,
    mean_distance,
    principal_components,
    project,
    spread,
)
from genmask_jax.utils.errors import UserError
from tests.test_end_to_end import one_line_error, run_script

FIGURES = ("classifiers", "components", "decoded", "distributions", "readers", "variance")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def example(value: int, covered: int, size: int = 4) -> dict:
    """A uniform image, and a mask of the first `covered` columns."""
    mask = np.zeros((size, size), np.uint8)
    mask[:, :covered] = 1
    return {"image": np.full((size, size, 3), value, np.uint8), "mask": mask}


def test_kurtosis_of_known_distributions(rng):
    values = np.stack(
        [rng.standard_normal(200_000), rng.uniform(size=200_000), rng.choice([-1, 1], 200_000)], 1
    )
    np.testing.assert_allclose(excess_kurtosis(values), [0, -1.2, -2], atol=0.05)


def test_the_first_component_is_the_direction_with_the_most_variance(rng):
    direction = np.array([3, 0, -4]) / 5
    share = (rng.random((20, 6, 6)) < 0.3).astype(float)
    latents = -5 * share[..., None] * direction + 0.1 * rng.standard_normal((20, 6, 6, 3))
    ratios, components = principal_components(latents)
    assert ratios[0] > 0.98
    assert ratios.sum() == pytest.approx(1)
    assert abs(components[0] @ direction) == pytest.approx(1, abs=1e-3)
    for component in (components[0], -components[0]):
        projection, correlation = project(latents, component, share)
        assert correlation > 0.99
        assert projection[share == 1].min() > projection[share == 0].max()


def test_spread_is_measured_around_the_mean_of_each_group(rng):
    share = np.zeros((10, 20, 20))
    share[:, :, 10:] = 1
    noise = rng.standard_normal((10, 20, 20, 2))
    latents = np.where(share[..., None] == 1, 10 + 0.5 * noise, 2 * noise)
    measured = spread(latents, share)["std"]
    assert measured["object"] == pytest.approx(0.5, rel=0.05)
    assert measured["background"] == pytest.approx(2, rel=0.05)
    assert measured["edge"] is None
    assert measured["all"] > 5


def test_histograms_are_densities_of_all_values(rng):
    latents = {"mask": rng.standard_normal((8, 4, 4, 2)), "image": 3 * rng.standard_normal((8, 4, 4, 2))}
    counted = histograms(latents, (rng.random((8, 4, 4)) < 0.5).astype(float))
    widths = np.diff(counted["edges"])
    for kind in latents:
        for density in (*(counted[kind][name] for name in ("all", "object")), *counted[kind]["channels"]):
            assert (density * widths).sum() == pytest.approx(1)
        assert not any(counted[kind]["edge"])


@pytest.mark.parametrize("classify", [least_squares, linear_svm])
def test_linear_classifiers_separate_what_is_separable_and_nothing_else(rng, classify):
    latents = rng.standard_normal((6000, 5))
    labels = latents @ [1, -2, 0, 0, 1] > 2.5  # 15 % of the cells
    train, test = slice(0, 4000), slice(4000, None)
    found = classify(latents[train], labels[train], latents[test])
    assert cell_scores(found, labels[test])["balanced_accuracy"] > 0.9
    unrelated = rng.permutation(labels)
    found = classify(latents[train], unrelated[train], latents[test])
    assert cell_scores(found, unrelated[test])["balanced_accuracy"] == pytest.approx(0.5, abs=0.05)


def test_scores_of_cells():
    truth = np.array([True, True, False, False, False, False])
    found = np.array([True, False, True, False, False, False])
    assert cell_scores(found, truth) == {"balanced_accuracy": (1 / 2 + 3 / 4) / 2, "IoU": 1 / 3}


def test_the_matched_filter_is_as_accurate_as_theory_says(rng):
    latents = rng.standard_normal((40, 16)).astype(np.float32)
    assert matched_filter(latents, 0.0, 8, rng) == 1
    assert matched_filter(latents, 1.0, 8, rng) == 1 / 8
    for t in (0.5, 0.8, 0.95):
        distances = np.linalg.norm(latents[:, None] - latents[None], axis=-1)[~np.eye(40, dtype=bool)]
        expected = np.mean([0.5 + 0.5 * math.erf((1 - t) / t * d / 8**0.5) for d in distances])
        measured = np.mean([matched_filter(latents, t, 2, rng) for _ in range(10)])
        assert measured == pytest.approx(expected, abs=0.03)


def test_mean_distance_between_scenes(rng):
    latents = rng.standard_normal((30, 2, 2, 3))
    rows = latents.reshape(30, -1)
    squares = [np.sum((a - b) ** 2) for i, a in enumerate(rows) for b in rows[:i]]
    assert mean_distance(latents) == pytest.approx(np.sqrt(np.mean(squares)))


def test_the_spectrum_of_planted_components(rng):
    planted = np.array([8.0, 2.0])
    directions = np.linalg.qr(rng.standard_normal((48, 2)))[0]
    latents = (rng.standard_normal((5000, 2)) * planted @ directions.T + 7).reshape(5000, 4, 4, 3)
    found, weights = spectrum(latents), planted**2 / (planted**2).sum()
    assert found.mean == pytest.approx(weights @ np.log(planted), abs=0.02)
    assert found.std == pytest.approx(np.sqrt(np.cov(np.log(planted), aweights=weights, ddof=0)), rel=0.02)
    assert found.largest == pytest.approx(8, rel=0.03)
    few = spectrum(latents[:40])  # fewer scenes than numbers in a latent
    assert few.mean == pytest.approx(found.mean, abs=0.2)


def test_noise_levels_shift_with_the_scale_of_the_latents(rng):
    latents = rng.standard_normal((50, 4, 4, 3))
    one, other = (fitting_fields(spectrum(x), spectrum(x)) for x in (latents, 3 * latents))
    assert other["timesteps.generate.mean"] == pytest.approx(one["timesteps.generate.mean"] + np.log(3))
    assert other["timesteps.generate.std"] == pytest.approx(one["timesteps.generate.std"])
    assert other["sampler.shift"] == pytest.approx(3 * one["sampler.shift"])
    odds = [fields["timesteps.segment.a"] / (1 - fields["timesteps.segment.a"]) for fields in (one, other)]
    assert odds[1] == pytest.approx(odds[0] / 3)


def test_scenes_are_different_images_with_an_object():
    usable = [example(value, 2) for value in range(9)]
    source = [example(100, 0), example(101, 4), usable[0], example(0, 1), *usable]
    scenes = read_scenes(source, 9)
    assert len(scenes) == 9
    assert scenes.pictures["image"][:, 0, 0, 0].tolist() == list(range(9))
    assert len(read_scenes(source, 8)) == 8
    with pytest.raises(UserError, match="7 images with a mask, but the analysis needs 8"):
        read_scenes(usable[:7], 9)


def test_share_of_the_object_in_each_cell():
    scenes = read_scenes([example(value, 3) for value in range(8)], 8)
    np.testing.assert_array_equal(scenes.object_share(2), np.tile([1, 0.5], (8, 2, 1)))


def test_scores_of_decoded_pictures():
    masks = read_scenes([example(value, 2) for value in range(8)], 8).pictures["mask"]
    decoded = (masks / 127.5 - 1).astype(np.float32)
    assert compare(decoded, masks, "mask") == {
        "decoded_psnr": pytest.approx(100 + 6.02, abs=0.1),
        "decoded_mIoU": 1,
    }
    assert compare(-decoded, masks, "mask")["decoded_mIoU"] == 0
    assert compare(decoded - 0.2, masks, "image") == {"decoded_psnr": pytest.approx(23, abs=0.1)}


def test_log_snr():
    assert log_snr(0.5) == 0
    assert log_snr(0.9) == pytest.approx(-2 * math.log(9))
    assert log_snr(0.0) is None


def test_random_weights_have_the_shape_of_a_vae_and_are_normalised(rng):
    vae = open_autoencoder("random:refershapes", seed=3)
    pictures = rng.integers(0, 256, (17, 16, 16, 3), dtype=np.uint8)
    before = vae.encode(pictures)
    vae.normalise(pictures)
    latents = vae.encode(pictures)
    assert latents.shape == (17, 4, 4, 6)
    np.testing.assert_allclose(latents.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(latents.std((0, 1, 2)), 1, rtol=1e-3)
    assert vae.decode(latents).shape == pictures.shape
    np.testing.assert_array_equal(open_autoencoder("random:refershapes", seed=3).encode(pictures), before)
    assert np.abs(open_autoencoder("random:refershapes", seed=4).encode(pictures) - before).max() > 0.01


def test_the_size_of_the_images_is_that_of_the_run(tmp_path):
    assert [image_size(name) for name in ("refershapes", "random:refershapes")] == [64, 64]
    assert [image_size(name) for name in ("random:wan", str(tmp_path))] == [DEFAULT_SIZE] * 2


def test_the_command_measures_the_model_in_the_package(tmp_path):
    flags = ("--vae=refershapes", "--data=refershapes", "--count=16", "--out=out")
    done = run_script("analyze_latents", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "latents.json").read_text(), parse_constant=pytest.fail)
    assert (result["scenes"], result["held_out"], result["latents"]) == (16, 4, [16, 16, 6])
    assert [level["t"] for level in result["levels"]] == list(LEVELS)
    clean, noisy = result["levels"][0], result["levels"][-1]
    for kind in ("mask", "image"):
        assert clean[kind]["matched_filter"] == {str(n): 1 for n in CANDIDATES}
        assert noisy[kind]["matched_filter"][str(CANDIDATES[-1])] < 0.4
        assert abs(noisy[kind]["linear_svm"]["balanced_accuracy"] - 0.5) < 0.1
        assert abs(noisy[kind]["kurtosis_pooled"]) < 0.1
    assert clean["mask"]["linear_svm"]["balanced_accuracy"] > 0.95
    assert clean["mask"]["first_component_correlation"] > 0.9
    assert clean["mask"]["decoded_mIoU"] > 0.95
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "latents.json", *(f"{figure}.{suffix}" for figure in FIGURES for suffix in ("png", "svg"))
    }  # fmt: skip
    with rc_context(figures.STYLE):
        figures.save(figures.draw_classifiers(result), epath.Path(tmp_path / "again"))
    for suffix in ("png", "svg"):  # the same numbers give the same files
        drawn = (tmp_path / f"again.{suffix}").read_bytes()
        assert drawn == (tmp_path / "out" / f"classifiers.{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--vae=nowhere", "--data=refershapes"), "nowhere: no trained VAE here; --vae is"),
        (("--vae=refershapes", "--data=stamps"), "--path is empty"),
        (
            ("--vae=refershapes", "--data=refershapes", "--size=66"),
            "--size=66 is not a multiple of the stride",
        ),
    ],
)
def test_errors_are_one_line_and_leave_no_folder(tmp_path, flags, message):
    one_line_error(run_script("analyze_latents", *flags, "--out=out", cwd=tmp_path), message)
    assert not (tmp_path / "out").exists()
