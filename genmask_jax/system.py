"""GenMask: the DiT, the VAE and the instruction encoder in one model, and which parameters are trained."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from genmask_jax.config import TrainConfig
from genmask_jax.errors import UserError
from genmask_jax.instruction.base import (
    Embedded,
    Instruction,
    InstructionEncoder,
    Preparer,
    Targets,
    with_loaded,
)
from genmask_jax.models.dit import DiT
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.parameters.names import flat_paths, parameter_name
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
        velocities = self.dit.together(*(_frames(*arguments) for arguments in inputs), frames=1)
        return [v[:, 0] for v in velocities]


def _frames(x_t: Array, t: Array, text: Embedded, image_latents: Array | None) -> tuple[Array, ...]:
    """The arguments of the DiT."""
    if image_latents is None:
        return x_t[:, None], t[:, None], *text
    return jnp.stack([x_t, image_latents], axis=1), jnp.stack([t, jnp.zeros_like(t)], axis=1), *text


Covered = Callable[[Mapping[str, tuple[int, ...]]], frozenset[str]]
"""Shapes of all parameters that can be trained, by name -> the names of those that stay as they are."""


@runtime_checkable
class Base(Protocol):
    """Weights that stay as they are beside the adapters that are trained (`initial_weights.Pretrained`)."""

    def covered(self, model: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
        """The names of the model's parameters that these weights hold, given all shapes by name."""
        ...

    def restore(self, targets: Targets) -> dict[str, jax.Array]:
        """Parameters by name, in the dtypes and shardings of `targets`."""
        ...


@dataclasses.dataclass
class Networks:
    """The model, split for jit: `graph` is static, the states are pytrees.

    graph: merges with (params, frozen) into a `GenMask`.
    params: trained parameters (DiT, instruction encoder); None until initialised or restored.
    frozen: frozen parameters (VAE, instruction encoder, the DiT's base beside adapters).
    shapes: of `params`.
    preparer: the host side of the instruction encoder.
    size: side of the images, in pixels.
    mesh: devices that hold the parameters and that batches are sharded over.
    base: names of the parameters that adapters leave as they are.
    """

    graph: Any
    params: Any
    frozen: Any
    shapes: Any
    preparer: Preparer
    size: int
    config: TrainConfig
    instruction: Instruction
    vae_config: VAEConfig
    mesh: Mesh
    base: frozenset[str] = frozenset()

    def merge(self, params: Any, frozen: Any) -> GenMask:
        """The model itself, for use inside a traced function."""
        return nnx.merge(self.graph, params, frozen)

    def init_params(self, key: jax.Array) -> Any:
        """Newly initialised trained parameters. Call this under jit, where the frozen ones cost nothing."""
        model = _make(self.config, self.vae_config, self.instruction, key)
        return _split(model, self.instruction, self.base)[1]

    def abstract_params(self) -> Any:
        """Shapes, dtypes and shardings of `params`."""
        return jax.tree.map(placed, self.shapes, state_shardings(self.shapes, self.mesh))

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


def _split(
    model: GenMask, instruction: Instruction, base: frozenset[str] = frozenset()
) -> tuple[Any, Any, Any]:
    def trained(path: Any, _: Any) -> bool:
        part, *rest = map(str, path)
        if ".".join((part, *rest)) in base:
            return False
        return part == "dit" or (part == "instruction" and instruction.trained(".".join(rest)))

    graph, params, frozen = nnx.split(model, trained, ...)
    return graph, params, frozen


def abstract_networks(
    config: TrainConfig,
    vae_config: VAEConfig,
    instruction: Instruction,
    mesh: Mesh | None = None,
    covered: Covered | None = None,
) -> Networks:
    """The model that a config describes, with only shapes and shardings for the frozen weights.

    Args:
        config: the run's.
        vae_config: the VAE's.
        instruction: the instruction encoder.
        mesh: devices that will hold the weights; this process's first device if None.
        covered: which parameters adapters leave as they are (`Base.covered`); None without adapters.

    Raises:
        UserError: the image size is not a multiple of the VAE's stride times the DiT's patch size, or the
            weights under the adapters are of another model.
    """
    step = vae_config.stride * config.model.patch_size
    if config.data.size % step:
        raise UserError(
            f"config.data.size {config.data.size} is not a multiple of VAE stride x patch size = {step}"
        )
    model = nnx.eval_shape(lambda: _make(config, vae_config, instruction, jax.random.key(0)))
    _, params, _ = _split(model, instruction)
    shapes = {name: tuple(leaf.shape) for name, leaf in flat_paths(params)}
    kept = covered(shapes) if covered else frozenset()
    graph, params, frozen = _split(model, instruction, kept)
    mesh = mesh or one_device()
    frozen = jax.tree.map(placed, frozen, state_shardings(frozen, mesh))
    size, preparer = config.data.size, instruction.preparer
    return Networks(graph, None, frozen, params, preparer, size, config, instruction, vae_config, mesh, kept)


def make_networks(
    config: TrainConfig,
    vae_config: VAEConfig,
    vae_state: Any,
    instruction: Instruction,
    mesh: Mesh | None = None,
    base: Base | None = None,
) -> Networks:
    """`abstract_networks` with the frozen weights loaded, and without trained ones.

    Args:
        config, vae_config, instruction, mesh: see `abstract_networks`.
        vae_state: the VAE's weights.
        base: the weights beside which adapters are trained; None without adapters.

    Raises:
        UserError: as in `abstract_networks`, or the encoder's weights are missing.
    """
    networks = abstract_networks(config, vae_config, instruction, mesh, base.covered if base else None)
    frozen = networks.frozen
    # Via the host: an array on one process's device cannot be sharded over those of other processes.
    vae = jax.device_get(vae_state)
    frozen["vae"] = jax.device_put(vae, jax.tree.map(lambda x: x.sharding, frozen["vae"]))
    if "instruction" in frozen:
        frozen["instruction"] = with_loaded(frozen["instruction"], instruction)
    if base:
        networks.frozen = _with_base(frozen, networks.base, base)
    return networks


def _with_base(frozen: Any, names: frozenset[str], base: Base) -> Any:
    """Fills the base's weights into the frozen parameters, or their shapes."""
    leaves = {parameter_name(keys): leaf for keys, leaf in jax.tree.leaves_with_path(frozen)}
    loaded = base.restore({name: placed(leaves[name], leaves[name].sharding) for name in names})
    return jax.tree.map_with_path(lambda keys, leaf: loaded.get(parameter_name(keys), leaf), frozen)
