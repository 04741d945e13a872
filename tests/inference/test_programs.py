"""Compiled programs: shared by models of one shape, kept on disk, and announced when they take long."""

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


def test_phrases_images_noises_and_models_share_two_sizes(segmenter, photo, micro_run, programs_made):
    other = Segmenter.from_pretrained(str(micro_run[0]), seed=3, mask_threshold=0.4)
    for images, phrases, noises in ((1, 1, None), (5, 1, None)):  # of one example and of eight
        segmenter([photo] * images, [PHRASE] * phrases, noises=noises)
    before = len(programs_made)
    assert before
    for ask in (segmenter, other):
        for images, phrases, noises in ((1, 2, None), (1, 1, 3), (1, 9, None), (3, 1, None), (6, 3, 2)):
            ask([photo] * images, [PHRASE] * phrases, noises=noises)
    assert len(programs_made) == before
    assert segmenter._sampler(None)._decide is other._sampler(3)._decide


def test_padding_changes_no_mask(segmenter, photo):
    phrases = [f"the {colour} star" for colour in ("red", "green", "blue", "white", "cyan")]
    together = segmenter(photo, phrases, noises=2)
    for phrase, result in zip(phrases, together, strict=True):
        alone = segmenter(photo, phrase, noises=2)
        np.testing.assert_allclose(result.probabilities, alone.probabilities, atol=1e-5)
        np.testing.assert_allclose(result.uncertainty, alone.uncertainty, atol=1e-4)


def test_noises_are_averaged_and_their_spread_is_the_standard_deviation(segmenter, photo):
    means = [segmenter(photo, PHRASE, noises=count).probabilities[0].astype(float) for count in (1, 2, 3)]
    each = np.stack([means[0], 2 * means[1] - means[0], 3 * means[2] - 2 * means[1]])
    assert each.std(0).max() > 1e-4
    spread = segmenter(photo, PHRASE, noises=3).uncertainty[0]
    np.testing.assert_allclose(spread, each.std(0), atol=1e-5)
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
    """As in a process that sets nothing about caches."""
    kept = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(programs, "SHORTEST", 0.0)
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    compilation_cache.reset_cache()
    yield tmp_path / "home" / "genmask_jax"
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", kept[0])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", kept[1])
    compilation_cache.reset_cache()


def compile_something(number: float) -> None:
    Program(lambda params, frozen, x: jnp.sin(x) + number)(None, None, np.float32(1))


def entries(folder: pathlib.Path) -> int:
    return len(list(folder.glob("*-cache")))


def test_programs_are_kept_where_the_commands_keep_theirs_and_no_setting_stays(no_cache):
    compile_something(1)
    assert entries(no_cache) == 1
    assert jax.config.jax_compilation_cache_dir is None
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 1.0
    jax.jit(lambda x: jnp.sin(x) + 2)(1.0)  # the user's own
    assert entries(no_cache) == 1
    compile_something(1)
    assert entries(no_cache) == 1


def test_a_directory_of_the_users_is_respected(no_cache, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compile_something(3)
    assert entries(tmp_path / "mine") >= 1
    assert entries(no_cache) == 0
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")


def test_a_cache_that_is_switched_off_stays_off(no_cache):
    jax.config.update("jax_enable_compilation_cache", False)
    compile_something(4)
    assert not no_cache.exists()


def test_a_folder_that_cannot_be_written_is_no_fault(no_cache, tmp_path):
    (tmp_path / "home").write_text("a file")
    compile_something(5)
    assert jax.config.jax_compilation_cache_dir is None


def run_slowly() -> None:
    def slow(params, frozen, x):
        time.sleep(0.3)
        return x

    Program(slow)(None, None, np.float32(1))


def test_a_long_compilation_is_announced_once(monkeypatch, capsys):
    monkeypatch.setattr(programs, "_announced", threading.Event())
    run_slowly()
    assert "compiling" not in capsys.readouterr().err
    monkeypatch.setattr(programs, "PATIENCE", 0.05)
    run_slowly()
    run_slowly()
    said = capsys.readouterr()
    assert said.err.count("compiling the model for cpu; kept in") == 1
    assert not said.out


def test_a_model_is_loaded_on_the_users_default_device(monkeypatch):
    given, mesh = [], sharding.one_device()
    monkeypatch.setattr(sharding, "make_mesh", lambda config, devices: given.append(devices) or mesh)
    monkeypatch.setattr(jax, "local_devices", lambda backend="first": [f"{backend} device", "another"])
    sharding.one_device()
    chosen = jax.devices()[0]
    with jax.default_device(chosen):
        sharding.one_device()
    with jax.default_device("cpu"):
        sharding.one_device()
    assert given == [["first device"], [chosen], ["cpu device"]]
