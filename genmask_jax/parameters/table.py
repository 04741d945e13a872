"""The plan as a printed table, with a line for each group of parameters that are treated alike."""

import itertools
import math
from collections.abc import Sequence

from jax.sharding import NamedSharding

from genmask_jax.parameters.names import STACKS, is_matrix
from genmask_jax.parameters.plan import Parameter, ParameterPlan, Role

HEADINGS = ("parameters", "shape", "million", "role", "source", "stored in", "products in", "optimizer")
NUMBER = HEADINGS.index("million")
MIB = 2**20


def format_plan(plan: ParameterPlan) -> str:
    """The plan as a table, trained parameters first, and its totals.

    Matrices of one shape that are treated alike share a line: "8 x [30, 1536/fsdp, 1536]" are eight matrices
    whose second axis is sharded over `fsdp`. The biases (scales, ...) of one part of the model share a line
    whatever their shapes, and so do its frozen parameters.
    """
    groups: dict[tuple, list[Parameter]] = {}
    for one in plan:
        groups.setdefault(_key(one), []).append(one)
    roles = list(Role)
    ordered = sorted(groups.values(), key=lambda group: roles.index(group[0].role))
    rows = [HEADINGS, *(_row(group) for group in ordered)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join([*(_line(row, widths) for row in rows), *_totals(plan)])


def _key(one: Parameter) -> tuple:
    """The properties that parameters on one line share."""
    modules = one.name.split(".")
    alike = modules[0], one.role, one.source, one.origin, one.dtype, one.compute_dtype
    if one.role is Role.FROZEN:
        return *alike, any(one.spec)
    kind = modules[-1], STACKS.isdisjoint(modules), tuple(one.spec), one.optimizer, one.decayed, one.lr_scale
    return *alike, *kind, (len(modules), one.shape) if is_matrix(one.name) else None


def _row(group: list[Parameter]) -> tuple[str, ...]:
    one, names = group[0], [x.name for x in group]
    if len({x.shape for x in group}) > 1:
        last = f".{names[0].rpartition('.')[2]}" * (one.role is not Role.FROZEN)
        name, shape = _common(names) + last, f"{len(group)} arrays{', sharded' * any(one.spec)}"
    else:
        name, shape = _pattern(names), f"{len(group)} x " * (len(group) > 1) + _layout(one)
    million = sum(math.prod(x.shape) for x in group) / 1e6
    source = f"{one.source} ({one.origin})" if one.origin else one.source
    dtypes = str(one.dtype), str(one.compute_dtype)
    return name, shape, f"{million:,.3f}", one.role, source, *dtypes, _optimizer(one)


def _common(names: list[str]) -> str:
    """The modules that all parameters share, and a star."""
    parts = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = itertools.takewhile(lambda part: len(set(part)) == 1, parts)
    return ".".join([*(part[0] for part in shared), "*"])


def _pattern(names: list[str]) -> str:
    """Several names as one: "dit.blocks.{attn1,attn2}.{to_k,to_v}.kernel"; a star if that is inexact."""
    split = [name.split(".") for name in names]
    if len(set(map(len, split))) > 1:
        return f"{_common(names)}.{split[0][-1]}"
    parts = [list(dict.fromkeys(part)) for part in zip(*split, strict=True)]
    is_exact = math.prod(map(len, parts)) == len(names)
    return ".".join(
        part[0] if len(part) == 1 else f"{{{','.join(part)}}}" if is_exact else "*" for part in parts
    )


def _layout(one: Parameter) -> str:
    axes = itertools.zip_longest(one.shape, one.spec)
    return f"[{', '.join(f'{n}/{axis}' if axis else str(n) for n, axis in axes)}]"


def _optimizer(one: Parameter) -> str:
    if not one.optimizer:
        return ""
    return one.optimizer + ", decayed" * one.decayed + f", lr x {one.lr_scale:g}" * (one.lr_scale != 1)


def _line(row: Sequence[str], widths: list[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
    cells[NUMBER] = row[NUMBER].rjust(widths[NUMBER])
    return "  ".join(cells).rstrip()


def _totals(plan: ParameterPlan) -> list[str]:
    """A line for each role: the number of elements, and memory in total and per device."""
    lines = []
    for role in Role:
        group = [parameter for parameter in plan if parameter.role is role]
        count = sum(math.prod(one.shape) for one in group)
        total = sum(math.prod(one.shape) * one.dtype.itemsize for one in group) / MIB
        own = sum(_own_size(one, plan) * one.dtype.itemsize for one in group) / MIB
        each = f", {own:,.1f} MiB on each of {plan.mesh.size} devices" * (plan.mesh.size > 1)
        if group:
            lines.append(f"{role}: {count / 1e6:,.3f} million in {len(group)} arrays, {total:,.1f} MiB{each}")
    return lines


def _own_size(one: Parameter, plan: ParameterPlan) -> int:
    """Number of a parameter's elements on one device."""
    return math.prod(NamedSharding(plan.mesh, one.spec).shard_shape(one.shape))
