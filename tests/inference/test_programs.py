"""Compiled programs: shared by models of one shape, cached on disk, with a notice when they are slow."""

import pathlib
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from genmask_jax import Generator, Segmenter, sharding
from genmask_jax.config import SamplerConfig
from genmask_jax.inference import programs
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.inference.programs import Program

PHRASE = "the red star"


@pytest.fixture(scope="module")
def segmenter(micro_run) -> Segmenter:
    return Segmenter.from_pretrained(str(micro_run[0]))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def test_all_phrases_images_noises_and_models_use_two_batch_sizes(segmenter, photo, micro_run, programs_made):
    other = Segmenter.from_pretrained(str(micro_run[0]), seed=3, mask_threshold=0.4)
    for images, phrases, noises in ((1, 1, None), (5, 1, None)):  # batches of one and of eight
        segmenter([photo] * images, [PHRASE] * phrases, noises=noises)
    before = len(programs_made)
    assert before
    for model in (segmenter, other):
        for images, phrases, noises in ((1, 2, None), (1, 1, 3), (1, 9, None), (3, 1, None), (6, 3, 2)):
            model([photo] * images, [PHRASE] * phrases, noises=noises)
    assert len(programs_made) == before
    assert segmenter._sampler(None)._predict is other._sampler(3)._predict


def test_padding_does_not_change_masks(segmenter, photo):
    phrases = [f"the {colour} star" for colour in ("red", "green", "blue", "white", "cyan")]
    together = segmenter(photo, phrases, noises=2)
    for phrase, result in zip(phrases, together, strict=True):
        alone = segmenter(photo, phrase, noises=2)
        np.testing.assert_allclose(result.probabilities, alone.probabilities, atol=1e-5)
        np.testing.assert_allclose(result.uncertainty, alone.uncertainty, atol=1e-4)


def test_noises_are_averaged_and_uncertainty_is_their_standard_deviation(segmenter, photo):
    means = [segmenter(photo, PHRASE, noises=count).probabilities[0].astype(float) for count in (1, 2, 3)]
    single = np.stack([means[0], 2 * means[1] - means[0], 3 * means[2] - 2 * means[1]])
    assert single.std(0).max() > 1e-4
    deviation = segmenter(photo, PHRASE, noises=3).uncertainty[0]
    np.testing.assert_allclose(deviation, single.std(0), atol=1e-5)
    sampler = MaskSampler(segmenter.networks, SamplerConfig(mask_samples=3), batch_size=1)
    np.testing.assert_allclose(sampler(photo[None], [PHRASE], [0])[0], means[2], atol=1e-5)


def test_generators_share_programs(micro_run, programs_made):
    first, second = (Generator.from_pretrained(str(micro_run[0])) for _ in range(2))
    first("a red star", steps=2)
    before = len(programs_made)
    second(["a red star", "a circle"], steps=2, seed=3, guidance_scale=2.0)
    assert len(programs_made) == before


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """The settings of a process that does not configure the cache; yields the default directory."""
    saved = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(programs, "MIN_CACHED_SECONDS", 0.0)
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    compilation_cache.reset_cache()
    yield tmp_path / "home" / "genmask_jax"
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", saved[0])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", saved[1])
    compilation_cache.reset_cache()


def compile_something(number: float) -> None:
    Program(lambda params, frozen, x: jnp.sin(x) + number)(None, None, np.float32(1))


def count_entries(folder: pathlib.Path) -> int:
    return len(list(folder.glob("*-cache")))


def test_programs_are_cached_in_the_default_directory_and_settings_are_restored(no_cache):
    compile_something(1)
    assert count_entries(no_cache) == 1
    assert jax.config.jax_compilation_cache_dir is None
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 1.0
    jax.jit(lambda x: jnp.sin(x) + 2)(1.0)  # a program of the user
    assert count_entries(no_cache) == 1
    compile_something(1)
    assert count_entries(no_cache) == 1


def test_a_directory_set_by_the_user_is_used(no_cache, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "user"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compile_something(3)
    assert count_entries(tmp_path / "user") >= 1
    assert count_entries(no_cache) == 0
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "user")


def test_a_disabled_cache_stays_disabled(no_cache):
    jax.config.update("jax_enable_compilation_cache", False)
    compile_something(4)
    assert not no_cache.exists()


def test_an_unwritable_directory_is_not_an_error(no_cache, tmp_path):
    (tmp_path / "home").write_text("a file")
    compile_something(5)
    assert jax.config.jax_compilation_cache_dir is None


def run_slowly() -> None:
    def slow(params, frozen, x):
        time.sleep(0.3)
        return x

    Program(slow)(None, None, np.float32(1))


def test_a_slow_compilation_prints_one_notice(monkeypatch, capsys):
    monkeypatch.setattr(programs, "_notice_printed", threading.Event())
    run_slowly()
    assert "compiling" not in capsys.readouterr().err
    monkeypatch.setattr(programs, "NOTICE_SECONDS", 0.05)
    run_slowly()
    run_slowly()
    captured = capsys.readouterr()
    assert captured.err.count("compiling the model for cpu; later runs load it from") == 1
    assert not captured.out


def test_a_model_is_loaded_on_the_users_default_device(monkeypatch):
    requested, mesh = [], sharding.one_device()
    monkeypatch.setattr(sharding, "make_mesh", lambda config, devices: requested.append(devices) or mesh)
    monkeypatch.setattr(jax, "local_devices", lambda backend="first": [f"{backend} device", "another"])
    sharding.one_device()
    default = jax.devices()[0]
    with jax.default_device(default):
        sharding.one_device()
    with jax.default_device("cpu"):
        sharding.one_device()
    assert requested == [["first device"], [default], ["cpu device"]]
