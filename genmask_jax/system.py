"""GenMask: the DiT, the VAE and the instruction encoder as one model, split into trained and frozen parts."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from genmask_jax.config import ObjectiveConfig, TrainConfig
from genmask_jax.instruction.base import Embedded, Instruction, InstructionEncoder, Preparer
from genmask_jax.models.dit import DiT
from genmask_jax.models.layers import Linear
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.parameters.names import flat_paths, named_leaves, with_leaves
from genmask_jax.parameters.plan import ParameterPlan
from genmask_jax.parameters.rules import Sources, Targets, Weights, compute_dtypes, make_plan
from genmask_jax.sharding import one_device, placed
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.pixels import rgb_to_probability

GREY_LOGIT = 5.0
"""Logit of a pixel that the VAE decodes to white (grey level 1), if the loss is cross-entropy."""


class GenMask(nnx.Module):
    """The whole model. Latents are `[B, h, w, c]`, timesteps `[B]` (0 clean, 1 pure noise)."""

    def __init__(
        self,
        dit: DiT,
        vae: VAE,
        instruction: InstructionEncoder,
        objective: ObjectiveConfig,
        mask_readout: Linear | None,
    ):
        """`mask_readout`: channels of a latent to logits of its pixels, if the objective has one."""
        self.dit, self.vae, self.instruction = dit, vae, instruction
        self.objective, self.mask_readout = objective, mask_readout

    def velocity(
        self,
        x_t: Float[Array, "B h w c"],
        t: Float[Array, "B"],
        text: Embedded,
        image_latents: Float[Array, "B h w c"] | None = None,
    ) -> Float[Array, "B h w c"]:
        """Velocity of the noisy target. The clean image, if given, is frame 1 (see `ObjectiveConfig`)."""
        return self.velocities((x_t, t, text, image_latents))[0]

    def velocities(self, *inputs: tuple[Any, ...]) -> list[Float[Array, "B h w c"]]:
        """Like `velocity`, for several batches of different shapes: a tuple of its arguments for each."""
        velocities = self.dit.together(*(self._dit_inputs(*arguments) for arguments in inputs), frames=1)
        return [v[:, 0] for v in velocities]

    def _dit_inputs(
        self, x_t: Array, t: Array, text: Embedded, image_latents: Array | None
    ) -> tuple[Array, ...]:
        """The arguments of the DiT."""
        if image_latents is None or self.objective.clean_frame == "off":
            return x_t[:, None], t[:, None], *text
        frames = jnp.stack([x_t, image_latents], axis=1)
        if self.objective.clean_frame == "learned":
            return frames, t[:, None], *text
        return frames, jnp.stack([t, jnp.zeros_like(t)], axis=1), *text

    def mask_logits(self, x0: Float[Array, "B h w c"]) -> Float[Array, "B H W"]:
        """Logits of the pixels of masks, for losses of cross-entropy."""
        if self.mask_readout is None:
            return GREY_LOGIT * self.vae.decode(x0).mean(-1)
        batch, rows, columns, _ = x0.shape
        stride = self.vae.config.stride
        logits = self.mask_readout(x0).reshape(batch, rows, columns, stride, stride)
        return logits.swapaxes(2, 3).reshape(batch, rows * stride, columns * stride)

    def mask_probabilities(self, x0: Float[Array, "B h w c"]) -> Float[Array, "B H W"]:
        """Probabilities in [0, 1] of the pixels of masks, read as in training."""
        if self.objective.needs_masks:
            return jax.nn.sigmoid(self.mask_logits(x0))
        return rgb_to_probability(self.vae.decode(x0))


@dataclasses.dataclass
class Networks:
    """The model, split for jit: `graph` is static, the states are pytrees.

    graphdef: `nnx.merge(graphdef, params, frozen)` is the `GenMask`.
    params: trained parameters (DiT, instruction encoder); None until initialised or restored.
    frozen: frozen parameters (VAE, instruction encoder, base weights of the DiT's adapters).
    shapes: shapes and dtypes of `params`.
    plan: plan of all parameters.
    preparer: host side of the instruction encoder.
    size: side of the images, pixels.
    config, instruction, vae_config: config of the run, its instruction encoder, config of its VAE.
    init: weights of `config.init`, if the plan loads parameters from them.
    """

    graphdef: Any
    params: Any
    frozen: Any
    shapes: Any
    plan: ParameterPlan
    preparer: Preparer
    size: int
    config: TrainConfig
    instruction: Instruction
    vae_config: VAEConfig
    init: Weights | None = None

    @property
    def mesh(self) -> Mesh:
        """The mesh of the parameters and batches."""
        return self.plan.mesh

    def merge(self, params: Any, frozen: Any) -> GenMask:
        """The model, for use inside a traced function."""
        return nnx.merge(self.graphdef, params, frozen)

    def init_params(self, key: jax.Array) -> Any:
        """Newly initialised trained parameters. Call this under jit, which omits the frozen ones."""
        model = _build_model(self.config, self.vae_config, self.instruction, key)
        return nnx.split(model, self.plan.is_trained, ...)[1]

    def abstract_params(self) -> Any:
        """Shapes, dtypes and shardings of `params`."""
        return jax.tree.map(placed, self.shapes, self.plan.shardings(self.shapes))

    def load(self, state: Any) -> Any:
        """Loads the parameters that come from the instruction encoder's weights or from `config.init`.

        Args:
            state: trained or frozen parameters, as arrays or as shapes and shardings. Arrays are deleted
                before they are replaced, so that device memory never holds a large model twice.

        Returns:
            The state with the loaded parameters.
        """
        leaves, loaded = named_leaves(state), {}
        for origin, load in (("instruction", self._load_instruction), ("init", self._load_init)):
            names = [name for name in leaves if self.plan[name].origin == origin]
            targets = {name: placed(leaves[name], leaves[name].sharding) for name in names}
            for name in names:
                if isinstance(leaves[name], jax.Array):
                    leaves[name].delete()
            loaded |= load(targets) if targets else {}
        return with_leaves(state, loaded) if loaded else state

    def _load_instruction(self, targets: Targets) -> dict[str, jax.Array]:
        assert self.instruction.load is not None  # a parameter of the plan has this origin
        inner = {name.removeprefix("instruction."): target for name, target in targets.items()}
        return {f"instruction.{name}": array for name, array in self.instruction.load(inner).items()}

    def _load_init(self, targets: Targets) -> dict[str, jax.Array]:
        assert self.init is not None
        return self.init.restore(targets)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one image's latents."""
        side = self.size // self.vae_config.stride
        return side, side, self.vae_config.channels


def _build_model(
    config: TrainConfig, vae_config: VAEConfig, instruction: Instruction, key: jax.Array
) -> GenMask:
    dtype, rngs = jnp.dtype(config.compute_dtype), nnx.Rngs(key)
    objective, channels = config.objective, vae_config.channels
    model = dataclasses.replace(
        config.model,
        channels=channels,
        text_dim=instruction.text_dim,
        clean_embedding=objective.clean_frame == "learned",
    )
    dit, vae = DiT(model, dtype=dtype, rngs=rngs), VAE(vae_config, dtype=dtype, rngs=rngs)
    encoder = instruction.make(rngs, dtype)
    # Last, so that the other parameters start the same with every objective.
    readout = None
    if objective.has_linear_readout:
        readout = Linear(channels, vae_config.stride**2, dtype=jnp.float32, rngs=rngs)
    return GenMask(dit, vae, encoder, objective, readout)


def abstract_networks(
    config: TrainConfig,
    vae_config: VAEConfig,
    instruction: Instruction,
    mesh: Mesh | None = None,
    sources: Sources | None = None,
) -> Networks:
    """The model of a config, with shapes and shardings instead of frozen weights.

    Args:
        config: config of the run.
        vae_config: config of the VAE.
        instruction: the instruction encoder.
        mesh: mesh for the weights; this process's first device if None.
        sources: sources of the parameters, except those of the instruction encoder; defaults if None.

    Raises:
        UserError: the image size is not a multiple of the VAE's stride times the DiT's patch size, or
            `sources.init` belongs to another model.
    """
    multiple = vae_config.stride * config.model.patch_size
    if config.data.size % multiple:
        raise UserError(
            f"config.data.size {config.data.size} is not a multiple of VAE stride x patch size = {multiple}"
        )
    model = nnx.eval_shape(lambda: _build_model(config, vae_config, instruction, jax.random.key(0)))
    plan = make_plan(
        dict(flat_paths(nnx.state(model))),
        mesh or one_device(),
        trained=("dit", "mask_readout", *instruction.trained),
        sources=sources,
        instruction=instruction.source,
        compute_dtypes=compute_dtypes(model),
        optimizer=config.optimizer.name,
        instruction_lr_scale=config.optimizer.instruction_lr_scale,
    )
    graphdef, params, frozen = nnx.split(model, plan.is_trained, ...)
    return Networks(
        graphdef=graphdef,
        params=None,
        frozen=jax.tree.map(placed, frozen, plan.shardings(frozen)),
        shapes=params,
        plan=plan,
        preparer=instruction.preparer,
        size=config.data.size,
        config=config,
        instruction=instruction,
        vae_config=vae_config,
        init=sources.init if sources else None,
    )


def make_networks(
    config: TrainConfig,
    vae_config: VAEConfig,
    vae_state: Any,
    instruction: Instruction,
    mesh: Mesh | None = None,
    sources: Sources | None = None,
) -> Networks:
    """Like `abstract_networks`, with loaded frozen weights; the trained ones are None.

    Args:
        config, vae_config, instruction, mesh, sources: see `abstract_networks`.
        vae_state: weights of the VAE.

    Raises:
        UserError: see `abstract_networks`; or the weights of the instruction encoder are missing.
    """
    networks = abstract_networks(config, vae_config, instruction, mesh, sources)
    frozen = networks.frozen
    # Via the host: an array on one process's device cannot be sharded over those of other processes.
    vae = jax.device_get(vae_state)
    frozen["vae"] = jax.device_put(vae, jax.tree.map(lambda x: x.sharding, frozen["vae"]))
    networks.frozen = networks.load(frozen)
    return networks
