"""The rules that make the plan of a model's parameters: one for each of its columns."""

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
"""Parameters of fewer numbers are replicated: gathering them costs more than storing them."""
COLUMN_PARALLEL = re.compile(
    r"\.(to_q|to_k|to_v|ffn\.linear_1|q_proj|k_proj|v_proj|gate_proj|up_proj)\.kernel$"
)
ROW_PARALLEL = re.compile(r"\.(to_out|ffn\.linear_2|o_proj|down_proj)\.kernel$")
PROJECTION = "dit.text_embedder.linear_1."
"""Not taken from weights whose instruction encoder has another width."""

Targets = dict[str, jax.ShapeDtypeStruct]
"""Parameters by name, with the dtypes and shardings in which to load them."""
Load = Callable[[Targets], dict[str, jax.Array]]
"""Reads parameters by name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights that parameters can be taken from, by their shapes alone.

    path: named in errors.
    source: RUN or IMPORT.
    shapes: of the parameters, by their names in the model.
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

    vae: kind of the weights in `config.vae`.
    init: the weights that `config.init` names. If the DiT has adapters, these weights are their base.
    restored: whether what is trained comes from a checkpoint of the run itself.
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
        shapes: all parameters by name: arrays, or their shapes and dtypes.
        mesh: devices that hold them.
        trained: modules that are trained, such as "dit"; so are all adapters, in any module. If the DiT has
            adapters, what `sources.init` holds is not.
        sources: where values come from; all defaults if None.
        instruction: kind of the weights that the instruction encoder loads; None if it has none of its own.
        compute_dtypes: from `compute_dtypes`; the parameters' own dtypes if None.
        optimizer, instruction_lr_scale: of `OptimizerConfig`.

    Raises:
        UserError: `sources.init` is of another model.
    """
    sources, computed = sources or Sources(), compute_dtypes or {}
    trainable = {n: tuple(x.shape) for n, x in shapes.items() if is_adapter(n) or is_within(n, trained)}
    held = held_by(sources.init, trainable) if sources.init else frozenset()
    base = held if any(map(is_dit_adapter, shapes)) else frozenset()
    training = trainable.keys() - base

    def parameter(name: str, x: Any) -> Parameter:
        role = role_of(name, training)
        source, origin = source_of(name, role, sources, held, instruction)
        one = Parameter(
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
            return one
        return dataclasses.replace(
            one,
            optimizer="muon" if optimizer == "muon" and is_block_kernel(name) else "adam",
            decayed=is_matrix(name),
            lr_scale=instruction_lr_scale if is_within(name, ("instruction",)) else 1.0,
        )

    return ParameterPlan(tuple(parameter(name, x) for name, x in shapes.items()), mesh)


def is_within(name: str, modules: tuple[str, ...]) -> bool:
    """Whether a parameter is part of one of the modules."""
    return any(name.startswith(f"{module}.") for module in modules)


def role_of(name: str, training: Set[str]) -> Role:
    """What training does to a parameter, given the names of all that are trained."""
    if name in training:
        return Role.TRAINED
    adapted = is_matrix(name) and training >= set(adapters_of(name))
    return Role.ADAPTED if adapted else Role.FROZEN


def source_of(
    name: str, role: Role, sources: Sources, held: frozenset[str], instruction: Source | None
) -> tuple[Source, str]:
    """Where a parameter's first values come from, and the field of the config that gives them ("" for none).

    Args:
        name, role: of a parameter.
        sources: of the model.
        held: names of the parameters that `sources.init` has.
        instruction: kind of the weights that the instruction encoder loads, if it does.
    """
    if role is Role.TRAINED and sources.restored:
        return Source.RUN, ""
    if sources.init and name in held:
        return sources.init.source if role is Role.TRAINED else Source.BASE, "init"
    if is_within(name, ("vae",)):
        return sources.vae, "vae"
    # Imported weights have no adapters; an encoder that is drawn at random is drawn with them.
    lacked = instruction is Source.IMPORT and is_adapter(name)
    if is_within(name, ("instruction",)) and instruction and not lacked:
        return instruction, "instruction"
    return Source.FRESH, ""


def held_by(weights: Weights, model: Mapping[str, Shape]) -> frozenset[str]:
    """The names of the model's parameters that weights have.

    Args:
        weights: of a model of the same shape.
        model: all parameters that can be trained. The DiT's adapters are never among the weights, nor is the
            text projection of an encoder of another width, nor an encoder that was not trained with them.

    Raises:
        UserError: the weights are of another model.
    """
    there, here = weights.shapes, {n: shape for n, shape in model.items() if not is_dit_adapter(n)}
    other = []
    if _part(there, "instruction.").keys() != _part(here, "instruction.").keys():
        other.append("instruction.")
    if _part(there, PROJECTION) != _part(here, PROJECTION):
        other.append(PROJECTION)
    there, here = ({n: s for n, s in x.items() if not n.startswith(tuple(other))} for x in (there, here))
    need_same_shapes(weights.path, there, here)
    return frozenset(here)


def _part(shapes: Mapping[str, Shape], prefix: str) -> dict[str, Shape]:
    return {name: shape for name, shape in shapes.items() if name.startswith(prefix)}


def partition_spec(name: str, shape: Shape, mesh: Mesh) -> PartitionSpec:
    """How a parameter is sharded: tensor by name, then fsdp over the largest dimension that it divides."""
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
    """The dtypes of the products that a model's matrices are factors of; of all others, their own."""
    layers = {".".join(map(str, path)): layer for path, layer in nnx.iter_modules(model)}
    found = {}
    for name, leaf in flat_paths(nnx.state(model)):
        product = getattr(layers.get(name.rpartition(".")[0]), "dtype", None) if is_matrix(name) else None
        found[name] = np.dtype(product or leaf.dtype)
    return found
