"""The DiT against diffusers' WanTransformer3DModel, with imported weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from flax import nnx

from genmask_jax.config import DIT_SIZES
from genmask_jax.models.dit import DiTConfig, patchify
from genmask_jax.models.layers import rotary_table, sinusoid
from genmask_jax.parameters.names import flat_paths
from genmask_jax.public_weights import wan_dit
from tests.public_weights.reference import import_dit, normal, record, reference_dit, to_numpy, to_torch


@dataclasses.dataclass(frozen=True)
class Case:
    """Shape of the model, [B, F, h, w] of the latents, text length, and the unit that a timestep is for."""

    model: dict
    latents: tuple[int, int, int, int]
    text: int
    timesteps: str


CASES = {
    "one layer, one head, one frame": Case(
        {"num_layers": 1, "num_attention_heads": 1}, (1, 1, 8, 8), 5, "example"
    ),
    "wide image": Case({"num_layers": 2}, (2, 1, 4, 14), 2, "example"),
    "image of the full size": Case({"num_layers": 1}, (1, 1, 64, 64), 3, "example"),
    "two frames (t, 0)": Case({"num_layers": 3, "num_attention_heads": 4}, (2, 2, 10, 6), 7, "frame"),
    "two frames, one timestep": Case({}, (3, 2, 6, 8), 12, "example"),
    "a timestep a token": Case({}, (2, 2, 4, 6), 9, "token"),
    "heads of 128, as published": Case({"attention_head_dim": 128}, (2, 2, 6, 10), 16, "frame"),
    "six layers": Case({"num_layers": 6}, (1, 2, 6, 4), 8, "frame"),
}


@pytest.fixture(scope="module", params=list(CASES))
def case(request, tmp_path_factory):
    """(reference, ours, imported part, latents, timesteps, text, timesteps of the reference)."""
    chosen = CASES[request.param]
    reference = reference_dit(**chosen.model)
    ours, part = import_dit(reference, tmp_path_factory.mktemp("wan"))
    b, f, h, w = chosen.latents
    latents, text = normal(1, b, f, h, w, 4), normal(2, b, chosen.text, 20)
    tokens = f * (h // 2) * (w // 2)
    uniform = np.random.default_rng(3).uniform(size=(b, tokens)).astype(np.float32)
    if chosen.timesteps == "example":
        timesteps = uniform[:, :1]
        theirs = timesteps[:, 0]
    elif chosen.timesteps == "frame":
        timesteps = np.concatenate([uniform[:, :1], np.zeros((b, f - 1), np.float32)], axis=1)
        theirs = timesteps.repeat(tokens // f, axis=1)
    else:
        timesteps = theirs = uniform
    return reference, ours, part, latents, timesteps, text, torch.from_numpy(1000 * theirs)


def run_reference(reference, latents, theirs, text):
    return reference(to_torch(latents), theirs, torch.from_numpy(text), return_dict=False)[0]


def test_output(case):
    reference, ours, _, latents, timesteps, text, theirs = case
    with torch.no_grad():
        expected = to_numpy(run_reference(reference, latents, theirs, text))
    assert 0.3 < expected.std() < 3
    velocity = nnx.jit(ours)(latents, timesteps, text)
    print(f"velocity: {np.abs(velocity - expected).max():.1e}, standard deviation {expected.std():.2f}")
    np.testing.assert_allclose(velocity, expected, atol=2e-5, rtol=0)


def test_gradients(case):
    reference, ours, part, latents, timesteps, text, theirs = case
    probe = normal(5, *latents.shape)
    graph, params = nnx.split(ours)

    @jax.jit
    def gradient(params, latents, text):
        def product(*arguments):
            params, latents, text = arguments
            return (nnx.merge(graph, params)(latents, jnp.asarray(timesteps), text) * probe).sum()

        return jax.grad(product, argnums=(0, 1, 2))(params, latents, text)

    grads, latents_grad, text_grad = jax.device_get(gradient(params, latents, text))
    reference.zero_grad()
    inputs, words = to_torch(latents).requires_grad_(), torch.from_numpy(text).requires_grad_()
    (reference(inputs, theirs, words, return_dict=False)[0] * to_torch(probe)).sum().backward()
    errors = {
        "latents": relative(latents_grad, to_numpy(inputs.grad)),
        "text": relative(text_grad, words.grad.numpy()),
    }
    by_path = dict(flat_paths(grads))
    theirs_by_key = {key: parameter.grad.numpy() for key, parameter in reference.named_parameters()}
    for entry in part.entries:
        errors[entry.path] = relative(by_path[entry.path][...], entry.gather(theirs_by_key))
    worst = max((error, name) for name, error in errors.items())
    print(f"gradients, relative: {worst[0]:.1e} in {worst[1]}")
    assert worst[0] < 1e-4, worst


def relative(ours: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(ours - expected) / np.linalg.norm(expected))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Our DiT, its inputs for two frames at (t, 0), and the inputs and outputs of the reference's modules."""
    reference = reference_dit(num_layers=3)
    ours, _ = import_dit(reference, tmp_path_factory.mktemp("wan"))
    seen = record(reference)
    latents, text = normal(1, 2, 2, 6, 8, 4), normal(2, 2, 7, 20)
    timesteps = np.array([[0.9, 0.0], [0.2, 0.0]], np.float32)
    with torch.no_grad():
        run_reference(reference, latents, torch.from_numpy(1000 * timesteps.repeat(12, axis=1)), text)
    return ours, latents, timesteps, text, seen


def close(ours, expected, atol=2e-5):
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    np.testing.assert_allclose(ours, expected, atol=atol, rtol=0)


def test_embeddings(recorded):
    ours, latents, timesteps, text, seen = recorded
    timesteps, text = jnp.asarray(timesteps), jnp.asarray(text)
    close(
        ours.patch_embedding(patchify(jnp.asarray(latents), 2)),
        to_numpy(seen["patch_embedding"][1]).reshape(2, 24, -1),
    )
    frequencies = sinusoid(1000 * timesteps, 32).repeat(12, axis=1).reshape(48, 32)
    close(frequencies, seen["condition_embedder.timesteps_proj"][1], 1e-6)
    time, modulation, context, _ = seen["condition_embedder"][1]
    here = ours.time_embedder(sinusoid(1000 * timesteps, 32))
    close(here.repeat(12, axis=1), time)
    close(ours.time_proj(jax.nn.silu(here)).repeat(12, axis=1), modulation)
    close(ours.text_embedder(text), context)


@pytest.mark.parametrize("layer", range(3))
def test_block(recorded, layer):
    """Each block and each of its parts, on the inputs of the reference."""
    ours, _, _, _, seen = recorded
    graph, state = nnx.split(ours.blocks)
    block = nnx.merge(graph, jax.tree.map(lambda x: x[layer], state))
    (x, context, modulation, _), expected = seen[f"blocks.{layer}"]
    x, context, modulation = (jnp.asarray(value.numpy()) for value in (x, context, modulation))
    rotary = rotary_table(24, (2, 3, 4))
    part = lambda name: seen[f"blocks.{layer}.{name}"]  # noqa: E731
    inputs = lambda name: jnp.asarray(part(name)[0][0].numpy())  # noqa: E731
    close(block.attn1(inputs("attn1"), rotary=rotary), part("attn1")[1])
    close(block.norm2(inputs("norm2")), part("norm2")[1])
    close(block.attn2(inputs("attn2"), context), part("attn2")[1])
    close(block.ffn(inputs("ffn")), part("ffn")[1])
    close(
        block(x, modulation, context, None, rotary), expected
    )  # one modulation per token, as in the reference
    close(block(x, modulation[:, ::12], context, None, rotary), expected)  # one per frame


@pytest.mark.parametrize("size", ["l", "xl"])
def test_every_key_and_shape_of_the_published_sizes(size):
    """Against diffusers' own model of that size, neither of them allocated."""
    published = {
        "l": {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960},
        "xl": {"num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824},
    }
    with torch.device("meta"):
        reference = WanTransformer3DModel(**published[size], text_dim=4096)
    expected = {key: tuple(value.shape) for key, value in reference.state_dict().items()}
    entries = wan_dit.entries(DiTConfig(**DIT_SIZES[size]))
    assert {key: entry.public_shape for entry in entries for key in entry.keys} == expected
    count = sum(np.prod(entry.shape) for entry in entries)
    assert count == sum(p.numel() for p in reference.parameters())
    assert count / 1e9 == pytest.approx({"l": 1.419, "xl": 14.288}[size], abs=0.001)
