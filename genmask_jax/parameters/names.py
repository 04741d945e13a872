"""Names of parameters in an NNX state, and the properties that follow from a name."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from genmask_jax.utils.errors import UserError

Shape = tuple[int, ...]

KERNEL, ADAPTERS = "kernel", ("lora_a", "lora_b")
"""Last parts of the names of matrices: those of layers (and convolutions), and those of adapters."""
STACKS = frozenset({"blocks", "top_blocks"})
"""Modules of stacked transformer blocks, whose parameters have a leading axis `[depth, ...]`."""


def is_matrix(name: str) -> bool:
    """Whether the parameter of this name is a factor of matrix products or convolutions.

    Everything else is a bias, a norm's scale, a table of modulations or gates, or an embedding. The number of
    axes does not decide: the biases of stacked blocks have two.
    """
    return name.rpartition(".")[2] in (KERNEL, *ADAPTERS)


def is_adapter(name: str) -> bool:
    """Whether the parameter of this name is a factor of a low-rank adapter."""
    return name.rpartition(".")[2] in ADAPTERS


def is_dit_adapter(name: str) -> bool:
    """Whether the parameter of this name belongs to an adapter of the DiT (`config.model.lora_rank`)."""
    return name.startswith("dit.") and is_adapter(name)


def adapters_of(name: str) -> tuple[str, str]:
    """The names of the two factors of a matrix's adapter (which it may not have)."""
    layer = name.removesuffix(f".{KERNEL}")
    return f"{layer}.lora.{ADAPTERS[0]}", f"{layer}.lora.{ADAPTERS[1]}"


def name_in_layer(name: str) -> str | None:
    """The name of a parameter of stacked blocks inside one block; None for other parameters."""
    modules = name.split(".")
    stack = next((i for i, module in enumerate(modules) if module in STACKS), None)
    return None if stack is None else ".".join(modules[stack + 1 :])


def is_block_kernel(name: str) -> bool:
    """Whether the parameter of this name holds kernels of stacked blocks, `[depth, input, output]`."""
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
    """Shapes of the leaves of a state, by name."""
    return {name: tuple(leaf.shape) for name, leaf in named_leaves(tree).items()}


def need_same_shapes(path: Any, saved: Mapping[str, Shape], model: Mapping[str, Shape]) -> None:
    """Raises UserError, which names `path`, if the shapes of a checkpoint (`saved`) and the model differ."""
    for name in sorted(model.keys() | saved.keys()):
        old, new = saved.get(name, "absent"), model.get(name, "absent")
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
