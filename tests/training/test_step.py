"""The step: accumulated gradients, EMA, windowed metrics, and the same numbers on many devices."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genmask_jax.config import LoopConfig, OptimizerConfig
from genmask_jax.training.optimizer import make_optimizer
from genmask_jax.training.step import accumulate_gradients, update_ema, update_running_means
from tests.training.plans import plan_of

ROOT = pathlib.Path(__file__).parents[2]


def loss(params, frozen, batch, key):
    del key
    error = jnp.square(batch @ params - frozen).mean()
    return error, {"loss": error}


def test_accumulation_equals_the_whole_batch():
    batch, params = jax.random.normal(jax.random.key(0), (8, 3)), jnp.arange(3.0)
    whole = accumulate_gradients(loss, params, 1.0, batch, jax.random.key(1), 1)
    parts = accumulate_gradients(loss, params, 1.0, batch, jax.random.key(1), 4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, parts)


def test_ema_follows_fast_at_first_and_slowly_later():
    early = update_ema(jnp.zeros(()), jnp.ones(()), jnp.array(0), 0.99)
    late = update_ema(jnp.zeros(()), jnp.ones(()), jnp.array(100_000), 0.99)
    assert early == pytest.approx(0.9)
    assert late == pytest.approx(0.01, rel=1e-3)


def test_without_an_average_none_is_made():
    assert update_ema(None, jnp.ones(()), jnp.array(0), 0.0) is None


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_moments_in_bfloat16_take_half_the_memory_and_nearly_the_same_steps(name):
    kernel = jax.random.normal(jax.random.key(0), (2, 32, 48))
    params = {"dit": {"blocks": {"kernel": kernel}, "proj_out": {"kernel": kernel[0]}}}
    moved = {}
    for dtype in ("float32", "bfloat16"):
        config = OptimizerConfig(name, learning_rate=1e-2, warmup_steps=0, moments_dtype=dtype)
        tx = make_optimizer(config, LoopConfig(num_steps=10_000), plan_of(params, config))
        state = tx.init(params)
        moments = [x for x in jax.tree.leaves(state) if x.ndim > 1]
        assert {x.dtype for x in moments} == {jnp.dtype(dtype)}
        update, now = jax.jit(tx.update), params
        for step in range(400):  # long enough for the second moment to settle
            noise = jax.random.normal(jax.random.key(step), (2, 32, 48))
            grads = {"dit": {"blocks": {"kernel": noise}, "proj_out": {"kernel": noise[0]}}}
            updates, state = update(grads, state, now)
        moved[dtype] = updates["dit"]
    rms = {dtype: float(jnp.sqrt(jnp.square(x["proj_out"]["kernel"]).mean())) for dtype, x in moved.items()}
    assert rms["bfloat16"] == pytest.approx(rms["float32"], rel=0.02)
    for part in ("blocks", "proj_out"):
        one, other = (moved[dtype][part]["kernel"].ravel() for dtype in ("float32", "bfloat16"))
        assert jnp.corrcoef(one, other)[0, 1] > 0.998


def test_window_means_restart():
    means, seen = {"loss": jnp.array(99.0)}, []
    for step, value in enumerate([1.0, 3.0, 10.0, 20.0]):
        means = update_running_means(means, {"loss": jnp.array(value)}, jnp.array(step % 2))
        seen.append(float(means["loss"]))
    assert seen == [1.0, 2.0, 10.0, 15.0]


def test_the_instruction_encoder_learns_at_its_own_rate():
    config = OptimizerConfig(learning_rate=1e-3, instruction_lr_scale=0.1, warmup_steps=0)
    params = {"dit": {"kernel": jnp.ones((2, 2))}, "instruction": {"kernel": jnp.ones((2, 2))}}
    tx = make_optimizer(config, LoopConfig(), plan_of(params, config))
    updates, _ = tx.update(params, tx.init(params), params)
    ratio = updates["instruction"]["kernel"] / updates["dit"]["kernel"]
    np.testing.assert_allclose(ratio, 0.1, rtol=1e-5)


def test_muon_makes_updates_of_block_matrices_orthogonal_and_leaves_the_rest_to_adam():
    kernel = jax.random.normal(jax.random.key(0), (3, 16, 24)) * jnp.array([1.0, 1e-3, 10.0])[:, None, None]
    params = {"dit": {"blocks": {"kernel": kernel}, "proj_out": {"kernel": kernel[0]}}}

    config = OptimizerConfig(name="muon", learning_rate=1e-2, warmup_steps=0, max_grad_norm=1e9)
    tx, adam = (
        make_optimizer(config, LoopConfig(), plan_of(params, config)),
        optax.nadamw(1e-2, b1=config.b1, b2=config.b2, weight_decay=0),
    )
    muon, adam = (t.update(params, t.init(params), params)[0]["dit"] for t in (tx, adam))
    np.testing.assert_allclose(muon["proj_out"]["kernel"], adam["proj_out"]["kernel"], rtol=1e-5)
    # All singular values are about 1 before the update gets Adam's usual size, 0.2 of the learning rate.
    size = 1e-2 * 0.2 * np.sqrt(24)
    values = np.linalg.svd(muon["blocks"]["kernel"], compute_uv=False) / size
    assert values.min() > 0.5
    assert values.max() < 1.4


@pytest.mark.multidevice
@pytest.mark.parametrize(
    "meshes",
    [("1", "1x8", "2x2x2"), pytest.param(("1", "8", "1x8", "1x2x4", "2x2x2"), marks=pytest.mark.slow)],
    ids=len,
)
def test_meshes_give_the_numbers_of_one_device_and_take_each_others_checkpoints(micro_vae, tmp_path, meshes):
    """On 8 pretend devices, in a process of its own: one, data 8, fsdp 8, fsdp 2 x tensor 4, 2 x 2 x 2."""
    command = [
        sys.executable,
        "-m",
        "tests.training.sharded_steps",
        micro_vae,
        str(tmp_path / "run"),
        *meshes,
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    for mesh, found in json.loads(done.stdout.splitlines()[-1]).items():
        assert found.pop("skipped") == [0, 1]
        assert (found.pop("divided") > 0.5) == (mesh not in ("1", "8"))
        # FSDP gathers a parameter for the forward pass and for the backward pass, and no activations are.
        assert found.pop("gathered", 0) < 2.5
        assert max(found.values()) < 1e-5, (mesh, found)
