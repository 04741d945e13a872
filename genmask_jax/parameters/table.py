"""The plan as a table for people: a line for each group of parameters that are treated alike."""

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
    """The plan in columns, what is trained first, and its totals.

    Matrices of one shape that are treated alike share a line: "8 x [30, 1536/fsdp, 1536]" are eight, whose
    second axis is sharded over `fsdp`. Biases (scales, ...) of one part of the model do, whatever their
    shapes, and so do all its frozen parameters.
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
    """What parameters on one line share."""
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
    """The modules that all are in, and a star."""
    parts = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = itertools.takewhile(lambda part: len(set(part)) == 1, parts)
    return ".".join([*(part[0] for part in shared), "*"])


def _pattern(names: list[str]) -> str:
    """Several names as one: "dit.blocks.{attn1,attn2}.{to_k,to_v}.kernel"; stars where not all are there."""
    split = [name.split(".") for name in names]
    if len(set(map(len, split))) > 1:
        return f"{_common(names)}.{split[0][-1]}"
    parts = [list(dict.fromkeys(part)) for part in zip(*split, strict=True)]
    every = math.prod(map(len, parts)) == len(names)
    return ".".join(
        part[0] if len(part) == 1 else f"{{{','.join(part)}}}" if every else "*" for part in parts
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
    """A line for each role: how many numbers, and how much memory, of all devices and of one."""
    lines = []
    for role in Role:
        found = [one for one in plan if one.role is role]
        count = sum(math.prod(one.shape) for one in found)
        whole = sum(math.prod(one.shape) * one.dtype.itemsize for one in found) / MIB
        own = sum(_own_size(one, plan) * one.dtype.itemsize for one in found) / MIB
        each = f", {own:,.1f} MiB on each of {plan.mesh.size} devices" * (plan.mesh.size > 1)
        if found:
            lines.append(f"{role}: {count / 1e6:,.3f} million in {len(found)} arrays, {whole:,.1f} MiB{each}")
    return lines


def _own_size(one: Parameter, plan: ParameterPlan) -> int:
    """How many numbers of a parameter one device holds."""
    return math.prod(NamedSharding(plan.mesh, one.spec).shard_shape(one.shape))
