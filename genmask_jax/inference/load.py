"""Loads a trained run from its directory, for the scripts and for users of the library."""

import jax
from etils import epath
from jax.sharding import Mesh

from genmask_jax.config import TrainConfig
from genmask_jax.instruction import factory
from genmask_jax.runs import find_step, load_vae, read_config, restore_ema
from genmask_jax.system import Networks, make_networks


def load(
    workdir: epath.PathLike, which: str = "last", mesh: Mesh | None = None
) -> tuple[Networks, TrainConfig, int]:
    """Returns the networks with the EMA parameters of one checkpoint, the run's config, and the step.

    Args:
        workdir: the --workdir of launch/train.py.
        which: "last", "best" or a step.
        mesh: devices to load the networks on; this process's first device if None.

    Raises:
        UserError: the directory holds no run, or the checkpoint is missing or belongs to another model.
    """
    config = read_config(TrainConfig, workdir)
    step = find_step(workdir, which)
    encoder = factory.build(config.instruction, epath.Path(workdir) / "instruction")
    networks = make_networks(config, *load_vae(workdir), encoder, mesh)
    params = restore_ema(workdir, step, networks.abstract_params())
    networks.params = jax.block_until_ready(params)
    return networks, config, step
