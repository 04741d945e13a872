"""The VAE against diffusers' AutoencoderKLWan on single frames, with imported weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from flax import nnx

from genmask_jax.models.vae import VAEConfig
from genmask_jax.public_weights import wan_vae
from tests.public_weights.reference import import_vae, normal, record, reference_vae, to_numpy, to_torch

CASES = {
    "as published, but narrow": ({}, (2, 32, 48)),
    "pixel-unshuffle": ({"patch_size": 2}, (1, 64, 32)),
    "pixel-unshuffle, other widths": (
        {"patch_size": 4, "decoder_base_dim": 16, "dim_mult": [1, 2], "temperal_downsample": [False]},
        (2, 24, 16),
    ),
    "one residual block": (
        {"num_res_blocks": 1, "dim_mult": [1, 2, 4], "temperal_downsample": [False, True]},
        (1, 16, 20),
    ),
}


@pytest.fixture(scope="module", params=list(CASES))
def case(request, tmp_path_factory):
    changes, (batch, height, width) = CASES[request.param]
    reference = reference_vae(**changes)
    images = np.tanh(normal(1, batch, height, width, 3))
    return reference, import_vae(reference, tmp_path_factory.mktemp("wan")), images


def one_frame(x: np.ndarray) -> torch.Tensor:
    """`[B, H, W, C]` -> `[B, C, 1, H, W]`."""
    return to_torch(x)[:, :, None]


def close(ours, expected: torch.Tensor, atol=1e-4):
    print(f"{np.abs(ours - to_numpy(expected[:, :, 0])).max():.1e}")
    np.testing.assert_allclose(ours, to_numpy(expected[:, :, 0]), atol=atol, rtol=0)


def test_moments_and_latents(case):
    reference, ours, images = case
    with torch.no_grad():
        posterior = reference.encode(one_frame(images)).latent_dist
    mean, log_variance = nnx.jit(lambda vae, x: vae.moments(x))(ours, images)
    close(mean, posterior.mean)
    close(log_variance, posterior.logvar)
    scale = lambda values: torch.tensor(values).view(1, -1, 1, 1, 1)  # noqa: E731
    normalised = (posterior.mode() - scale(reference.config.latents_mean)) / scale(
        reference.config.latents_std
    )
    close(nnx.jit(lambda vae, x: vae.encode(x))(ours, images), normalised)


def test_decoded_pixels(case):
    reference, ours, images = case
    with torch.no_grad():
        latents = reference.encode(one_frame(images)).latent_dist.mode()
        expected = reference.decode(latents).sample
    mean, std = np.float32(reference.config.latents_mean), np.float32(reference.config.latents_std)
    normalised = (to_numpy(latents[:, :, 0]) - mean) / std
    decoded = nnx.jit(lambda vae, x: vae.decode(x))(ours, normalised)
    assert np.mean(np.abs(decoded) < 1) > 0.3  # most pixels are not clipped
    close(np.clip(decoded, -1, 1), expected)  # the reference clips
    close(ours.decode_raw(jnp.asarray(to_numpy(latents[:, :, 0]))).clip(-1, 1), expected)


def test_each_block(tmp_path):
    """Each block on the inputs of the reference."""
    reference = reference_vae()
    ours, seen = import_vae(reference, tmp_path), record(reference)
    with torch.no_grad():
        reference.decode(reference.encode(one_frame(np.tanh(normal(1, 1, 32, 16, 3)))).latent_dist.mode())
    pairs = {"quant_conv": ours.quant_conv, "post_quant_conv": ours.post_quant_conv}
    for name, coder in (("encoder", ours.encoder), ("decoder", ours.decoder)):
        blocks = coder.down_blocks if name == "encoder" else coder.up_blocks
        kind = "down_blocks" if name == "encoder" else "up_blocks"
        pairs |= {f"{name}.{kind}.{i}": block for i, block in enumerate(blocks)}
        pairs |= {
            f"{name}.conv_in": coder.conv_in,
            f"{name}.mid_block.resnets.0": coder.mid_block.resnets[0],
            f"{name}.mid_block.attentions.0": coder.mid_block.attention,
            f"{name}.mid_block": coder.mid_block,
            f"{name}.norm_out": coder.norm_out,
            f"{name}.conv_out": coder.conv_out,
        }
    assert len(pairs) == 2 + 11 + 4 + 2 * 6
    for name, module in pairs.items():
        inputs, expected = seen[name]
        made = jax.jit(module.__call__)(to_numpy(inputs[0][:, :, 0]))
        np.testing.assert_allclose(made, to_numpy(expected[:, :, 0]), atol=1e-4, rtol=0, err_msg=name)


def test_every_key_and_shape_of_the_published_vae():
    with torch.device("meta"):
        reference = AutoencoderKLWan()
    expected = {key: tuple(value.shape) for key, value in reference.state_dict().items()}
    found = {key: e.public_shape for e in wan_vae.entries(VAEConfig()) for key in e.keys}
    temporal = wan_vae.temporal_tensors(VAEConfig())
    assert found | temporal == expected
    assert sorted(temporal) == sorted(wan_vae.unused_keys(expected))
    config, mean, std = wan_vae.config_from_public(dict(reference.config), "config.json")
    assert (config, mean, std) == (VAEConfig(), wan_vae.LATENTS_MEAN, wan_vae.LATENTS_STD)
