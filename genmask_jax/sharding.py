"""The device mesh, how batches are sharded over it, and what a traced program is told of both.

Mesh axes: `data` (replicas), `fsdp` (parameters and batch are sharded) and `tensor` (matrices are sharded by
output or input features). The plan says how each parameter is sharded (`parameters/plan.py`).
"""

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from genmask_jax.parameters.names import parameter_name
from genmask_jax.parameters.plan import ParameterPlan
from genmask_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; data = -1 uses all devices that the other axes leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over the given devices, or over all.

    `data` is the outermost axis: parameters are sharded over neighbours (fsdp within a node, a slice or an
    axis of a torus) and replicated across the rest, and only gradients travel between slices.

    Raises:
        UserError: the axes do not multiply to the device count, or data is not a multiple of the slices.
    """
    devices = jax.devices() if devices is None else devices
    count, inner = len(devices), config.fsdp * config.tensor
    data = count // inner if config.data == -1 else config.data
    if data * inner != count:
        raise UserError(
            f"mesh: data {data} x fsdp {config.fsdp} x tensor {config.tensor} does not match the {count} "
            "devices here"
        )
    shape, names = (data, config.fsdp, config.tensor), ("data", "fsdp", "tensor")
    # Other platforms number nodes this way; parameters may be sharded across nodes.
    tpu = devices[0].platform == "tpu"
    slices = len({getattr(device, "slice_index", 0) for device in devices}) if tpu else 1
    if data % slices:
        raise UserError(f"config.mesh.data {data} is not a multiple of the {slices} slices")
    split = {"allow_split_physical_axes": True}  # for example fsdp 32 on a 16 x 16 torus
    if slices == 1:
        grid = mesh_utils.create_device_mesh(shape, devices, **split)
    else:
        inside, between = (data // slices, *shape[1:]), (slices, 1, 1)
        grid = mesh_utils.create_hybrid_device_mesh(inside, between, devices, **split)
    return Mesh(grid, names, axis_types=(AxisType.Auto,) * 3)


_tracing_on: contextvars.ContextVar[ParameterPlan | None] = contextvars.ContextVar("plan", default=None)
_counting: contextvars.ContextVar[bool] = contextvars.ContextVar("counting", default=False)


@contextlib.contextmanager
def tracing_on(plan: ParameterPlan) -> Iterator[None]:
    """Sets the plan, and the mesh, of the program that is traced: for layers, batches and attention."""
    token = _tracing_on.set(plan)
    try:
        yield
    finally:
        _tracing_on.reset(token)


def _mesh() -> Mesh | None:
    """The mesh of the program that is traced, if it was set."""
    plan = _tracing_on.get()
    return plan.mesh if plan else None


def bytes_per_device(arrays: Any) -> int:
    """How much memory a tree of arrays takes on one device."""
    leaves = jax.tree.leaves(arrays)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def constrain_parameters(tree: Any) -> Any:
    """Shards a tree with the names and shapes of parameters as these are, for example their gradients."""
    plan = _tracing_on.get()
    if plan is None or plan.mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, plan.shardings(tree))


@contextlib.contextmanager
def counting() -> Iterator[None]:
    """For tracing a program to count its model FLOPs (`hardware.flops.ModelFlops`).

    Attention is matrix products, on every platform, and the backward pass recomputes nothing.
    """
    token = _counting.set(True)
    try:
        yield
    finally:
        _counting.reset(token)


def is_counting() -> bool:
    """Whether the program is traced within `counting`."""
    return _counting.get()


def gather_layer(layer: Any, stacked: Any) -> Any:
    """All-gathers one layer's parameters over fsdp before the layer is computed; tensor stays sharded.

    Matrices travel in the dtype in which they are multiplied. Gradients travel in the parameters' dtype, back
    to the devices that hold them. Without these constraints, the compiler may shard activations by channels
    where a weight is sharded that way, or sum a layer's whole gradient on every device.

    Args:
        layer: the state of one layer, without the layer axis.
        stacked: the state of all layers.
    """
    plan = _tracing_on.get()
    if plan is None or plan.mesh.size == 1:
        return layer

    def gather(path: Any, x: jax.Array, all_layers: jax.Array) -> jax.Array:
        one = plan.of_layers(parameter_name(path), all_layers.shape)
        spec = one.spec[1:]
        whole = P(*(axis if axis == "tensor" else None for axis in spec))
        shardings = NamedSharding(plan.mesh, P(*spec)), NamedSharding(plan.mesh, whole)
        return _gather(x, *shardings, one.compute_dtype)

    return jax.tree.map_with_path(gather, layer, stacked)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gather(x: jax.Array, sharded: NamedSharding, whole: NamedSharding, dtype: Any) -> jax.Array:
    x = jax.lax.with_sharding_constraint(x.astype(dtype), sharded)
    return jax.lax.with_sharding_constraint(x, whole)


def _gather_forward(x, sharded, whole, dtype):
    return _gather(x, sharded, whole, dtype), jnp.zeros((), x.dtype)


def _gather_backward(sharded, whole, dtype, like, gradient):
    return (jax.lax.with_sharding_constraint(gradient.astype(like.dtype), sharded),)


_gather.defvjp(_gather_forward, _gather_backward)


def constrain_batch(x: jax.Array) -> jax.Array:
    """Shards an array by examples (its first axis), whatever the sharding of the weights applied to it.

    The array is left alone if the examples do not divide evenly over the devices.
    """
    mesh = _mesh()
    if mesh is None or x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return x
    return jax.lax.with_sharding_constraint(x, batch_sharding(mesh))


def tracing_for() -> tuple[str, tuple[int, ...]]:
    """The platform of the traced program (cpu, gpu or tpu), and the compute capability of its GPUs."""
    mesh = _mesh()
    if _counting.get():
        return "cpu", (0,)
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    platform = "gpu" if device.platform == "cuda" else device.platform
    capability = getattr(device, "compute_capability", "0") if platform == "gpu" else "0"
    return platform, tuple(int(number) for number in str(capability).split("."))


def over_examples_and_heads(
    attend: Callable[..., Array], queries: tuple[int, ...], keys: tuple[int, ...]
) -> Callable[..., Array] | None:
    """Wraps an attention kernel so that each device computes its own examples and heads.

    The compiler does not partition custom kernels by itself.

    Args:
        attend: (query, key, value, mask), the first three `[B, N, heads, D]`, the mask `[B, M]` or None.
        queries, keys: their shapes.

    Returns:
        The same function of arrays on the whole mesh; None if they do not divide evenly over it.
    """
    mesh = _mesh()
    if mesh is None or mesh.size == 1:
        return attend
    if queries[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return None
    if queries[2] % mesh.shape["tensor"] or keys[2] % mesh.shape["tensor"]:
        return None
    arrays, masks = P(("data", "fsdp"), None, "tensor"), P(("data", "fsdp"))
    specs = (arrays, arrays, arrays, masks)
    return jax.shard_map(attend, mesh=mesh, in_specs=specs, out_specs=arrays, check_vma=False)


def placed(x: Any, sharding: Sharding) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array, with the sharding that it will have."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device has the whole array."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are sharded over data and fsdp along their first axis."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def part_of_batch(mesh: Mesh) -> tuple[int, int]:
    """(index, count): which of `count` equal parts of every batch this host loads.

    Hosts whose devices share a tensor axis load the same part.

    Raises:
        UserError: the mesh shards batches unequally over the hosts.
    """
    devices = mesh.devices.reshape(-1, mesh.shape["tensor"])
    rows: dict[int, set[int]] = {}
    for row, tensor in enumerate(devices):
        for device in tensor:
            rows.setdefault(device.process_index, set()).add(row)
    parts = sorted({tuple(sorted(found)) for found in rows.values()})
    if sum(map(len, parts)) != len(devices) or len(set(map(len, parts))) > 1:
        raise UserError(f"config.mesh {dict(mesh.shape)} shards batches unequally over the hosts")
    return parts.index(tuple(sorted(rows[jax.process_index()]))), len(parts)


def need_rows(count: int, mesh: Mesh, what: str) -> None:
    """Raises UserError if `count` rows do not divide evenly over the mesh; `what` names them."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if count % parts:
        raise UserError(f"{what}: {count} rows do not divide evenly over data x fsdp = {parts} devices")


def one_device() -> Mesh:
    """The mesh of one device: the default one that the user has set, or else this process's first."""
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(chosen, str):  # a platform
        chosen = jax.local_devices(backend=chosen)[0]
    return make_mesh(MeshConfig(), [chosen or jax.local_devices()[0]])


def local_batch_sharding() -> tuple[NamedSharding, NamedSharding]:
    """For work that each host does alone: batches sharded over its own devices, and replicated on them."""
    mesh = Mesh(np.array(jax.local_devices()), ("data",))
    return NamedSharding(mesh, P("data")), NamedSharding(mesh, P())


def to_devices(batch: Any, mesh: Mesh) -> Any:
    """This host's part of a batch of NumPy arrays, as global arrays: the only way that data enters."""
    sharding = batch_sharding(mesh)
    with jax.transfer_guard_host_to_device("allow"):  # this transfer is intended
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)
