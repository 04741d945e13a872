"""The DiT: shapes, timesteps a token, masks, stacked blocks, published sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genmask_jax.config import DIT_SIZES
from genmask_jax.models.dit import DiT, DiTConfig, patchify, unpatchify
from genmask_jax.models.layers import linear_factory, project, rotary_table, rotate, sinusoid

CONFIG = DiTConfig(hidden_size=48, depth=3, num_heads=4, ffn_size=96, channels=4, patch_size=2, text_dim=16)

POOLED = dataclasses.replace(CONFIG, pooled_text=True)


def make(config=CONFIG, **kwargs):
    model = DiT(config, rngs=nnx.Rngs(0), **kwargs)
    # The output projection starts at zero; a random one lets the tests see the network.
    kernel = model.proj_out.kernel
    kernel[...] = jax.random.normal(jax.random.key(9), kernel.shape) * 0.1
    return model


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(jax.random.key(1), 3)
    latents = jax.random.normal(keys[0], (2, 2, 8, 6, 4))
    timesteps = jnp.array([[0.9, 0.0], [0.3, 0.0]])
    return latents, timesteps, jax.random.normal(keys[1], (2, 5, 16))


def close(a, b, atol=2e-5):
    np.testing.assert_allclose(a, b, atol=atol)


def test_output_has_the_shape_of_the_latents(inputs):
    assert make()(*inputs).shape == inputs[0].shape
    assert DiT(CONFIG, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))(*inputs).dtype == jnp.float32


def test_timesteps_by_frame_equal_timesteps_by_token(inputs):
    latents, timesteps, text = inputs
    by_token = timesteps.repeat(4 * 3, axis=1)
    close(make()(latents, timesteps, text), make()(latents, by_token, text))
    same = jnp.full((2, 1), 0.4)
    close(make()(latents, same, text), make()(latents, same.repeat(2, 1), text))


def test_the_clean_frames_timestep_matters(inputs):
    latents, timesteps, text = inputs
    other = make()(latents, timesteps.at[:, 1].set(0.5), text)
    assert jnp.abs(other - make()(latents, timesteps, text))[:, 0].max() > 1e-3


@pytest.mark.parametrize("config", [CONFIG, POOLED])
def test_masked_text_is_not_read(inputs, config):
    latents, timesteps, text = inputs
    model, mask = make(config), jnp.array([[True] * 3 + [False] * 2] * 2)
    changed = text.at[:, 3:].set(100.0)
    close(model(latents, timesteps, text, mask), model(latents, timesteps, changed, mask))
    close(model(latents, timesteps, text, mask), model(latents, timesteps, text[:, :3]))
    assert jnp.abs(model(latents, timesteps, text) - model(latents, timesteps, changed)).max() > 1e-3


def test_pooled_text_modulates_beside_the_timestep(inputs):
    """Without attention to the text, the text still changes the output, through its mean alone."""
    latents, timesteps, text = inputs
    changes = {}
    for config in (CONFIG, POOLED):
        model = make(config)
        for name in ("kernel", "bias"):
            to_out = getattr(model.blocks.attn2.to_out, name)
            to_out[...] = jnp.zeros_like(to_out[...])
        same_mean = model(latents, timesteps, text[:, ::-1]) - model(latents, timesteps, text)
        other_mean = model(latents, timesteps, text + 1) - model(latents, timesteps, text)
        close(same_mean, 0)
        changes[config.pooled_text] = float(jnp.abs(other_mean).max())
    assert changes[False] == 0
    assert changes[True] > 1e-3


@pytest.mark.parametrize(
    "change", [{"remat": "all"}, {"remat": "attention"}, {"remat": "matrices"}, {"unroll": True}]
)
def test_remat_and_unroll_change_nothing(inputs, change):
    def gradient(config):
        graph, params = nnx.split(make(config))
        return jax.grad(lambda p: jnp.square(nnx.merge(graph, p)(*inputs)).mean())(params)

    jax.tree.map(close, gradient(CONFIG), gradient(dataclasses.replace(CONFIG, **change)))


@pytest.mark.parametrize("change", [{}, {"unroll": True}, {"unroll": True, "remat": "matrices"}])
@pytest.mark.parametrize("per_token", [False, True])
def test_the_first_frame_alone_is_the_same(inputs, change, per_token):
    latents, timesteps, text = inputs
    if per_token:
        timesteps = timesteps.repeat(4 * 3, axis=1)
    graph, params = nnx.split(make(dataclasses.replace(CONFIG, **change)))

    def loss(params, frames):
        (velocity,) = nnx.merge(graph, params).together((latents, timesteps, text, None), frames=frames)
        return jnp.square(velocity[:, 0]).mean()

    alone, whole = (jax.value_and_grad(loss)(params, frames) for frames in (1, None))
    jax.tree.map(close, alone, whole)


def test_layers_of_one_input_are_one_product():
    def layers(**options):
        linear = linear_factory(jnp.float32, jnp.float32, nnx.Rngs(0), **options)
        return [linear(16, size) for size in (8, 8, 24)]

    x = jax.random.normal(jax.random.key(0), (2, 5, 16))
    for linears in (layers(), layers(lora_rank=4)):
        for together, layer in zip(project(x, *linears), linears, strict=True):
            close(together, layer(x))


def test_blocks_differ_and_all_count(inputs):
    model = make()
    kernel = model.blocks.ffn.linear_1.kernel
    assert kernel.shape == (3, 48, 96)
    assert jnp.abs(kernel[0] - kernel[1]).max() > 0.01
    before = model(*inputs)
    for i in range(3):
        changed = make()
        bias = changed.blocks.ffn.linear_2.bias
        bias[...] = bias[...].at[i].set(1.0)
        assert jnp.abs(changed(*inputs) - before).max() > 1e-4


def test_patches_come_back():
    x = jax.random.normal(jax.random.key(0), (2, 3, 8, 4, 5))
    tokens = patchify(x, 2)
    assert tokens.shape == (2, 3 * 4 * 2, 20)
    # Input channels are ordered (C, p, p), output channels (p, p, C), as in the published weights.
    reordered = tokens.reshape(2, 24, 5, 2, 2).transpose(0, 1, 3, 4, 2).reshape(2, 24, 20)
    np.testing.assert_array_equal(unpatchify(reordered, 2, (3, 4, 2)), x)


def test_rotary_positions_are_relative_and_split_as_published():
    cos, _ = rotary_table(128, (2, 3, 4))
    assert cos.shape == (24, 64)
    # 44/42/42 channels: the first 22 angles turn with the frame, then 21 with the row, 21 with the column.
    moved = np.asarray(rotary_table(128, (2, 3, 4))[1]).reshape(2, 3, 4, 64)
    assert (moved[1, 0, 0, :22] != 0).all()
    assert (moved[1, 0, 0, 22:] == 0).all()
    assert (moved[0, 1, 0, 22:43] != 0).all()
    assert (moved[0, 0, 1, 43:] != 0).all()
    table = rotary_table(24, (1, 1, 8))
    x = jnp.tile(jax.random.normal(jax.random.key(0), (1, 1, 1, 24)), (1, 8, 1, 1))
    turned = rotate(x, table)[0, :, 0]
    scores = turned @ turned.T
    close(jnp.diagonal(scores, 2), jnp.full(6, scores[0, 2]), 1e-4)


def test_timestep_embedding_is_cosines_then_sines():
    embedding = sinusoid(jnp.array([0.0, 10.0]), 8)
    np.testing.assert_array_equal(embedding[0], [1, 1, 1, 1, 0, 0, 0, 0])
    close(embedding[1, [0, 4]], jnp.array([jnp.cos(10.0), jnp.sin(10.0)]))


@pytest.mark.parametrize(("size", "billions"), [("l", 1.419), ("xl", 14.288)])
def test_published_sizes_without_allocating_them(size, billions):
    config = DiTConfig(**DIT_SIZES[size])
    params = nnx.state(nnx.eval_shape(lambda: DiT(config, rngs=nnx.Rngs(0))), nnx.Param)
    count = sum(np.prod(x.shape) for x in jax.tree.leaves(params))
    assert count / 1e9 == pytest.approx(billions, abs=0.001)
