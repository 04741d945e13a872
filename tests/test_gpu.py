"""The card does what the CPU does: training steps, both samplers, whole runs, two processes.

Run them with `make test-gpu`. References run on the CPU, in the same process where that is possible.
"""

import contextlib
import dataclasses
import importlib.metadata
import os

import jax
import numpy as np
import pytest
from conftest import micro_config
from test_hosts import by_flags, same_losses, train_and_stop, training

from genmask_jax.checkpoints.runs import load_vae
from genmask_jax.config import OptimizerConfig, SamplerConfig
from genmask_jax.data.refershapes.source import ReferShapesSegment
from genmask_jax.data.sources import texts
from genmask_jax.inference.image_sampler import ImageSampler
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.instruction import factory
from genmask_jax.models.dit import DiTConfig
from genmask_jax.sharding import MeshConfig, make_mesh, to_devices
from genmask_jax.system import make_networks
from genmask_jax.tools.benchmarks.random_weights import random_weights
from genmask_jax.training.genmask import GenMaskTask
from genmask_jax.training.optimizer import make_optimizer
from genmask_jax.training.state import init_state, make_init
from genmask_jax.training.step import make_train_step

pytestmark = pytest.mark.gpu


def card():
    return jax.devices()[0]


def cpu():
    return jax.devices("cpu")[0]


@contextlib.contextmanager
def on(device):
    """Computes on a device; float32 products are float32 ones on both, without TF32."""
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        yield make_mesh(MeshConfig(), [device])


def config_of(vae, dtype):
    """The micro run; in bfloat16 with sequences and heads that cuDNN's fused attention takes."""
    config = dataclasses.replace(
        micro_config(vae),
        compute_dtype=dtype,
        optimizer=OptimizerConfig(warmup_steps=1, learning_rate=1e-3),
    )
    if dtype == "float32":
        return config
    model = DiTConfig(hidden_size=32, depth=2, num_heads=2, ffn_size=32, patch_size=2)
    return dataclasses.replace(config, model=model, data=dataclasses.replace(config.data, size=128))


def networks_on(mesh, config):
    encoder = factory.build(config.instruction, "", texts(config.data, 400))
    return make_networks(config, *load_vae(config.vae), encoder, mesh)


def weights(networks):
    """Random weights, drawn on the host: JAX's random numbers differ in the last digits between devices."""
    return jax.device_get(random_weights(networks.abstract_params(), np.float32))


def train_on(device, vae, shape_of, dtype):
    """Metrics of the first step, the change of all parameters in the second, and the program's text.

    The first step's learning rate is 0. `shape_of` is the dtype whose config gives the shapes.
    """
    config = dataclasses.replace(config_of(vae, shape_of), compute_dtype=dtype)
    with on(device) as mesh:
        task = GenMaskTask(networks_on(mesh, config), config)
        tx = make_optimizer(config.optimizer, config.loop, task.plan)
        before = weights(task.networks)
        state, shardings = init_state(make_init(lambda key: before, tx, task.metric_names), 0, task.plan)
        step = make_train_step(task.loss, tx, config.loop, task.plan, shardings)
        batch = to_devices(next(task.batches(config.loop.global_batch_size, (0, 1))), mesh)
        text = step.lower(state, task.frozen, batch).as_text()
        state = step(state, task.frozen, batch)
        metrics = jax.device_get(state.metrics)
        state = step(state, task.frozen, batch)
        assert step._cache_size() == 1, "the second step was compiled again"
        assert {x.device for x in jax.tree.leaves(state)} == {device}
        after = jax.device_get(state.params)
    return metrics, flat(after) - flat(before), text


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]).astype(np.float64)


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def test_a_float32_step_is_that_of_the_cpu(micro_vae):
    """Adam divides by the gradient's size, so that the least gradients, with the fewest digits, count too."""
    theirs, their_change, _ = train_on(cpu(), micro_vae, "float32", "float32")
    ours, our_change, _ = train_on(card(), micro_vae, "float32", "float32")
    assert np.linalg.norm(their_change) > 0
    for name in ("loss", "loss_segment", "loss_generate"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name
    assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    assert distance(our_change, their_change) < 1e-2


def test_a_bfloat16_step_with_fused_attention_is_as_exact_as_that_of_the_cpu(micro_vae):
    """Both differ from a float32 step; the card's may differ by twice as much as the CPU's."""
    exact, exact_change, _ = train_on(cpu(), micro_vae, "bfloat16", "float32")
    _, their_change, _ = train_on(cpu(), micro_vae, "bfloat16", "bfloat16")
    ours, our_change, text = train_on(card(), micro_vae, "bfloat16", "bfloat16")
    assert "__cudnn$fmhaSoftmaxBackward" in text
    assert ours["loss"] == pytest.approx(exact["loss"], rel=1e-2)
    assert ours["grad_norm"] == pytest.approx(exact["grad_norm"], rel=5e-2)
    assert distance(our_change, exact_change) < 2 * distance(their_change, exact_change)


def sample_on(device, vae, shape_of, dtype):
    """Probabilities of refined and averaged masks, and images."""
    config = dataclasses.replace(config_of(vae, shape_of), compute_dtype=dtype)
    source = ReferShapesSegment("test", config.data.size)
    examples = [source[i] for i in range(3)]
    images = np.stack([example["image"] for example in examples])
    sampler = SamplerConfig(image_steps=4, mask_steps=2, mask_samples=2)
    with on(device) as mesh:
        networks = networks_on(mesh, config)
        networks.params = jax.device_put(weights(networks), mesh.devices.item())
        segmenter = MaskSampler(networks, sampler, batch_size=2)
        masks = segmenter(images, [example["text"] for example in examples])
        drawn = ImageSampler(networks, sampler, batch_size=2)(
            ["a red star", "a blue circle", "a green cross"]
        )
    return masks, drawn.astype(np.float64)


def test_float32_samples_are_those_of_the_cpu(micro_vae):
    """Images to one level of 255, where a value lies between two."""
    masks, images = sample_on(cpu(), micro_vae, "float32", "float32")
    our_masks, our_images = sample_on(card(), micro_vae, "float32", "float32")
    assert masks.std() > 0.01
    np.testing.assert_allclose(our_masks, masks, atol=1e-4)
    assert np.abs(our_images - images).max() <= 1
    assert (our_images != images).mean() < 0.01


def test_bfloat16_samples_are_as_exact_as_those_of_the_cpu(micro_vae):
    """As for the step: compared with float32 samples."""
    exact = sample_on(cpu(), micro_vae, "bfloat16", "float32")
    theirs = sample_on(cpu(), micro_vae, "bfloat16", "bfloat16")
    ours = sample_on(card(), micro_vae, "bfloat16", "bfloat16")
    for our, their, right in zip(ours, theirs, exact, strict=True):
        assert distance(our.ravel(), right.ravel()) < 2 * distance(their.ravel(), right.ravel())


def cards():
    """What CUDA_VISIBLE_DEVICES calls the cards of this process."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    return said.split(",") if said else [str(i) for i in range(jax.local_device_count())]


def nccl_version():
    for name in ("nvidia-nccl-cu12", "nvidia-nccl-cu13"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return tuple(int(part) for part in importlib.metadata.version(name).split(".")[:2])
    return 0, 0


def on_a_card(process, count, port):
    """Each process on one card, all on the same one if there are not as many.

    NCCL 2.30 and newer let processes share a card if they are told to; NVLS, which they cannot share, is off.
    """
    flags, environment = by_flags(process, count, port)
    shared = {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_NVLS_ENABLE": "0"} if len(cards()) < count else {}
    environment |= shared | {
        "CUDA_VISIBLE_DEVICES": cards()[process % len(cards())],
        "XLA_CLIENT_MEM_FRACTION": "0.2",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    }
    return flags, environment


def on_the_cpu(process, count, port):
    flags, environment = by_flags(process, count, port)
    return flags, environment | {"JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="module")
def alone(micro_vae, tmp_path_factory):
    """The work directory of a run on the CPU, stopped after some steps."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    train_and_stop(training(micro_vae, workdir), workdir, 6, said=on_the_cpu)
    return workdir


def test_a_run_on_a_card_stops_and_goes_on_as_one_on_the_cpu_does(micro_vae, alone, tmp_path):
    arguments = training(micro_vae, tmp_path / "run")
    train_and_stop(arguments, tmp_path / "run", 2, said=on_a_card)
    train_and_stop([*arguments, "--resume"], tmp_path / "run", 6, said=on_a_card)
    assert same_losses(tmp_path / "run", alone, rel=1e-3, steps=6) == 6


def test_two_processes_train_as_one_does(micro_vae, alone, tmp_path):
    """Parameters divided over both; each has a card of its own, or both share one."""
    if len(cards()) < 2 and nccl_version() < (2, 30):
        pytest.skip(f"needs two cards, or NCCL 2.30 to share one; this is {nccl_version()}")
    arguments = training(micro_vae, tmp_path / "run", "--config.mesh.fsdp=2")
    train_and_stop(arguments, tmp_path / "run", 6, processes=2, said=on_a_card)
    assert same_losses(tmp_path / "run", alone, rel=1e-3, steps=6) == 6
