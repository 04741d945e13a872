"""Where arrays live: the mesh, and the rule that gives every parameter and batch its sharding.

Mesh axes: `data` (replicas), `fsdp` (parameters and batch divided) and `tensor` (matrices divided by
output or input features). Parameters, their EMA and the optimiser's moments follow one rule.
"""

import contextlib
import contextvars
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from genmask_jax.errors import UserError
from genmask_jax.weights.layout import parameter_name

FSDP_MIN_BYTES = 4 * 2**20
"""Smaller parameters are replicated: gathering them costs more than they take."""

COLUMN_PARALLEL = re.compile(
    r"\.(to_q|to_k|to_v|ffn\.linear_1|q_proj|k_proj|v_proj|gate_proj|up_proj)\.kernel$"
)
ROW_PARALLEL = re.compile(r"\.(to_out|ffn\.linear_2|o_proj|down_proj)\.kernel$")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; -1 for data means all that the other axes leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over all devices or those given. Raises UserError when the axes do not make their number."""
    devices = jax.devices() if devices is None else devices
    count, inner = len(devices), config.fsdp * config.tensor
    data = count // inner if config.data == -1 else config.data
    if data * inner != count:
        raise UserError(
            f"mesh: data {data} x fsdp {config.fsdp} x tensor {config.tensor} is not the {count} devices here"
        )
    shape, names = (data, config.fsdp, config.tensor), ("data", "fsdp", "tensor")
    return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * 3, devices=devices)


def parameter_spec(path: str, shape: tuple[int, ...], itemsize: int, mesh: Mesh) -> P:
    """How one parameter is divided: tensor axis by name, then fsdp over the largest dimension it divides."""
    axes: list[str | None] = [None] * len(shape)
    tensor, fsdp = mesh.shape["tensor"], mesh.shape["fsdp"]
    if tensor > 1:
        if COLUMN_PARALLEL.search(path) and shape[-1] % tensor == 0:
            axes[-1] = "tensor"
        elif ROW_PARALLEL.search(path) and shape[-2] % tensor == 0:
            axes[-2] = "tensor"
    if fsdp > 1 and math.prod(shape) * itemsize >= FSDP_MIN_BYTES:
        for i in sorted(range(len(shape)), key=lambda i: -shape[i]):
            if axes[i] is None and shape[i] % fsdp == 0:
                axes[i] = "fsdp"
                break
    return P(*axes)


def state_shardings(tree: Any, mesh: Mesh) -> Any:
    """A NamedSharding for every leaf of a train state (or its shapes); what is divided is logged."""

    def leaf(path, x):
        name = parameter_name(path)  # the optimiser's moments carry the parameter's
        spec = parameter_spec(name, x.shape, x.dtype.itemsize, mesh)
        if any(spec):
            logging.info("sharding: %s %s %s", name, x.shape, spec)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(leaf, tree)


_tracing_on: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("mesh", default=None)


@contextlib.contextmanager
def tracing_on(mesh: Mesh) -> Iterator[None]:
    """Inside, `constrain_layer` knows the mesh of the program that is being traced."""
    token = _tracing_on.set(mesh)
    try:
        yield
    finally:
        _tracing_on.reset(token)


def constrain_layer(layer: Any, stacked: Any) -> Any:
    """Says of one layer's parameters, and so of their gradients, that they are divided as all layers' are.

    Left to itself, the compiler may sum the gradient of a layer inside a loop whole on every device.

    Args:
        layer: a state, its parameters without the axis of layers.
        stacked: the state of all layers.
    """
    mesh = _tracing_on.get()
    if mesh is None:
        return layer

    def constrain(path: Any, x: jax.Array, all_layers: jax.Array) -> jax.Array:
        spec = parameter_spec(f".{parameter_name(path)}", all_layers.shape, all_layers.dtype.itemsize, mesh)
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(*spec[1:])))

    return jax.tree.map_with_path(constrain, layer, stacked)


def constrain_batch(x: jax.Array) -> jax.Array:
    """Says that an array is divided by examples, its first axis, however the weights are that it has met.

    Left alone where the examples do not divide over the devices.
    """
    mesh = _tracing_on.get()
    if mesh is None or x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return x
    return jax.lax.with_sharding_constraint(x, batch_sharding(mesh))


def placed(x: Any, sharding: Sharding) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array that is to live there."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are divided over data and fsdp along their first axis."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def local_batch_sharding() -> tuple[NamedSharding, NamedSharding]:
    """For work that each host does alone: batches divided over its own devices, and one copy on each."""
    mesh = Mesh(np.array(jax.local_devices()), ("data",))
    return NamedSharding(mesh, P("data")), NamedSharding(mesh, P())


def to_devices(batch: Any, mesh: Mesh) -> Any:
    """This host's part of a batch of NumPy arrays, as global arrays: the one way that data enters."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)
