"""GenMask: the DiT, the VAE and the instruction encoder under one roof, and which of them is trained."""

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
        """Velocity of the noisy target. The clean image, when given, is frame 1, with timestep 0."""
        return self.velocities((x_t, t, text, image_latents))[0]

    def velocities(self, *inputs: tuple[Any, ...]) -> list[Float[Array, "B h w c"]]:
        """As `velocity`, for batches of different shapes whose four arguments these are."""
        return [v[:, 0] for v in self.dit.together(*(_frames(*arguments) for arguments in inputs))]


def _frames(x_t: Array, t: Array, text: Embedded, image_latents: Array | None) -> tuple[Array, ...]:
    """What the DiT takes."""
    if image_latents is None:
        return x_t[:, None], t[:, None], *text
    return jnp.stack([x_t, image_latents], axis=1), jnp.stack([t, jnp.zeros_like(t)], axis=1), *text


@dataclasses.dataclass
class Networks:
    """The model taken apart for jit: `graph` is static, the states are pytrees.

    graph: merges with (params, frozen) to a `GenMask`.
    params: what is trained, the DiT and a trainable instruction encoder; None until initialised or restored.
    frozen: the VAE, and a frozen instruction encoder.
    preparer: the host side of the instruction encoder.
    size: side of the images, pixels.
    mesh: where all of it lives, and batches are divided over.
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
        """The model itself, inside a traced function."""
        return nnx.merge(self.graph, params, frozen)

    def init_params(self, key: jax.Array) -> Any:
        """Fresh parameters; to be traced under jit, where what is frozen costs nothing."""
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

    return nnx.split(model, trained, ...)


def abstract_networks(
    config: TrainConfig, vae_config: VAEConfig, instruction: Instruction, mesh: Mesh | None = None
) -> Networks:
    """The model that a config describes, with the shapes and shardings of the frozen weights in their place.

    Args:
        config: of the run.
        vae_config: of the VAE.
        instruction: the encoder.
        mesh: where the weights are to live; this process's first device when None.

    Raises:
        UserError: the image size does not fit the VAE's stride and the DiT's patches.
    """
    step = vae_config.stride * config.model.patch_size
    if config.data.size % step:
        raise UserError(
            f"config.data.size {config.data.size} is no multiple of VAE stride x patch size = {step}"
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
    """`abstract_networks` with the frozen weights in place, and no trained ones.

    Raises:
        UserError: as there, or the encoder's weights are not there.
    """
    networks = abstract_networks(config, vae_config, instruction, mesh)
    frozen = networks.frozen
    # Through the host: an array of one process's device cannot be spread over other processes'.
    vae = jax.device_get(vae_state)
    frozen["vae"] = jax.device_put(vae, jax.tree.map(lambda x: x.sharding, frozen["vae"]))
    if "instruction" in frozen:
        frozen["instruction"] = with_loaded(frozen["instruction"], instruction)
    return networks
