"""GenMask: the DiT, the VAE and the instruction encoder in one model, and which parameters are trained."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from genmask_jax.config import TrainConfig
from genmask_jax.errors import UserError
from genmask_jax.instruction.base import Embedded, Instruction, InstructionEncoder, Preparer, with_loaded
from genmask_jax.models.dit import DiT
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.sharding import one_device, placed, state_shardings


class GenMask(nnx.Module):
    """The whole model. Latents are `[B, h, w, c]`, timesteps `[B]` (0 clean, 1 pure noise)."""

    def __init__(self, dit: DiT, vae: VAE, instruction: InstructionEncoder):
        self.dit, self.vae, self.instruction = dit, vae, instruction

    def velocity(
        self,
        x_t: Float[Array, "B h w c"],
        t: Float[Array, "B"],
        text: Embedded,
        image_latents: Float[Array, "B h w c"] | None = None,
    ) -> Float[Array, "B h w c"]:
        """Velocity of the noisy target. If given, the clean image is frame 1, with timestep 0."""
        return self.velocities((x_t, t, text, image_latents))[0]

    def velocities(self, *inputs: tuple[Any, ...]) -> list[Float[Array, "B h w c"]]:
        """Like `velocity`, for batches of different shapes: one tuple of the four arguments each."""
        return [v[:, 0] for v in self.dit.together(*(_frames(*arguments) for arguments in inputs))]


def _frames(x_t: Array, t: Array, text: Embedded, image_latents: Array | None) -> tuple[Array, ...]:
    """The arguments of the DiT."""
    if image_latents is None:
        return x_t[:, None], t[:, None], *text
    return jnp.stack([x_t, image_latents], axis=1), jnp.stack([t, jnp.zeros_like(t)], axis=1), *text


@dataclasses.dataclass
class Networks:
    """The model, split for jit: `graph` is static, the states are pytrees.

    graph: merges with (params, frozen) into a `GenMask`.
    params: trained parameters (DiT, instruction encoder); None until initialised or restored.
    frozen: frozen parameters (VAE, instruction encoder).
    preparer: the host side of the instruction encoder.
    size: side of the images, in pixels.
    mesh: devices that hold the parameters and that batches are sharded over.
    """

    graph: Any
    params: Any
    frozen: Any
    preparer: Preparer
    size: int
    config: TrainConfig
    instruction: Instruction
    vae_config: VAEConfig
    mesh: Mesh

    def merge(self, params: Any, frozen: Any) -> GenMask:
        """The model itself, for use inside a traced function."""
        return nnx.merge(self.graph, params, frozen)

    def init_params(self, key: jax.Array) -> Any:
        """Newly initialised trained parameters. Call this under jit, where the frozen ones cost nothing."""
        return _split(_make(self.config, self.vae_config, self.instruction, key), self.instruction)[1]

    def abstract_params(self) -> Any:
        """Shapes, dtypes and shardings of `params`."""
        shapes = jax.eval_shape(self.init_params, jax.random.key(0))
        return jax.tree.map(placed, shapes, state_shardings(shapes, self.mesh))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one image's latents."""
        side = self.size // self.vae_config.stride
        return side, side, self.vae_config.channels


def _make(config: TrainConfig, vae_config: VAEConfig, instruction: Instruction, key: jax.Array) -> GenMask:
    dtype, rngs = jnp.dtype(config.compute_dtype), nnx.Rngs(key)
    model = dataclasses.replace(config.model, channels=vae_config.channels, text_dim=instruction.text_dim)
    return GenMask(
        dit=DiT(model, dtype=dtype, rngs=rngs),
        vae=VAE(vae_config, dtype=dtype, rngs=rngs),
        instruction=instruction.make(rngs, dtype),
    )


def _split(model: GenMask, instruction: Instruction) -> tuple[Any, Any, Any]:
    def trained(path: Any, _: Any) -> bool:
        part, *rest = map(str, path)
        return part == "dit" or (part == "instruction" and instruction.trained(".".join(rest)))

    graph, params, frozen = nnx.split(model, trained, ...)
    return graph, params, frozen


def abstract_networks(
    config: TrainConfig, vae_config: VAEConfig, instruction: Instruction, mesh: Mesh | None = None
) -> Networks:
    """The model that a config describes, with only shapes and shardings for the frozen weights.

    Args:
        config: the run's.
        vae_config: the VAE's.
        instruction: the instruction encoder.
        mesh: devices that will hold the weights; this process's first device if None.

    Raises:
        UserError: the image size is not a multiple of the VAE's stride times the DiT's patch size.
    """
    step = vae_config.stride * config.model.patch_size
    if config.data.size % step:
        raise UserError(
            f"config.data.size {config.data.size} is not a multiple of VAE stride x patch size = {step}"
        )
    graph, _, frozen = nnx.eval_shape(
        lambda: _split(_make(config, vae_config, instruction, jax.random.key(0)), instruction)
    )
    mesh = mesh or one_device()
    frozen = jax.tree.map(placed, frozen, state_shardings(frozen, mesh))
    return Networks(
        graph, None, frozen, instruction.preparer, config.data.size, config, instruction, vae_config, mesh
    )


def make_networks(
    config: TrainConfig,
    vae_config: VAEConfig,
    vae_state: Any,
    instruction: Instruction,
    mesh: Mesh | None = None,
) -> Networks:
    """`abstract_networks` with the frozen weights loaded, and without trained ones.

    Raises:
        UserError: as in `abstract_networks`, or the encoder's weights are missing.
    """
    networks = abstract_networks(config, vae_config, instruction, mesh)
    frozen = networks.frozen
    # Via the host: an array on one process's device cannot be sharded over those of other processes.
    vae = jax.device_get(vae_state)
    frozen["vae"] = jax.device_put(vae, jax.tree.map(lambda x: x.sharding, frozen["vae"]))
    if "instruction" in frozen:
        frozen["instruction"] = with_loaded(frozen["instruction"], instruction)
    return networks
