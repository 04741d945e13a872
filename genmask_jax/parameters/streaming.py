"""Writes Orbax checkpoints layer by layer.

A stacked parameter of a large model (40 layers' matrices) may be larger than the memory of the machine that
imports it. `Streamed` replaces it in the tree to save: Orbax creates the array on disk, and its layers are
written one by one. The result is an ordinary Orbax checkpoint, which can be restored to any mesh.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath
from orbax.checkpoint import future

from genmask_jax.utils.digests import write_digests
from genmask_jax.utils.paths import writing

CHUNK_BYTES = 32 * 2**20
"""Largest chunk on disk. A reader fetches whole chunks, so they are small enough for the shards of a mesh."""


class Streamed:
    """An array given by its slices.

    Args:
        shape, dtype: shape and dtype of the whole array.
        read: i -> slice i along the first axis if `stacked`, else (with i = 0) the whole array.
        stacked: whether the array is read slice by slice.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, read: Callable[[int], np.ndarray], stacked: bool):
        self.shape, self.dtype, self.read, self.stacked = tuple(shape), np.dtype(dtype), read, stacked
        self.ndim, self.size = len(self.shape), math.prod(self.shape)
        self.nbytes = self.size * self.dtype.itemsize

    @property
    def by_layer(self) -> bool:
        """Whether the array is written layer by layer, because it is large."""
        return self.stacked and self.nbytes > CHUNK_BYTES

    @property
    def save_args(self) -> ocp.SaveArgs:
        """Chunks that do not span layers, if layers are written one by one."""
        if not self.by_layer:
            return ocp.SaveArgs()
        return ocp.SaveArgs(chunk_byte_size=min(self.nbytes // self.shape[0], CHUNK_BYTES), shard_axes=(0,))

    def whole(self) -> np.ndarray:
        """The whole array, in memory."""
        return np.stack([self.read(i) for i in range(self.shape[0])]) if self.stacked else self.read(0)


class _StreamedHandler(ocp.type_handlers.NumpyHandler):
    """Writes one slice at a time, across all arrays; the handler that it extends writes whole arrays."""

    def __init__(self, progress: Callable[[int], object]):
        super().__init__()
        self._progress = progress

    async def serialize(
        self,
        values: Sequence[Streamed],
        infos: Sequence[ocp.type_handlers.ParamInfo],
        args: Sequence[ocp.SaveArgs] | None = None,
    ) -> Sequence[future.Future]:
        writing = self._write(list(zip(values, infos, args or [None] * len(values), strict=True)))
        return [future.CommitFutureAwaitingContractedSignals(writing, name="streamed")]

    async def _write(
        self, leaves: list[tuple[Streamed, ocp.type_handlers.ParamInfo, ocp.SaveArgs | None]]
    ) -> None:
        for value, info, arg in leaves:
            spec = ocp.type_handlers.get_json_tspec_write(
                info,
                use_ocdbt=bool(info.is_ocdbt_checkpoint),
                global_shape=value.shape,
                local_shape=value.shape,
                dtype=value.dtype,
                process_index=ocp.multihost.process_index(),
                arg=arg,
            )
            options = {"dtype": value.dtype, "context": info.ts_context}
            array = await ts.open(ts.Spec(spec), create=True, open=True, **options)
            for i in range(value.shape[0] if value.by_layer else 1):
                part = value.read(i) if value.by_layer else value.whole()
                await (array[i] if value.by_layer else array).write(part)
                self._progress(part.nbytes)


def save_streamed(path: epath.Path, tree: Any, progress: Callable[[int], object]) -> None:
    """Saves a tree of `Streamed` leaves; `progress` receives the bytes of each slice written."""
    registry = ocp.type_handlers.create_type_handler_registry((Streamed, _StreamedHandler(progress)))
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
    arguments = ocp.args.PyTreeSave(tree, save_args=jax.tree.map(lambda leaf: leaf.save_args, tree))
    with writing(path), ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(path, args=arguments, force=True)
    write_digests(path)
