"""Initialises the DiT of a new run from imported weights (`config.init`)."""

from typing import Any

import jax
from etils import epath

from genmask_jax.errors import UserError
from genmask_jax.parameters.names import parameter_name
from genmask_jax.parameters.streaming import ParameterReader
from genmask_jax.runs import need_same
from genmask_jax.sharding import placed


def restore_dit(directory: epath.PathLike, params: Any) -> tuple[Any, list[str]]:
    """Replaces the parameters under "dit" by imported weights (`launch/import_weights.py`).

    Args:
        directory: contains dit/.
        params: freshly initialised. Arrays are deleted before they are replaced, so that device memory never
            holds a large model twice.

    Returns:
        The parameters, with unchanged dtypes and shardings, and the names of DiT parameters that keep their
        random initialisation: the first text projection, if the instruction encoder's width differs from that
        of the weights.

    Raises:
        UserError: the weights are missing, or belong to another model.
    """
    reader, here, fresh = _open_dit(directory, params)
    targets = {name: placed(leaf, leaf.sharding) for name, leaf in here.items() if name not in fresh}
    for name in targets:
        here[name].delete()
    restored = {f"dit.{name}": leaf for name, leaf in reader.restore(targets).items()}
    return jax.tree.map_with_path(lambda keys, old: restored.get(parameter_name(keys), old), params), fresh


def check_dit(directory: epath.PathLike, params: Any) -> None:
    """Compares the shapes of imported weights with those of `params`; nothing is read.

    Raises:
        UserError: as `restore_dit`.
    """
    _open_dit(directory, params)


def _open_dit(directory: epath.PathLike, params: Any) -> tuple[ParameterReader, dict[str, Any], list[str]]:
    """A reader of the weights, the DiT's parameters by name, and the names of those that stay fresh."""
    path = (epath.Path(directory) / "dit" / "params").resolve()
    if not path.exists():
        raise UserError(f"config.init={directory}: no dit/params here; make it with launch/import_weights.py")
    reader = ParameterReader(path)
    flat = {parameter_name(keys): leaf for keys, leaf in jax.tree.leaves_with_path(params)}
    here = {name.removeprefix("dit."): leaf for name, leaf in flat.items() if name.startswith("dit.")}
    shapes = {name: tuple(leaf.shape) for name, leaf in here.items()}
    projection = [name for name in here if name.startswith("text_embedder.linear_1.")]
    fresh = projection if any(shapes[name] != reader.shapes.get(name) for name in projection) else []
    need_same(path, reader.shapes, shapes, fresh)
    return reader, here, fresh
