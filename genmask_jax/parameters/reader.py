"""Reads Orbax checkpoints parameter by parameter, completely or in part, to any mesh."""

import contextlib
from typing import Any

import jax
import numpy as np
from etils import epath, epy

from genmask_jax.parameters.names import nested
from genmask_jax.utils.digests import check_digests
from genmask_jax.utils.errors import DamagedError, reading
from genmask_jax.utils.paths import need_storable, resolved

with epy.lazy_imports():  # half a second, which a packed model does not need
    import orbax.checkpoint as ocp


def restoring(path: epath.PathLike) -> contextlib.AbstractContextManager[None]:
    """A context that converts Orbax's errors to DamagedError; UserError if Orbax cannot use the path."""
    need_storable(path)
    return reading(f"{path}", "restore it from a copy, or use another")


class ParameterReader:
    """The parameters in an Orbax checkpoint of an NNX state, read or restored one by one.

    Args:
        path: path of the checkpoint.
        prefix: prefix of the parameters to read, such as "dit."; it is removed from their names.

    Raises:
        DamagedError: the checkpoint is missing, incomplete or damaged.
    """

    _checked = False

    def __init__(self, path: epath.Path, prefix: str = ""):
        self.path, self.prefix = resolved(path), prefix
        if not self.path.exists():
            raise DamagedError(f"{path}: no parameters here; recreate the directory")
        with restoring(path), ocp.StandardCheckpointer() as checkpointer:
            found = checkpointer.metadata(self.path).item_metadata
            if found is None:
                raise ValueError("it has no metadata")
        leaves = jax.tree.leaves_with_path(found.tree)
        names = ((jax.tree_util.keystr(keys, simple=True, separator="."), leaf) for keys, leaf in leaves)
        found = {name[len(prefix) : -len(".value")]: leaf for name, leaf in names if name.startswith(prefix)}
        self.shapes = {name: tuple(leaf.shape) for name, leaf in found.items()}
        self.dtypes = {name: np.dtype(leaf.dtype) for name, leaf in found.items()}

    def check(self) -> None:
        """Compares all files with their digests, once. Raises DamagedError if one has changed."""
        if not self._checked:
            check_digests(self.path)
        self._checked = True

    def read(self, name: str) -> np.ndarray:
        """One parameter, as a NumPy array in the stored dtype."""
        item = nested({self.prefix + name: 0})
        kind = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        return jax.tree.leaves(self._restore(item, kind))[0]

    def restore(self, targets: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """Parameters by name, in the dtypes and shardings of `targets`."""
        item = nested({self.prefix + name: target for name, target in targets.items()})
        restored = self._restore(item, ocp.checkpoint_utils.construct_restore_args(item))
        names = jax.tree.leaves(nested({self.prefix + name: name for name in targets}))
        return dict(zip(names, jax.tree.leaves(restored), strict=True))

    def _restore(self, item: Any, restore_args: Any) -> Any:
        self.check()
        arguments = ocp.args.PyTreeRestore(item=item, restore_args=restore_args, partial_restore=True)
        with restoring(self.path), ocp.PyTreeCheckpointer() as checkpointer:
            return checkpointer.restore(self.path, arguments)
