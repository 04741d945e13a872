"""Lowers the programs of a run for a mesh of devices that this machine need not have; allocates nothing."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from genmask_jax.checkpoints.initial_weights import open_weights
from genmask_jax.checkpoints.runs import read_config, vae_source
from genmask_jax.config import TrainConfig
from genmask_jax.data.latents.cached_instruction import given_embeddings
from genmask_jax.data.sources import rows_by_task
from genmask_jax.hardware.flops import ModelFlops, count_flops
from genmask_jax.instruction import factory
from genmask_jax.instruction.base import Instruction
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.instruction.qwen.config import SIZES
from genmask_jax.models.dit import DiT, DiTConfig
from genmask_jax.models.vae import VAEConfig
from genmask_jax.parameters.names import shapes_of
from genmask_jax.parameters.plan import Source
from genmask_jax.parameters.rules import Sources, Weights
from genmask_jax.pretrained import directory_of
from genmask_jax.sharding import batch_sharding, counting, need_rows, placed
from genmask_jax.system import Networks, abstract_networks
from genmask_jax.training.genmask import GenMaskTask
from genmask_jax.training.optimizer import make_optimizer
from genmask_jax.training.state import make_init
from genmask_jax.training.step import make_train_step

TEXT = "the small red star on the left"
QWEN = "vl_7b"


@dataclasses.dataclass(frozen=True)
class RunShapes:
    """A run with shapes instead of arrays.

    config: config of the run.
    networks: the networks, with shapes instead of arrays.
    mesh: mesh of devices.
    encoder: the instruction encoder; `networks` take its embeddings as inputs if they are cached.
    assumptions: messages about assumptions, such as shapes of published models for missing weights.
    """

    config: TrainConfig
    networks: Networks
    mesh: Mesh
    encoder: Instruction
    assumptions: tuple[str, ...]


def describe_run(config: TrainConfig, mesh: Mesh) -> RunShapes:
    """Describes a run on a mesh. Missing weights get the shapes of published models.

    Raises:
        UserError: the config is inconsistent, or does not fit the mesh.
    """
    assumptions = []
    vae_directory = directory_of(config.vae, "config.vae") / "vae"
    if (vae_directory / "config.json").exists():
        vae_config, vae = read_config(VAEConfig, vae_directory), vae_source(config.vae)
    else:
        vae_config, vae = VAEConfig(), Source.IMPORT
        assumptions.append(f"{config.vae} does not exist; using the shape of Wan 2.1's VAE")
    encoder = _encoder(config.instruction, assumptions)
    instruction = encoder
    if config.data.latents and encoder.fingerprint is not None:
        assumptions.append("latents and embeddings are cached; the instruction encoder is not on the devices")
        instruction = given_embeddings(encoder)
    sources = Sources(vae=vae, init=_init(config, vae_config, assumptions))
    networks = abstract_networks(config, vae_config, instruction, mesh, sources)
    return RunShapes(config, networks, mesh, encoder, tuple(assumptions))


def _init(config: TrainConfig, vae_config: VAEConfig, assumptions: list[str]) -> Weights | None:
    """The weights of `config.init`; the shapes of Wan's DiT if they do not exist."""
    if not config.init:
        return None
    path = directory_of(config.init, "config.init")
    if path.exists():
        return open_weights(config.init)
    assumptions.append(f"{config.init} does not exist; using the shape of Wan 2.1's DiT")
    published = dataclasses.replace(
        config.model, channels=vae_config.channels, text_dim=DiTConfig.text_dim, lora_rank=0
    )
    state = nnx.eval_shape(lambda: nnx.state(DiT(published, rngs=nnx.Rngs(0))))
    shapes = {f"dit.{name}": shape for name, shape in shapes_of(state).items()}
    return Weights(path=path, source=Source.IMPORT, shapes=shapes)


def _encoder(config: InstructionConfig, assumptions: list[str]) -> Instruction:
    qwen = config.qwen
    exists = config.name != "qwen" or not qwen.weights or (epath.Path(qwen.weights) / "qwen").exists()
    if not exists:
        assumptions.append(f"{qwen.weights} does not exist; using the shape of Qwen {QWEN}")
        qwen = dataclasses.replace(qwen, weights="", shape=SIZES[QWEN])
    # Shapes do not depend on the vocabulary that a tokenizer learns.
    encoder = factory.build(dataclasses.replace(config, qwen=qwen), "", [TEXT])
    return encoder if exists else dataclasses.replace(encoder, source=Source.IMPORT)


def train_step(run: RunShapes) -> jax.stages.Lowered:
    """Lowers the training step (`training/loop.py`), on cached latents if `config.data.latents` is set."""
    config, plan = run.config, run.networks.plan
    task = GenMaskTask(run.networks, config)
    tx = make_optimizer(config.optimizer, config.loop, plan)
    init = make_init(task.init_params, tx, task.metric_names, ema=config.loop.ema_decay > 0)
    shapes = jax.eval_shape(init, jax.random.key(0))
    shardings = plan.shardings(shapes)
    step = make_train_step(task.loss, tx, config.loop, plan, shardings)
    return step.lower(jax.tree.map(placed, shapes, shardings), run.networks.frozen, batch_shapes(run))


def batch_shapes(run: RunShapes) -> Any:
    """Shapes, dtypes and shardings of a global batch (`data/pipeline.py`)."""
    data, size = run.config.data, run.config.data.size
    image = np.zeros((size, size, 3), np.uint8)
    latents = np.zeros(run.networks.latent_shape, np.float32)
    if data.latents:
        segment = {"image_latents": latents, "mask_latents": latents}
        generate = {"image_latents": latents}
    else:
        segment, generate = {"images": image, "masks": image[..., 0]}, {"images": image}
    segment["instruction"], generate["instruction"] = _instruction(run, image), _instruction(run, None)
    examples = {"segment": segment, "generate": generate}
    counts = rows_by_task(data, run.config.loop.global_batch_size)
    return {name: _rows(examples[name], count, run.mesh) for name, count in counts.items()}


def _instruction(run: RunShapes, image: np.ndarray | None) -> Any:
    """One example of instruction inputs: arrays of the preparer, or embeddings if they are cached."""
    inputs = run.encoder.preparer(TEXT, image)
    if run.encoder is run.networks.instruction:
        return inputs
    module = nnx.eval_shape(lambda: run.encoder.make(nnx.Rngs(0), jnp.dtype(run.config.compute_dtype)))
    graph, state = nnx.split(module)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), inputs)
    embeds, mask = jax.eval_shape(lambda state, batch: nnx.merge(graph, state)(batch), state, batch)
    return {
        "text_embeds": np.zeros(embeds.shape[1:], np.float32),
        "text_mask": np.zeros(mask.shape[1:], bool),
    }


def _rows(example: Any, count: int, mesh: Mesh) -> Any:
    """Shapes of `count` rows, sharded over the mesh. Raises UserError if they cannot be divided equally."""
    need_rows(count, mesh, "each task in config.loop.global_batch_size, or --batch_size")
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype, sharding=sharding), example
    )


def mask_sampler(run: RunShapes, batch_size: int) -> jax.stages.Lowered:
    """Lowers the mask sampler, with parameters sharded as in training."""
    segmenter = GenMaskTask(run.networks, run.config).segmenter
    return jax.jit(segmenter.program.trace).lower(*_mask_arguments(run, batch_size))


def _mask_arguments(run: RunShapes, batch_size: int) -> tuple[Any, ...]:
    size = run.config.data.size
    image = np.zeros((size, size, 3), np.uint8)
    params = run.networks.abstract_params()
    example = (image, _instruction(run, image), np.zeros(2, np.uint32))
    return params, run.networks.frozen, *_rows(example, batch_size, run.mesh)


def image_sampler(run: RunShapes, batch_size: int) -> jax.stages.Lowered:
    """Lowers the image sampler, with parameters sharded as in training."""
    generator = GenMaskTask(run.networks, run.config).generator
    return jax.jit(generator.program.trace).lower(*_image_arguments(run, batch_size))


def _image_arguments(run: RunShapes, batch_size: int) -> tuple[Any, ...]:
    example = (_instruction(run, None), _instruction(run, None), np.zeros(2, np.uint32), np.float32(1))
    params = run.networks.abstract_params()
    return params, run.networks.frozen, *_rows(example, batch_size, run.mesh)


def image_flops(run: RunShapes, batch_size: int) -> ModelFlops:
    """FLOPs of sampling a batch of images, on all devices."""
    generator = GenMaskTask(run.networks, run.config).generator
    with counting():
        return ModelFlops(None, count_flops(generator.images, *_image_arguments(run, batch_size)))


def train_flops(run: RunShapes) -> ModelFlops:
    """Model FLOPs of a training step, on all devices (`GenMaskTask.flops`)."""
    return GenMaskTask(run.networks, run.config).flops(batch_shapes(run))


def mask_flops(run: RunShapes, batch_size: int) -> ModelFlops:
    """FLOPs of sampling a batch of masks, on all devices."""
    segmenter = GenMaskTask(run.networks, run.config).segmenter
    with counting():
        return ModelFlops(None, count_flops(segmenter.probabilities, *_mask_arguments(run, batch_size)))


Lower = Callable[[RunShapes, int], jax.stages.Lowered]
CountFlops = Callable[[RunShapes, int], ModelFlops]

PROGRAMS: dict[str, tuple[Lower, CountFlops]] = {
    "train_step": (lambda run, batch_size: train_step(run), lambda run, batch_size: train_flops(run)),
    "mask_sampler": (mask_sampler, mask_flops),
    "image_sampler": (image_sampler, image_flops),
}
"""Functions of a run and the batch size of samplers, by program: they lower it, and count its model FLOPs."""
