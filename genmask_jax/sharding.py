"""The device mesh, and the rules that shard every parameter and batch over it.

Mesh axes: `data` (replicas), `fsdp` (parameters and batch are sharded) and `tensor` (matrices are sharded by
output or input features). How a parameter is sharded depends on its name and shape alone, so its gradient,
its EMA and its moments, in whatever dtypes, lie where it does.
"""

import contextlib
import contextvars
import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from genmask_jax.errors import UserError
from genmask_jax.parameters.names import is_matrix, parameter_name

FSDP_MIN_SIZE = 2**20
"""Parameters of fewer numbers are replicated: gathering them costs more than storing them."""

COLUMN_PARALLEL = re.compile(
    r"\.(to_q|to_k|to_v|ffn\.linear_1|q_proj|k_proj|v_proj|gate_proj|up_proj)\.kernel$"
)
ROW_PARALLEL = re.compile(r"\.(to_out|ffn\.linear_2|o_proj|down_proj)\.kernel$")


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


def parameter_spec(name: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    """How one parameter is sharded: tensor by name, then fsdp over the largest dimension that it divides."""
    axes: list[str | None] = [None] * len(shape)
    tensor, fsdp = mesh.shape["tensor"], mesh.shape["fsdp"]
    if tensor > 1:
        if COLUMN_PARALLEL.search(name) and shape[-1] % tensor == 0:
            axes[-1] = "tensor"
        elif ROW_PARALLEL.search(name) and shape[-2] % tensor == 0:
            axes[-2] = "tensor"
    if fsdp > 1 and math.prod(shape) >= FSDP_MIN_SIZE:
        for i in sorted(range(len(shape)), key=lambda i: -shape[i]):
            if axes[i] is None and shape[i] % fsdp == 0:
                axes[i] = "fsdp"
                break
    return P(*axes)


def state_shardings(tree: Any, mesh: Mesh) -> Any:
    """A NamedSharding for every leaf of a train state, or of its shapes."""

    def leaf(path, x):
        # A moment's name ends in that of its parameter.
        return NamedSharding(mesh, parameter_spec(f".{parameter_name(path)}", x.shape, mesh))

    return jax.tree_util.tree_map_with_path(leaf, tree)


def constrain_parameters(tree: Any) -> Any:
    """Shards a tree with the names and shapes of parameters as these are, for example their gradients."""
    mesh = _tracing_on.get()
    if mesh is None or mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, state_shardings(tree, mesh))


def log_shardings(tree: Any, mesh: Mesh) -> None:
    """Logs a table of the sharded arrays, and the number and size of the replicated ones."""
    lines, copied, count = [], 0, 0
    for path, x in jax.tree.leaves_with_path(tree):
        spec, whole = x.sharding.spec, x.nbytes / 2**20
        if any(spec):
            own = math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize / 2**20
            axes = " x ".join(f"{n}/{axis}" if axis else str(n) for n, axis in _with_axes(x.shape, spec))
            lines.append(f"{parameter_name(path):90} {axes:40} {x.dtype!s:9} {whole:9.1f} {own:9.1f}")
        else:
            copied, count = copied + whole, count + 1
    if mesh.size > 1:
        heading = f"{'':90} {'sharded':40} {'':9} {'MiB':>9} {'per dev.':>9}"
        lines = [heading, *lines, f"{count} replicated arrays {copied:52.1f}"]
        logging.info("shardings on %s:\n%s", dict(mesh.shape), "\n".join(lines))


def _with_axes(shape: tuple[int, ...], spec: P) -> list[tuple[int, str | None]]:
    return list(itertools.zip_longest(shape, spec))


_tracing_on: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("mesh", default=None)
_counting: contextvars.ContextVar[bool] = contextvars.ContextVar("counting", default=False)


@contextlib.contextmanager
def tracing_on(mesh: Mesh) -> Iterator[None]:
    """Sets the mesh of the program that is traced, for `gather_layer`, `constrain_batch` and attention."""
    token = _tracing_on.set(mesh)
    try:
        yield
    finally:
        _tracing_on.reset(token)


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


def gather_layer(layer: Any, stacked: Any, dtype: Any) -> Any:
    """All-gathers one layer's parameters over fsdp before the layer is computed; tensor stays sharded.

    Matrices travel in the dtype in which they are multiplied. Gradients travel in the parameters' dtype, back
    to the devices that hold them. Without these constraints, the compiler may shard activations by channels
    where a weight is sharded that way, or sum a layer's whole gradient on every device.

    Args:
        layer: the state of one layer, without the layer axis.
        stacked: the state of all layers.
        dtype: of the matrix products.
    """
    mesh = _tracing_on.get()
    if mesh is None or mesh.size == 1:
        return layer

    def gather(path: Any, x: jax.Array, all_layers: jax.Array) -> jax.Array:
        name = f".{parameter_name(path)}"
        spec = parameter_spec(name, all_layers.shape, mesh)[1:]
        whole = P(*(axis if axis == "tensor" else None for axis in spec))
        shardings = NamedSharding(mesh, P(*spec)), NamedSharding(mesh, whole)
        return _gather(x, *shardings, dtype if is_matrix(name) else x.dtype)

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
    mesh = _tracing_on.get()
    if mesh is None or x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return x
    return jax.lax.with_sharding_constraint(x, batch_sharding(mesh))


def tracing_for() -> tuple[str, tuple[int, ...]]:
    """The platform of the traced program (cpu, gpu or tpu), and the compute capability of its GPUs."""
    mesh = _tracing_on.get()
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
    mesh = _tracing_on.get()
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
