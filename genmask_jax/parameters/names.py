"""The names of parameters in an NNX state, and what they say of a parameter."""

from typing import Any

import jax
from flax import nnx

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


def is_block_kernel(name: str) -> bool:
    """Whether the parameter of this name is the kernels of stacked blocks, `[depth, input, output]`."""
    *modules, last = name.split(".")
    return last == KERNEL and not STACKS.isdisjoint(modules)


def flat_paths(state: Any) -> list[tuple[str, Any]]:
    """(path, variable) of every parameter in an NNX state, list indices included."""
    return [(".".join(map(str, path)), leaf) for path, leaf in nnx.to_flat_state(state)]


def parameter_name(keys: Any) -> str:
    """The name, as in `flat_paths`, of the leaf of an NNX state at this JAX key path."""
    return jax.tree_util.keystr(keys, simple=True, separator=".").removesuffix(".value")


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """{"a.b": x} -> {"a": {"b": {"value": x}}}, as Orbax stores an NNX state."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        node = tree
        for name in path.split("."):
            node = node.setdefault(name, {})
        node["value"] = leaf
    return tree
