"""The names of parameters in an NNX state."""

from typing import Any

import jax
from flax import nnx


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
