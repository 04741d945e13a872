"""Loads a trained model from its directory."""

from typing import Any

import jax
from absl import logging
from etils import epath
from jax.sharding import Mesh

from genmask_jax.checkpoints.initial_weights import open_base
from genmask_jax.checkpoints.runs import find_steps, load_vae, read_config, restore_ema
from genmask_jax.config import TrainConfig
from genmask_jax.instruction import factory
from genmask_jax.parameters.rules import Sources
from genmask_jax.pretrained import describe_models, directory_of
from genmask_jax.system import Networks, make_networks
from genmask_jax.utils.errors import ArgumentError, DamagedError


def load(
    name: epath.PathLike, step: str = "last", mesh: Mesh | None = None
) -> tuple[Networks, TrainConfig, int]:
    """Returns the networks with the EMA parameters of a checkpoint, the run's config, and the step.

    Args:
        name: directory of a training run or of a packed model, or the name of a model in the package.
        step: "last", "best" or a number. If the last checkpoint is damaged, the newest intact one is loaded,
            and a warning is logged.
        mesh: devices to load the networks on; JAX's default device if None.

    Raises:
        UserError: there is no model, or the checkpoint is missing or belongs to another model.
    """
    if mesh is not None and not isinstance(mesh, Mesh):
        raise ArgumentError("mesh", f"={mesh!r} is not a jax.sharding.Mesh; leave it out for one device")
    workdir, steps = find_checkpoints(name, step)
    config = read_config(TrainConfig, workdir)
    encoder = factory.build(config.instruction, workdir / "instruction")
    sources = Sources(init=open_base(config, workdir), restored=True)
    networks = make_networks(config, *load_vae(workdir), encoder, mesh, sources)
    loaded_step, networks.params = _restore_newest(workdir, steps, networks.abstract_params())
    return networks, config, loaded_step


def find_checkpoints(name: epath.PathLike, step: str = "last") -> tuple[epath.Path, list[int]]:
    """Returns a model's directory, and the steps to try in order. For the arguments and errors see `load`."""
    directory = directory_of(name)
    if not (directory / "config.json").exists():
        raise ArgumentError("name", f"={name}: there is no trained model; give {describe_models()}")
    return directory, find_steps(directory, step)


def _restore_newest(workdir: epath.PathLike, steps: list[int], abstract: Any) -> tuple[int, Any]:
    """Returns the first of the steps whose parameters can be read, and the parameters."""
    *newer, oldest = steps
    for step in newer:
        try:
            return step, jax.block_until_ready(restore_ema(workdir, step, abstract))
        except DamagedError as error:
            logging.warning("%s. An earlier checkpoint is used", error)
    return oldest, jax.block_until_ready(restore_ema(workdir, oldest, abstract))
