"""Plans of parameters that no model has."""

from genmask_jax.parameters.names import named_leaves
from genmask_jax.parameters.rules import make_plan
from genmask_jax.sharding import one_device


def plan_of(params, config, mesh=None):
    """Of trained parameters in a tree such as {"dit": ..., "instruction": ...}; `config`: the optimiser's."""
    return make_plan(
        named_leaves(params),
        mesh or one_device(),
        trained=("dit", "instruction"),
        optimizer=config.name,
        instruction_lr_scale=config.instruction_lr_scale,
    )
