"""The device mesh, the sharding of batches, and the context of traced programs.

Mesh axes: `data` (replicas), `fsdp` (shards parameters and batches) and `tensor` (shards matrices by their
output or input features). The plan has the sharding of each parameter (`parameters/plan.py`).
"""

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """Number of devices along each axis; data = -1 uses all remaining devices."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of the given devices, or of all devices.

    `data` is the outermost axis: parameters are sharded over neighbours (fsdp within a node, a slice or an
    axis of a torus) and replicated across the rest, so that only gradients travel between slices.

    Raises:
        UserError: the product of the axes is not the number of devices, or data is not a multiple of the
            number of slices.
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
    # On other platforms, slice_index counts nodes, and parameters may be sharded across nodes.
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


_traced_plan: contextvars.ContextVar[ParameterPlan | None] = contextvars.ContextVar("plan", default=None)
_counting: contextvars.ContextVar[bool] = contextvars.ContextVar("counting", default=False)


@contextlib.contextmanager
def tracing_context(plan: ParameterPlan) -> Iterator[None]:
    """Sets the plan and its mesh while a program is traced, for its layers, batches and attention."""
    token = _traced_plan.set(plan)
    try:
        yield
    finally:
        _traced_plan.reset(token)


def _mesh() -> Mesh | None:
    """The mesh of the traced program, if it was set."""
    plan = _traced_plan.get()
    return plan.mesh if plan else None


def bytes_per_device(arrays: Any) -> int:
    """Memory of a tree of arrays on one device, bytes."""
    leaves = jax.tree.leaves(arrays)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def constrain_parameters(tree: Any) -> Any:
    """Shards a tree like the parameters of the same names and shapes, for example their gradients."""
    plan = _traced_plan.get()
    if plan is None or plan.mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, plan.shardings(tree))


@contextlib.contextmanager
def counting() -> Iterator[None]:
    """A context for tracing a program to count its model FLOPs (`hardware.flops.ModelFlops`).

    In it, attention consists of matrix products on every platform, and the backward pass recomputes nothing.
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
    """All-gathers the parameters of one layer over fsdp before it is computed; they stay sharded over tensor.

    Matrices travel in the dtype of their products, and gradients in the dtype of the parameters. Without
    these constraints, the compiler may shard activations by channels like the weights, or sum the whole
    gradient of a layer on every device.

    Args:
        layer: state of one layer, without the layer axis.
        stacked: state of all layers.
    """
    plan = _traced_plan.get()
    if plan is None or plan.mesh.size == 1:
        return layer

    def gather(path: Any, x: jax.Array, all_layers: jax.Array) -> jax.Array:
        parameter = plan.of_layers(parameter_name(path), all_layers.shape)
        spec = parameter.spec[1:]
        gathered = P(*(axis if axis == "tensor" else None for axis in spec))
        shardings = NamedSharding(plan.mesh, P(*spec)), NamedSharding(plan.mesh, gathered)
        return _gather(x, *shardings, parameter.compute_dtype)

    return jax.tree.map_with_path(gather, layer, stacked)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gather(x: jax.Array, sharded: NamedSharding, gathered: NamedSharding, dtype: Any) -> jax.Array:
    x = jax.lax.with_sharding_constraint(x.astype(dtype), sharded)
    return jax.lax.with_sharding_constraint(x, gathered)


def _gather_forward(x, sharded, gathered, dtype):
    return _gather(x, sharded, gathered, dtype), jnp.zeros((), x.dtype)


def _gather_backward(sharded, gathered, dtype, like, gradient):
    return (jax.lax.with_sharding_constraint(gradient.astype(like.dtype), sharded),)


_gather.defvjp(_gather_forward, _gather_backward)


def constrain_batch(x: jax.Array) -> jax.Array:
    """Shards an array by examples (its first axis), whatever the sharding of the weights is.

    The array is unchanged if the examples do not divide evenly over the devices.
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

    The compiler does not partition custom kernels.

    Args:
        attend: (query, key, value, mask), the first three `[B, N, heads, D]`, the mask `[B, M]` or None.
        queries, keys: shapes of query and key.

    Returns:
        The same function of arrays on the whole mesh; None if their axes do not divide evenly over it.
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
    """The shape and dtype of an array with a sharding."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding in which every device has the whole array."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of batches: over data and fsdp along the first axis."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def part_of_batch(mesh: Mesh) -> tuple[int, int]:
    """(index, count): this host loads part `index` of `count` equal parts of every batch.

    Hosts whose devices share a tensor axis load the same part.

    Raises:
        UserError: the mesh shards batches unequally over the hosts.
    """
    devices = mesh.devices.reshape(-1, mesh.shape["tensor"])
    rows: dict[int, set[int]] = {}
    for row, tensor in enumerate(devices):
        for device in tensor:
            rows.setdefault(device.process_index, set()).add(row)
    parts = sorted({tuple(sorted(indices)) for indices in rows.values()})
    if sum(map(len, parts)) != len(devices) or len(set(map(len, parts))) > 1:
        raise UserError(f"config.mesh {dict(mesh.shape)} shards batches unequally over the hosts")
    return parts.index(tuple(sorted(rows[jax.process_index()]))), len(parts)


def need_rows(count: int, mesh: Mesh, what: str) -> None:
    """Raises UserError if `count` rows do not divide evenly over the mesh; `what` describes them."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if count % parts:
        raise UserError(f"{what}: {count} rows do not divide evenly over data x fsdp = {parts} devices")


def parts_of(arrays: Mapping[str, jax.Array]) -> tuple[list[int], int]:
    """Divides the rows of arrays into as many groups as possible, which all have equal shares of each array.

    A batch is sharded over its groups, so nothing moves between devices if arrays are joined group by group.

    Returns:
        Rows of each array in a group, and the number of groups.
    """
    groups = math.gcd(*map(len, arrays.values()))
    return [len(x) // groups for x in arrays.values()], groups


def split_groups(groups: jax.Array, parts: list[int]) -> list[jax.Array]:
    """`[G, K, ...]` to `[G k, ...]` for each k of `parts`, whose sum is K."""
    arrays = jnp.split(groups, np.cumsum(parts)[:-1], axis=1)
    return [x.reshape(-1, *x.shape[2:]) for x in arrays]


def one_device() -> Mesh:
    """The mesh of one device: JAX's default device if it is set, or else the first device of this process."""
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(device, str):  # a platform
        device = jax.local_devices(backend=device)[0]
    return make_mesh(MeshConfig(), [device or jax.local_devices()[0]])


def local_batch_sharding() -> tuple[NamedSharding, NamedSharding]:
    """Two shardings over this host's own devices, for work of each host alone: batches, and replicated."""
    mesh = Mesh(np.array(jax.local_devices()), ("data",))
    return NamedSharding(mesh, P("data")), NamedSharding(mesh, P())


def to_devices(batch: Any, mesh: Mesh) -> Any:
    """Converts this host's part of a batch of NumPy arrays to global arrays. All data enter devices here."""
    sharding = batch_sharding(mesh)
    with jax.transfer_guard_host_to_device("allow"):  # an explicit transfer
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)
