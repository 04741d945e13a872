"""Imported DiT weights that a new run starts from (`config.init`)."""

from typing import Any

import jax
from etils import epath

from genmask_jax.errors import UserError
from genmask_jax.parameters.names import parameter_name
from genmask_jax.parameters.streaming import ParameterReader
from genmask_jax.runs import need_same
from genmask_jax.sharding import placed


def find_dit(directory: epath.PathLike) -> epath.Path:
    """Where a directory of imported weights has the DiT's. Raises UserError when it has none."""
    path = (epath.Path(directory) / "dit" / "params").resolve()
    if not path.exists():
        raise UserError(f"config.init={directory}: no dit/params here; make it with launch/import_weights.py")
    return path


def restore_dit(directory: epath.PathLike, params: Any) -> tuple[Any, list[str]]:
    """Parameters with those under "dit" from imported weights (`launch/import_weights.py`).

    Args:
        directory: holds dit/.
        params: fresh ones. The arrays that are replaced are deleted first: a large model is on its devices
            once.

    Returns:
        The parameters, in the dtypes and shardings that they had, and the names of the DiT's that are left
        fresh: the first projection of the text, where the instruction encoder's width is not the weights'.

    Raises:
        UserError: there are no such weights, or they are of another model.
    """
    path = find_dit(directory)
    reader = ParameterReader(path)
    flat = {parameter_name(keys): leaf for keys, leaf in jax.tree.leaves_with_path(params)}
    here = {name.removeprefix("dit."): leaf for name, leaf in flat.items() if name.startswith("dit.")}
    shapes = {name: tuple(leaf.shape) for name, leaf in here.items()}
    projection = [name for name in here if name.startswith("text_embedder.linear_1.")]
    fresh = projection if any(shapes[name] != reader.shapes.get(name) for name in projection) else []
    need_same(path, reader.shapes, shapes, fresh)
    targets = {name: placed(leaf, leaf.sharding) for name, leaf in here.items() if name not in fresh}
    for name in targets:
        here[name].delete()
    restored = {f"dit.{name}": leaf for name, leaf in reader.restore(targets).items()}
    return jax.tree.map_with_path(lambda keys, old: restored.get(parameter_name(keys), old), params), fresh
