"""A trained run, read from its directory: what the scripts and users of the library start from."""

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
    """The networks with the EMA parameters of one checkpoint, the run's config, and the step.

    Args:
        workdir: of launch/train.py.
        which: "last", "best" or a step.
        mesh: where the networks are to live; this process's first device when None.

    Raises:
        UserError: the directory is no run, or the checkpoint is not there or of another model.
    """
    config = read_config(TrainConfig, workdir)
    step = find_step(workdir, which)
    encoder = factory.build(config.instruction, epath.Path(workdir) / "instruction")
    networks = make_networks(config, *load_vae(workdir), encoder, mesh)
    params = restore_ema(workdir, step, networks.abstract_params())
    networks.params = jax.block_until_ready(params)
    return networks, config, step
