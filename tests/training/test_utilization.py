"""Model FLOPs utilization: what counts, against a formula; and its charts where a device's peak is known."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest
from conftest import micro_config, start
from flax import nnx
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genmask_jax.checkpoints.runs import load_vae
from genmask_jax.config import VAETrainConfig
from genmask_jax.hardware.cards import CARDS
from genmask_jax.hardware.chips import peak_flops
from genmask_jax.hardware.flops import ModelFlops, count_flops
from genmask_jax.instruction.qwen.config import QwenVisionConfig
from genmask_jax.instruction.qwen.vision import QwenVision
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.sharding import MeshConfig, counting, make_mesh
from genmask_jax.tools.estimates import programs
from genmask_jax.training import reporting
from genmask_jax.training.vae import VAETask
from tests.instruction.qwen.test_in_the_system import qwen_config

PEAK = 1e9


def described(config):
    return programs.describe_run(config, make_mesh(MeshConfig(), jax.devices()[:1]))


def flops(config) -> ModelFlops:
    return programs.train_flops(described(config))


def forward_by_xla(function, *arguments) -> float:
    """As XLA counts before it optimises anything; it adds a little for norms and the like."""
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def trained_by_formula(config, text_tokens=16) -> float:
    """Forward and backward of the DiT on both halves, and of the tiny encoder, product by product.

    A layer's backward pass has two products of the size of its forward one: the gradients of its weights and
    of its input, which layers on data (patches, timesteps' sinusoids, embeddings) have no use for. The two
    products of attention have four.
    """
    m, text, rows = config.model, config.instruction.tiny, config.loop.global_batch_size // 2
    side = config.data.size // 4 // m.patch_size  # the micro VAE's stride is 4
    wide, patch, total = m.hidden_size, 4 * m.patch_size**2, 0.0

    def linear(tokens, inputs, outputs, first=False):
        return (2 if first else 3) * 2 * tokens * inputs * outputs

    def attention(queries, keys, width):
        return 3 * 2 * 2 * queries * keys * width

    for frames in (2, 1):
        n, length = frames * side**2, text_tokens
        total += linear(n, patch, wide, first=True) + linear(
            side**2, wide, patch
        )  # out: the noisy frame alone
        total += linear(frames, m.frequency_dim, wide, first=True) + linear(frames, wide, wide)
        total += linear(frames, wide, 6 * wide)
        total += linear(length, text.hidden_size, wide) + linear(length, wide, wide)
        block = 4 * linear(n, wide, wide) + attention(n, n, wide)
        block += 2 * linear(n, wide, wide) + 2 * linear(length, wide, wide) + attention(n, length, wide)
        block += 2 * linear(n, wide, m.ffn_size)
        total += m.depth * block
        size = text.hidden_size
        total += text.depth * (12 * linear(length, size, size) + attention(length, length, size))
    return rows * total


def test_the_trained_networks_count_forward_and_backward_and_the_frozen_forward(micro_vae):
    config = micro_config(micro_vae)
    found = flops(config)
    assert found.trained == trained_by_formula(config)
    remat = dataclasses.replace(config, model=dataclasses.replace(config.model, remat="all"))
    assert flops(remat) == found  # recomputation does not count
    # The VAE encodes three images for each row of a half: a mask, its image, and the other half's image.
    vae_config, state = load_vae(micro_vae)
    graph = nnx.split(nnx.eval_shape(lambda: VAE(vae_config, rngs=nnx.Rngs(0))))[0]
    images = jax.ShapeDtypeStruct((3 * config.loop.global_batch_size // 2, 32, 32, 3), jnp.float32)
    encode = forward_by_xla(lambda state, x: nnx.merge(graph, state).encode(x), state, images)
    assert found.every - found.trained == pytest.approx(encode, rel=0.15)
    assert found.every - found.trained < encode


def test_what_is_frozen_or_cached_is_not_of_the_trained_networks(micro_vae, tmp_path):
    """A frozen encoder counts among all networks; encodings that are cached nowhere; adapters cost less."""
    frozen = qwen_config(micro_vae)
    cached = dataclasses.replace(frozen, data=dataclasses.replace(frozen.data, latents="/nowhere/latents"))
    adapted = dataclasses.replace(
        cached, init="/nowhere/wan", model=dataclasses.replace(cached.model, lora_rank=2)
    )
    partly = qwen_config(micro_vae, train_layers=1)
    whole, alone, adapters, both = (flops(config) for config in (frozen, cached, adapted, partly))
    assert alone.every == alone.trained == whole.trained
    assert whole.every > 1.2 * whole.trained
    assert adapters.trained == adapters.every
    # Forward and back to the inputs of all matrices, but hardly any gradients of weights.
    assert 2 / 3 < adapters.trained / alone.trained < 0.85
    assert both.trained > whole.trained
    assert both.every - both.trained < whole.every - whole.trained


def test_of_an_encoders_branches_each_block_counts_its_own():
    """Blocks of Qwen's vision tower attend within windows or to the whole image, as their number says."""
    one = QwenVisionConfig(2, 16, 2, 24, patch_size=4, window_size=16, full_attention=(1,))
    counted = []
    for full in ((), (0,), (0, 1)):
        config = dataclasses.replace(one, full_attention=full)
        graph, state = nnx.split(
            nnx.eval_shape(
                lambda c=config: QwenVision(
                    c, 8, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(0)
                )
            )
        )
        shapes = ((1, 64, 48), jnp.uint8), ((1, 64, 2), int), ((1, 64), int), ((1, 16), int)
        inputs = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
        with counting():
            counted.append(count_flops(lambda s, *x, g=graph: nnx.merge(g, s)(*x), state, *inputs))
    window, length, width = one.window_patches, 64, 16
    more = 2 * 2 * length * (length - 3 * window) * width  # a stretch attends to itself and to its neighbours
    assert counted == [counted[0], counted[0] + more, counted[0] + 2 * more]


def test_a_vae_is_trained_whole():
    config = VAETrainConfig("micro", VAEConfig(8, 8, 4, (1,), 1, 4))
    task = VAETask(config)
    images = jax.ShapeDtypeStruct((3, 64, 64, 3), jnp.uint8)
    batch = {"images": images, "masks": jax.ShapeDtypeStruct((3, 64, 64), jnp.uint8)}
    found = task.flops(batch)
    params = nnx.eval_shape(lambda: task.init_params(jax.random.key(0)))
    forward = forward_by_xla(
        lambda params, batch: task.loss(params, None, batch, jax.random.key(0)), params, batch
    )
    assert found.trained == found.every == pytest.approx(3 * forward, rel=0.15)


def series(workdir, tag):
    events = EventAccumulator(str(workdir), size_guidance={"scalars": 0}).Reload()
    return [event.value for event in events.Scalars(tag)]


def test_both_are_charted_where_the_peak_is_known(micro_vae, micro_run, tmp_path, monkeypatch):
    config = micro_config(micro_vae)
    monkeypatch.setattr(reporting, "peak_flops", lambda kind: PEAK)
    start(config, tmp_path / "run")
    per_step = flops(config) / (PEAK * jax.device_count())
    speed = series(tmp_path / "run", "steps_per_second")
    for name, expected in (("mfu", per_step.trained), ("mfu_all_networks", per_step.every)):
        found = series(tmp_path / "run", name)
        assert [a / b for a, b in zip(found, speed, strict=True)] == pytest.approx([expected] * 4, rel=1e-4)
    assert "mfu" not in json.loads((micro_run[0] / "metrics.jsonl").read_text().splitlines()[0])
    with pytest.raises(KeyError):
        series(micro_run[0], "mfu")  # nobody knows the peak of a CPU


@pytest.mark.parametrize(("kind", "peak"), [("TPU v5 lite", 197e12), ("TPU v6 lite", 918e12), ("cpu", None)])
def test_peaks(kind, peak):
    assert peak_flops(kind) == peak
    assert all(peak_flops(card.name) == card.peak_flops for card in CARDS.values())
