"""MaskSampler and ImageSampler: independent of the batch, compiled once, deterministic."""

import dataclasses
import os
import shutil

import jax
import numpy as np
import pytest

from genmask_jax.config import DataConfig, SamplerConfig, TimestepsConfig
from genmask_jax.config.checks import with_given
from genmask_jax.data.refershapes.source import ReferShapesSegment
from genmask_jax.inference.image_sampler import ImageSampler
from genmask_jax.inference.load import load
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.timesteps import TimestepDistribution
from genmask_jax.utils.errors import UserError


@pytest.fixture(scope="module")
def networks(micro_run):
    return load(micro_run[0])[0]


@pytest.fixture(scope="module")
def scenes():
    source = ReferShapesSegment("test", DataConfig(size=32).size)
    examples = [source[i] for i in range(5)]
    return np.stack([e["image"] for e in examples]), [e["text"] for e in examples]


def test_masks_do_not_depend_on_the_batch_and_compile_once(networks, scenes, programs_made):
    images, texts = scenes
    segmenter = MaskSampler(networks, SamplerConfig(), batch_size=2)
    masks = segmenter(images, texts)
    assert masks.shape == (5, 32, 32)
    assert masks.min() >= 0
    assert masks.max() <= 1
    before = len(programs_made)
    segmenter(images[:1], texts[:1])
    assert len(programs_made) == before
    alone = MaskSampler(networks, SamplerConfig(), batch_size=3)(images[3:], texts[3:], [3, 4])
    np.testing.assert_allclose(alone, masks[3:], atol=1e-5)


def test_phrases_of_one_image_get_the_masks_that_they_get_alone(networks, scenes):
    images, texts = scenes
    phrases = texts[:3]
    together = MaskSampler(networks, SamplerConfig(), batch_size=2)
    mean, deviation = together.sample_phrases(images[:2], phrases, [7, 8])
    assert mean.shape == deviation.shape == (2, 3, 32, 32)
    assert not deviation.any()
    for i in range(2):
        for k, phrase in enumerate(phrases):
            alone = MaskSampler(networks, SamplerConfig(), batch_size=1)(images[i : i + 1], [phrase], [7 + i])
            np.testing.assert_allclose(mean[i, k], alone[0], atol=1e-5)


def test_averaging_and_refining_change_the_mask(networks, scenes):
    images, texts = scenes
    one = MaskSampler(networks, SamplerConfig(), batch_size=5)(images, texts)
    for change in ({"mask_steps": 2}, {"mask_samples": 3}, {"mask_noise": 0.0}):
        other = MaskSampler(networks, dataclasses.replace(SamplerConfig(), **change), batch_size=5)(
            images, texts
        )
        assert np.abs(other - one).max() > 1e-4


def test_masks_from_zeros_do_not_depend_on_the_seed(networks, scenes):
    images, texts = scenes
    zeros, noise = SamplerConfig(mask_noise=0.0), SamplerConfig()
    one, other = (MaskSampler(networks, zeros, batch_size=5, seed=seed)(images, texts) for seed in (0, 1))
    np.testing.assert_array_equal(one, other)
    for sampler in (zeros, noise):
        alone = MaskSampler(networks, sampler, batch_size=5)
        together, _ = alone.sample_phrases(images[:1], texts[:1])
        np.testing.assert_allclose(together[0, 0], alone(images[:1], texts[:1])[0], atol=1e-5)


def test_several_samples_of_zeros_are_refused():
    with pytest.raises(UserError, match="mask_samples=4: with mask_noise=0, all samples are the same"):
        with_given(SamplerConfig(), mask_noise=0.0, mask_samples=4)
    with pytest.raises(UserError, match=r"mask_noise=1.5 must be in \[0, 1\]"):
        with_given(SamplerConfig(), mask_noise=1.5)


def test_masks_are_refined_at_a_noise_level_of_training(networks):
    def refine_t(distribution, mask_steps=2, **fields):
        config = dataclasses.replace(networks.config, timesteps=TimestepsConfig(segment=distribution))
        sampler = SamplerConfig(mask_steps=mask_steps, **fields)
        trained = dataclasses.replace(networks, config=config)
        return MaskSampler(trained, sampler, batch_size=5).sampler.refine_t

    assert (
        refine_t(TimestepDistribution("bimodal", a=0.02))
        == refine_t(TimestepDistribution("bimodal", a=0.05), refine_t=0.02)
        == 0.02
    )
    for one_sided in (TimestepDistribution("long_tail"), TimestepDistribution("bimodal", low_share=0.0)):
        with pytest.raises(
            UserError, match=r"mask_steps=2: .* none of which are near clean data; use mask_steps=1"
        ):
            refine_t(one_sided)
        assert refine_t(one_sided, refine_t=0.02) == 0.02
        assert refine_t(one_sided, mask_steps=1) == 0


def test_images_depend_on_seed_prompt_and_guidance(networks):
    sampler = SamplerConfig(image_steps=2)
    first = ImageSampler(networks, sampler, batch_size=2)(["a red star", "a blue circle", "a red star"])
    assert first.shape == (3, 32, 32, 3)
    assert first.dtype == np.uint8
    again = ImageSampler(networks, sampler, batch_size=2)(["a red star", "a blue circle", "a red star"])
    np.testing.assert_array_equal(first, again)
    other = ImageSampler(networks, sampler, batch_size=2, seed=1)(["a red star"])
    assert not np.array_equal(other[0], first[0])


def test_an_empty_expression_is_rejected(networks, scenes):
    with pytest.raises(UserError, match="empty"):
        MaskSampler(networks, SamplerConfig(), batch_size=1)(scenes[0][:1], [" "])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: shutil.rmtree(path),
        lambda path: (path / "_METADATA").write_text("{"),
        lambda path: [os.truncate(file, file.stat().st_size // 2) for file in path.rglob("d/*")],
    ],
)
def test_an_earlier_checkpoint_replaces_a_damaged_one(micro_run, tmp_path, caplog, damage):
    workdir = shutil.copytree(micro_run[0], tmp_path / "run")
    shutil.copytree(workdir / "checkpoints/4", workdir / "checkpoints/8")
    damage(workdir / "checkpoints/8/ema_params")
    networks, _, step = load(workdir, "last")
    assert step == 4
    assert "checkpoints/8/ema_params" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(networks.params), micro_run[2].ema_params)
    with pytest.raises(
        UserError, match=r"checkpoints/8/ema_params(: no parameters here| is incomplete or damaged)"
    ) as caught:
        load(workdir, "8")
    assert "\n" not in str(caught.value)


def test_loading_restores_the_ema(micro_run):
    workdir, _, state = micro_run
    networks, _, step = load(workdir, "last")
    assert step == 4
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(networks.params), state.ema_params)
    with pytest.raises(UserError, match="no checkpoint '3'"):
        load(workdir, "3")
