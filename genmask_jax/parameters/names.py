"""The names of parameters in an NNX state, and what they say of a parameter."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from genmask_jax.utils.errors import UserError

Shape = tuple[int, ...]

KERNEL, ADAPTERS = "kernel", ("lora_a", "lora_b")
"""Last parts of the names of matrices: a layer's own (a convolution's too), and those of its adapter."""
STACKS = frozenset({"blocks", "top_blocks"})
"""Modules that are stacked transformer blocks: their parameters have a first axis more, `[depth, ...]`."""


def is_matrix(name: str) -> bool:
    """Whether the parameter of this name is a factor of matrix products or convolutions.

    Everything else is a bias, a norm's scale, a table of modulations or gates, or an embedding. The number of
    axes does not tell: the biases of stacked blocks have two.
    """
    return name.rpartition(".")[2] in (KERNEL, *ADAPTERS)


def is_adapter(name: str) -> bool:
    """Whether the parameter of this name is a factor of a low-rank adapter."""
    return name.rpartition(".")[2] in ADAPTERS


def is_dit_adapter(name: str) -> bool:
    """Whether it is one of the DiT's adapters (`config.model.lora_rank`), not of the encoder's."""
    return name.startswith("dit.") and is_adapter(name)


def adapters_of(name: str) -> tuple[str, str]:
    """The names that the two factors of a matrix's adapter have, if it has one."""
    layer = name.removesuffix(f".{KERNEL}")
    return f"{layer}.lora.{ADAPTERS[0]}", f"{layer}.lora.{ADAPTERS[1]}"


def name_in_layer(name: str) -> str | None:
    """The name that a parameter of stacked blocks has in one of the blocks; None for all others."""
    modules = name.split(".")
    stack = next((i for i, module in enumerate(modules) if module in STACKS), None)
    return None if stack is None else ".".join(modules[stack + 1 :])


def is_block_kernel(name: str) -> bool:
    """Whether the parameter of this name is the kernels of stacked blocks, `[depth, input, output]`."""
    return name_in_layer(name) is not None and name.rpartition(".")[2] == KERNEL


def flat_paths(state: Any) -> list[tuple[str, Any]]:
    """(path, variable) of every parameter in an NNX state, list indices included."""
    return [(".".join(map(str, path)), leaf) for path, leaf in nnx.to_flat_state(state)]


def parameter_name(keys: Any) -> str:
    """The name, as in `flat_paths`, of the leaf of an NNX state at this JAX key path."""
    return jax.tree_util.keystr(keys, simple=True, separator=".").removesuffix(".value")


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a state, by name."""
    return {parameter_name(keys): leaf for keys, leaf in jax.tree.leaves_with_path(tree)}


def with_leaves(tree: Any, leaves: Mapping[str, Any]) -> Any:
    """A state in which the leaves of these names are replaced."""
    return jax.tree.map_with_path(lambda keys, leaf: leaves.get(parameter_name(keys), leaf), tree)


def shapes_of(tree: Any) -> dict[str, Shape]:
    """Shapes of parameters (or of what has their shapes), by name."""
    return {name: tuple(leaf.shape) for name, leaf in named_leaves(tree).items()}


def need_same_shapes(path: Any, there: Mapping[str, Shape], here: Mapping[str, Shape]) -> None:
    """Compares a checkpoint, whose path the error names, with the model. Raises UserError if they differ."""
    for name in sorted(here.keys() | there.keys()):
        old, new = there.get(name, "absent"), here.get(name, "absent")
        if old != new:
            raise UserError(f"{path}: this checkpoint is of another model: {name} is {old}, not {new}")


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """{"a.b": x} -> {"a": {"b": {"value": x}}}, as Orbax stores an NNX state."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        node = tree
        for name in path.split("."):
            node = node.setdefault(name, {})
        node["value"] = leaf
    return tree
