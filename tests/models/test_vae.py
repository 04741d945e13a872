"""The VAE: shapes at several configurations, latent statistics, pixel-unshuffle, published size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genmask_jax.models.vae import VAE, VAEConfig, _shuffle, _unshuffle

SMALL = VAEConfig(
    base_dim=8, decoder_base_dim=8, channels=4, multipliers=(1, 2), num_res_blocks=1, patch_size=2
)


@pytest.mark.parametrize(
    ("config", "size", "latents"),
    [
        (SMALL, (16, 24), (4, 6)),
        (VAEConfig(8, 8, 4, (1,), 1, 4), (16, 16), (4, 4)),
        (VAEConfig(8, 16, 16, (1, 2, 4, 4), 2, 1), (16, 32), (2, 4)),
    ],
)
def test_shapes(config, size, latents):
    vae = VAE(config, rngs=nnx.Rngs(0))
    images = jax.random.uniform(jax.random.key(0), (2, *size, 3), minval=-1)
    encoded = jax.jit(lambda x: vae.encode(x))(images)
    assert encoded.shape == (2, *latents, config.channels)
    assert size[0] // config.stride == latents[0]
    assert jax.jit(lambda x: vae.decode(x))(encoded).shape == images.shape


def test_latents_are_normalised_by_channel():
    vae = VAE(SMALL, rngs=nnx.Rngs(0))
    images = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3), minval=-1)
    mean, decoded = vae.moments(images)[0], vae.decode(vae.encode(images))
    vae.latents_mean[...], vae.latents_std[...] = jnp.arange(4.0), jnp.arange(1.0, 5.0)
    np.testing.assert_allclose(vae.encode(images), (mean - jnp.arange(4)) / jnp.arange(1, 5), atol=1e-5)
    np.testing.assert_allclose(vae.decode(vae.encode(images)), decoded, atol=1e-4)


def test_unshuffle_is_undone_and_ordered_as_published():
    x = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
    packed = _unshuffle(x, 4)
    assert packed.shape == (2, 2, 3, 48)
    np.testing.assert_array_equal(_shuffle(packed, 4), x)
    np.testing.assert_array_equal(
        packed[0, 0, 0].reshape(3, 4, 4)[1, 2, 3], x[0, 3, 2, 1]
    )  # (C, column, row)


def test_encoding_does_not_see_beyond_the_image_size():
    vae = VAE(SMALL, rngs=nnx.Rngs(0))
    images = jax.random.uniform(jax.random.key(0), (3, 16, 16, 3), minval=-1)
    np.testing.assert_allclose(vae.encode(images)[1:2], vae.encode(images[1:2]), atol=1e-5)


def test_published_size_in_two_dimensions():
    """Every key of the public VAE, less the temporal taps: 3x3x3 becomes 3x3 and `time_conv` goes."""
    params = nnx.state(nnx.eval_shape(lambda: VAE(VAEConfig(), rngs=nnx.Rngs(0))), nnx.Param)
    paths = {".".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(params)}
    assert paths["encoder.conv_in.kernel"] == (3, 3, 3, 96)
    assert paths["encoder.down_blocks.10.conv2.kernel"] == (3, 3, 384, 384)
    assert paths["decoder.up_blocks.3.resnets.0.conv1.kernel"] == (3, 3, 96, 96)
    assert paths["quant_conv.kernel"] == (1, 1, 32, 32)
    assert len([p for p in paths if p.startswith("encoder.down_blocks.")]) > 0
