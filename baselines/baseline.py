"""What both baselines share: config, networks, training task, prediction, loading and scoring.

A baseline predicts a logit for each pixel and is trained with binary cross-entropy. Everything else is
GenMask's: data, instruction encoder, optimizers, training loop, checkpoints, validation and scores.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import logging
from dit_linear import DiTLinear
from etils import epath
from flax import nnx
from unet import UNet, UNetConfig, UNetModel

from genmask_jax.checkpoints.runs import find_step, load_vae, read_config, restore_ema
from genmask_jax.config import SamplerConfig, TrainConfig
from genmask_jax.data.sources import generates
from genmask_jax.evaluation.scoring import Scoring
from genmask_jax.hardware.flops import ModelFlops, count_flops
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.inference.programs import shared_program
from genmask_jax.instruction import factory
from genmask_jax.models.dit import DiT
from genmask_jax.models.vae import VAE
from genmask_jax.parameters.names import flat_paths
from genmask_jax.parameters.rules import compute_dtypes, make_plan
from genmask_jax.sharding import MeshConfig, constrain_batch, counting, make_mesh, tracing_context
from genmask_jax.system import Networks, make_networks
from genmask_jax.training.genmask import GenMaskTask
from genmask_jax.training.step import NORMS
from genmask_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class BaselineConfig(TrainConfig):
    """A `TrainConfig` whose fields of objective, noise, generated images and passes have no effect.

    baseline: "unet" or "dit_linear". The second uses `model` and `vae`, the first uses `unet`.
    unet: the U-Net.
    """

    baseline: str = "dit_linear"
    unet: UNetConfig = UNetConfig()


def build_model(networks: Networks, config: BaselineConfig, key: jax.Array) -> UNetModel | DiTLinear:
    """The newly initialised model of a config.

    Args:
        networks: GenMask's networks of the same config.
        config: config of the run.
        key: PRNG key of the initialisation.
    """
    dtype, rngs = jnp.dtype(config.compute_dtype), nnx.Rngs(key)
    text_dim, instruction = networks.instruction.text_dim, networks.instruction.make(rngs, dtype)
    if config.baseline == "unet":
        return UNetModel(UNet(config.unet, text_dim, dtype=dtype, rngs=rngs), instruction)
    shape = dataclasses.replace(config.model, channels=networks.vae_config.channels, text_dim=text_dim)
    vae = VAE(networks.vae_config, dtype=dtype, rngs=rngs)
    return DiTLinear(DiT(shape, dtype=dtype, rngs=rngs), vae, instruction, rngs=rngs)


def make_baseline(genmask: Networks, config: BaselineConfig) -> Networks:
    """GenMask's networks with the baseline in place of GenMask.

    Raises:
        UserError: the config does not fit a baseline.
    """
    if config.baseline not in ("unet", "dit_linear"):
        raise UserError(f"config.baseline: {config.baseline!r} is not unet or dit_linear")
    if config.init or config.model.lora_rank:
        raise UserError("config.init: a baseline is trained from random weights; leave it empty")
    if generates(config.data):
        raise UserError("config.data.generate: a baseline cannot generate images; set it to none")
    multiple = config.unet.patch_size * 2 ** (len(config.unet.channels) - 1)
    if config.baseline == "unet" and config.data.size % multiple:
        raise UserError(f"config.data.size {config.data.size} is not a multiple of the U-Net's {multiple}")
    model = nnx.eval_shape(lambda: build_model(genmask, config, jax.random.key(0)))
    plan = make_plan(
        dict(flat_paths(nnx.state(model))),
        genmask.mesh,
        trained=(*model.trained, *genmask.instruction.trained),
        instruction=genmask.instruction.source,
        compute_dtypes=compute_dtypes(model),
        optimizer=config.optimizer.name,
        instruction_lr_scale=config.optimizer.instruction_lr_scale,
    )
    graphdef, shapes, frozen = nnx.split(model, plan.is_trained, ...)
    kept = nnx.State({name: genmask.frozen[name] for name in frozen})
    return dataclasses.replace(genmask, graphdef=graphdef, shapes=shapes, plan=plan, frozen=kept)


def count_parameters(shapes: Any) -> int:
    """The number of trained parameters, given `Networks.shapes`."""
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


class BaselineTask(GenMaskTask):
    """Binary cross-entropy of the mask, in place of flow matching."""

    def __init__(self, genmask: Networks, config: BaselineConfig):
        super().__init__(make_baseline(genmask, config), config)
        self.metric_names = ("loss", *NORMS)
        self.segmenter = Predictor(self.networks, config.sampler, batch_size=32)
        own, reference = count_parameters(self.networks.shapes), count_parameters(genmask.shapes)
        logging.info(
            "%s: %.3f million trained parameters; GenMask of this config has %.3f million",
            *(config.baseline, own / 1e6, reference / 1e6),
        )
        self.init_params = lambda key: self._split(build_model(genmask, config, key))

    def _split(self, model: nnx.Module) -> Any:
        return nnx.split(model, self.plan.is_trained, ...)[1]

    def loss(self, params: Any, frozen: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
        """The mean over all pixels of all masks."""
        del key
        segment = batch["segment"]
        model = nnx.merge(self.networks.graphdef, params, frozen)
        logits = model.logits(segment["images"], segment["instruction"])
        loss = optax.sigmoid_binary_cross_entropy(logits, segment["masks"].astype(jnp.float32)).mean()
        return loss, {"loss": loss}

    def flops(self, batch: Any) -> ModelFlops:
        """Model FLOPs of a training step, on all devices; the frozen VAE counts as trained."""
        params, frozen = self.networks.abstract_params(), self.networks.frozen
        with counting():
            gradient = jax.grad(self.loss, has_aux=True)
            total = count_flops(gradient, params, frozen, batch, jax.random.key(0))
        return ModelFlops(total, total)


class Predictor(MaskSampler):
    """A `MaskSampler` for a baseline: one pass, without noise."""

    def __init__(self, networks: Networks, sampler: SamplerConfig, *, batch_size: int, seed: int = 0):
        super().__init__(networks, sampler, batch_size=batch_size, seed=seed)
        self._encode = lambda params, frozen, images: images  # for `sample_phrases`
        self._sample = self._predict = shared_program(_predict, networks.graphdef, networks.plan)


def _predict(graphdef, plan, params, frozen, images, instruction, *noise):
    """Probabilities `[B, H, W]`; they do not depend on the noise."""
    del noise
    with tracing_context(plan):
        logits = nnx.merge(graphdef, params, frozen).logits(images, instruction)
        return constrain_batch(jax.nn.sigmoid(logits))


def load(workdir: epath.PathLike, step: str, mesh: Any) -> tuple[Networks, int]:
    """A trained baseline, with the EMA parameters of a checkpoint, and its step.

    Raises:
        UserError: there is no such checkpoint.
    """
    config = read_config(BaselineConfig, workdir)
    encoder = factory.build(config.instruction, epath.Path(workdir) / "instruction")
    networks = make_baseline(make_networks(config, *load_vae(workdir), encoder, mesh), config)
    number = find_step(workdir, step)
    networks.params = restore_ema(workdir, number, networks.abstract_params())
    return networks, number


class BaselineScoring(Scoring):
    """A `Scoring` of a trained baseline."""

    def open(self) -> tuple[Networks, MaskSampler, dict[str, Any]]:
        """See `Scoring.open`."""
        networks, step = load(self.checkpoint, self.step, make_mesh(MeshConfig(fsdp=self.fsdp)))
        predictor = Predictor(networks, self.sampler, batch_size=self.batch_size, seed=self.seed)
        return networks, predictor, self._record(step, predictor.sampler)
