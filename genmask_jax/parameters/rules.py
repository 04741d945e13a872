"""The rules that make the plan of a model's parameters, one for each column."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Set
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from genmask_jax.parameters.names import (
    Shape,
    adapters_of,
    flat_paths,
    is_adapter,
    is_block_kernel,
    is_dit_adapter,
    is_matrix,
    need_same_shapes,
)
from genmask_jax.parameters.plan import Parameter, ParameterPlan, Role, Source

FSDP_MIN_SIZE = 2**20
"""Smaller parameters (number of elements) are replicated: gathering them costs more than storing them."""
COLUMN_PARALLEL = re.compile(
    r"\.(to_q|to_k|to_v|ffn\.linear_1|q_proj|k_proj|v_proj|gate_proj|up_proj)\.kernel$"
)
ROW_PARALLEL = re.compile(r"\.(to_out|ffn\.linear_2|o_proj|down_proj)\.kernel$")
TEXT_PROJECTION = "dit.text_embedder.linear_1."
OPTIONAL_PARTS = (TEXT_PROJECTION, "dit.clean_embedding", "mask_readout.")
"""Not loaded from weights that do not have them in this shape: the text projection depends on the width of
the instruction encoder, the others on `config.objective`."""

Targets = dict[str, jax.ShapeDtypeStruct]
"""Shapes, dtypes and shardings of the parameters to load, by name."""
Load = Callable[[Targets], dict[str, jax.Array]]
"""Loads parameters by name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights to load parameters from. The plan needs only their shapes.

    path: path for errors.
    source: RUN or IMPORT.
    shapes: shapes of the parameters, by their names in the model.
    """

    path: epath.Path
    source: Source
    shapes: Mapping[str, Shape]

    def restore(self, targets: Targets) -> dict[str, jax.Array]:
        """Reads parameters by name, in the dtypes and shardings of `targets`."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where the parameters of a model come from.

    vae: source of the weights of `config.vae`.
    init: weights of `config.init`. If the DiT has adapters, these weights are their base.
    restored: whether trained parameters come from a checkpoint of the run itself.
    """

    vae: Source = Source.RUN
    init: Weights | None = None
    restored: bool = False


def make_plan(
    shapes: Mapping[str, Any],
    mesh: Mesh,
    *,
    trained: tuple[str, ...],
    sources: Sources | None = None,
    instruction: Source | None = None,
    compute_dtypes: Mapping[str, Any] | None = None,
    optimizer: str = "adamw",
    instruction_lr_scale: float = 1.0,
) -> ParameterPlan:
    """The plan of a model.

    Args:
        shapes: all parameters by name, as arrays or as their shapes and dtypes.
        mesh: devices of the parameters.
        trained: trained modules, such as "dit". Adapters are trained in any module. If the DiT has adapters,
            the parameters in `sources.init` are frozen.
        sources: sources of the initial values; the defaults of `Sources` if None.
        instruction: source of the weights that the instruction encoder loads; None if it loads none.
        compute_dtypes: from `compute_dtypes`; the dtypes of the parameters if None.
        optimizer, instruction_lr_scale: see `OptimizerConfig`.

    Raises:
        UserError: `sources.init` belongs to another model.
    """
    sources, computed = sources or Sources(), compute_dtypes or {}
    trainable = {n: tuple(x.shape) for n, x in shapes.items() if is_adapter(n) or is_within(n, trained)}
    available = available_in(sources.init, trainable) if sources.init else frozenset()
    base = available if any(map(is_dit_adapter, shapes)) else frozenset()
    training = trainable.keys() - base

    def parameter(name: str, x: Any) -> Parameter:
        role = role_of(name, training)
        source, origin = source_of(name, role, sources, available, instruction)
        result = Parameter(
            name=name,
            shape=tuple(x.shape),
            dtype=np.dtype(x.dtype),
            compute_dtype=np.dtype(computed.get(name, x.dtype)),
            spec=partition_spec(name, tuple(x.shape), mesh),
            role=role,
            source=source,
            origin=origin,
        )
        if role is not Role.TRAINED:
            return result
        return dataclasses.replace(
            result,
            optimizer="muon" if optimizer == "muon" and is_block_kernel(name) else "adam",
            decayed=is_matrix(name),
            lr_scale=instruction_lr_scale if is_within(name, ("instruction",)) else 1.0,
        )

    return ParameterPlan(tuple(parameter(name, x) for name, x in shapes.items()), mesh)


def is_within(name: str, modules: tuple[str, ...]) -> bool:
    """Whether a parameter belongs to one of the modules."""
    return any(name.startswith(f"{module}.") for module in modules)


def role_of(name: str, training: Set[str]) -> Role:
    """The role of a parameter, given the names of all trained parameters (`training`)."""
    if name in training:
        return Role.TRAINED
    adapted = is_matrix(name) and training >= set(adapters_of(name))
    return Role.ADAPTED if adapted else Role.FROZEN


def source_of(
    name: str, role: Role, sources: Sources, available: frozenset[str], instruction: Source | None
) -> tuple[Source, str]:
    """The source of a parameter's initial values, and the field of the config that names it ("" for none).

    Args:
        name, role: name and role of the parameter.
        sources: sources of the model.
        available: names of the parameters in `sources.init`.
        instruction: source of the weights that the instruction encoder loads; None if it loads none.
    """
    if role is Role.TRAINED and sources.restored:
        return Source.RUN, ""
    if sources.init and name in available:
        return sources.init.source if role is Role.TRAINED else Source.BASE, "init"
    if is_within(name, ("vae",)):
        return sources.vae, "vae"
    # Imported weights have no adapters; a randomly initialised encoder includes them.
    missing = instruction is Source.IMPORT and is_adapter(name)
    if is_within(name, ("instruction",)) and instruction and not missing:
        return instruction, "instruction"
    return Source.FRESH, ""


def available_in(weights: Weights, model: Mapping[str, Shape]) -> frozenset[str]:
    """The names of the model's parameters to load from weights.

    Args:
        weights: weights of a model of the same shape.
        model: shapes of all trainable parameters. The DiT's adapters are never loaded, nor the text
            projection of an encoder of another width, nor an encoder or a part of `config.objective` that the
            weights do not have.

    Raises:
        UserError: the weights belong to another model.
    """
    saved, wanted = weights.shapes, {n: shape for n, shape in model.items() if not is_dit_adapter(n)}
    excluded = []
    if _part(saved, "instruction.").keys() != _part(wanted, "instruction.").keys():
        excluded.append("instruction.")
    excluded += [part for part in OPTIONAL_PARTS if _part(saved, part) != _part(wanted, part)]
    saved, wanted = (
        {n: s for n, s in x.items() if not n.startswith(tuple(excluded))} for x in (saved, wanted)
    )
    need_same_shapes(weights.path, saved, wanted)
    return frozenset(wanted)


def _part(shapes: Mapping[str, Shape], prefix: str) -> dict[str, Shape]:
    return {name: shape for name, shape in shapes.items() if name.startswith(prefix)}


def partition_spec(name: str, shape: Shape, mesh: Mesh) -> PartitionSpec:
    """The sharding of a parameter: `tensor` by name, then `fsdp` over the largest dimension it divides."""
    axes: list[str | None] = [None] * len(shape)
    tensor, fsdp = mesh.shape["tensor"], mesh.shape["fsdp"]
    if tensor > 1:
        if COLUMN_PARALLEL.search(f".{name}") and shape[-1] % tensor == 0:
            axes[-1] = "tensor"
        elif ROW_PARALLEL.search(f".{name}") and shape[-2] % tensor == 0:
            axes[-2] = "tensor"
    if fsdp > 1 and math.prod(shape) >= FSDP_MIN_SIZE:
        for i in sorted(range(len(shape)), key=lambda i: -shape[i]):
            if axes[i] is None and shape[i] % fsdp == 0:
                axes[i] = "fsdp"
                break
    return PartitionSpec(*axes)


def compute_dtypes(model: nnx.Module) -> dict[str, np.dtype]:
    """The dtypes of matrices in products, by name; for other parameters, the dtype in memory."""
    layers = {".".join(map(str, path)): layer for path, layer in nnx.iter_modules(model)}
    dtypes = {}
    for name, leaf in flat_paths(nnx.state(model)):
        product = getattr(layers.get(name.rpartition(".")[0]), "dtype", None) if is_matrix(name) else None
        dtypes[name] = np.dtype(product or leaf.dtype)
    return dtypes
