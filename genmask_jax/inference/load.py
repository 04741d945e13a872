"""Loads a trained run from its directory, for the scripts and for users of the library."""

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
    workdir: epath.PathLike, which: str = "last", mesh: Mesh | None = None
) -> tuple[Networks, TrainConfig, int]:
    """Returns the networks with the EMA parameters of one checkpoint, the run's config, and the step.

    Args:
        workdir: the --workdir of launch/train.py, or a packed model, or the name of one in the package.
        which: "last", "best" or a step. If the last is damaged, an earlier one is loaded, and that is logged.
        mesh: devices to load the networks on; JAX's default device if None.

    Raises:
        UserError: the directory holds no run, or the checkpoint is missing or belongs to another model.
    """
    if mesh is not None and not isinstance(mesh, Mesh):
        raise ArgumentError("mesh", f"={mesh!r} is not a jax.sharding.Mesh; leave it out for one device")
    workdir, steps = find(workdir, which)
    config = read_config(TrainConfig, workdir)
    encoder = factory.build(config.instruction, workdir / "instruction")
    sources = Sources(init=open_base(config, workdir), restored=True)
    networks = make_networks(config, *load_vae(workdir), encoder, mesh, sources)
    step, networks.params = _restore_newest(workdir, steps, networks.abstract_params())
    return networks, config, step


def find(name: epath.PathLike, which: str = "last") -> tuple[epath.Path, list[int]]:
    """The directory of a model, and the steps to read, the first that can be. For the rest see `load`."""
    directory = directory_of(name)
    if not (directory / "config.json").exists():
        raise ArgumentError("name", f"={name}: there is no trained model; give {describe_models()}")
    return directory, find_steps(directory, which)


def _restore_newest(workdir: epath.PathLike, steps: list[int], abstract: Any) -> tuple[int, Any]:
    """The first of the steps whose parameters can be read, and these."""
    *newer, oldest = steps
    for step in newer:
        try:
            return step, jax.block_until_ready(restore_ema(workdir, step, abstract))
        except DamagedError as error:
            logging.warning("%s. An earlier checkpoint is used", error)
    return oldest, jax.block_until_ready(restore_ema(workdir, oldest, abstract))
