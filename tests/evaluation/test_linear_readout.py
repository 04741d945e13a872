"""Masks read by a linear map: its fit, the sampler that uses it, and what it refuses."""

import numpy as np
import pytest

from genmask_jax.config import SamplerConfig
from genmask_jax.data.refershapes.source import ReferShapesSegment
from genmask_jax.evaluation.linear_readout import fit, with_linear_readout
from genmask_jax.inference.load import load
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.utils.errors import UserError


@pytest.fixture(scope="module")
def networks(micro_run):
    return load(micro_run[0])[0]


def test_a_linear_code_is_read_exactly():
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (50, 8, 8), np.uint8)
    cells = masks.reshape(50, 4, 2, 4, 2).swapaxes(2, 3).reshape(50, 4, 4, 4)
    latents = (cells @ rng.standard_normal((4, 6)) + 0.5).astype(np.float32)
    kernel, bias = fit(latents, masks)
    assert kernel.shape == (6, 4)
    assert np.array_equal(latents @ kernel + bias > 0, cells)
    np.testing.assert_allclose(np.abs(latents @ kernel + bias), 1, atol=0.1)


def test_the_map_takes_the_place_of_the_decoder(networks, monkeypatch):
    monkeypatch.setattr("genmask_jax.evaluation.linear_readout.NUM_MASKS", 12)
    source, train = ReferShapesSegment("test", 32), ReferShapesSegment("train", 32)
    examples = [source[i] for i in range(3)]
    images, texts = np.stack([e["image"] for e in examples]), [e["text"] for e in examples]
    segmenter = MaskSampler(networks, SamplerConfig(mask_threshold=0.3), batch_size=4, seed=5)
    before = segmenter(images, texts)
    linear, report = with_linear_readout(segmenter, train)
    after = linear(images, texts)
    assert after.shape == before.shape
    assert np.abs(after - before).max() > 1e-3
    assert 0 <= after.min() <= after.max() <= 1
    assert (linear.sampler, linear.seed, linear.batch_size) == (segmenter.sampler, 5, 4)
    np.testing.assert_array_equal(segmenter(images, texts), before)
    assert 0 < report["train_masks"] <= 12
    for name in ("decoder", "linear"):
        assert report[name]["ms_per_mask"] > 0
        assert 0 <= report[name]["encoded_mIoU"] <= 1
    with pytest.raises(UserError, match="--mask_readout=linear is for models whose masks the VAE decodes"):
        with_linear_readout(linear, train)


def test_passes_refine_latents_before_they_are_read(networks, monkeypatch):
    monkeypatch.setattr("genmask_jax.evaluation.linear_readout.NUM_MASKS", 4)
    example = ReferShapesSegment("test", 32)[0]
    masks = []
    for steps in (1, 2):
        sampler = SamplerConfig(mask_steps=steps, refine_t=0.1)
        linear, _ = with_linear_readout(
            MaskSampler(networks, sampler, batch_size=1), ReferShapesSegment("train", 32)
        )
        masks.append(linear(example["image"][None], [example["text"]]))
    assert np.abs(masks[0] - masks[1]).max() > 1e-4
