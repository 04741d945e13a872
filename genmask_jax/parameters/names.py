"""The names of parameters in an NNX state."""

from typing import Any

import jax
from flax import nnx


def flat_paths(state: Any) -> list[tuple[str, Any]]:
    """(path, variable) of every parameter in an NNX state, numbers of lists included."""
    return [(".".join(map(str, path)), leaf) for path, leaf in nnx.to_flat_state(state)]


def parameter_name(keys: Any) -> str:
    """The name, as `flat_paths` has it, of a leaf of an NNX state that JAX gives this path."""
    return jax.tree_util.keystr(keys, simple=True, separator=".").removesuffix(".value")
