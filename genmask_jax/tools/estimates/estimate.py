"""Estimates from a compiled program whether it fits in HBM and how long it takes."""

import collections
import dataclasses
import re
import time
from typing import Any

import jax

from genmask_jax.hardware.cards import Card
from genmask_jax.hardware.chips import Chip
from genmask_jax.hardware.flops import ModelFlops
from genmask_jax.tools.estimates.hlo import Collective, Work, read_work

WIRE = {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 2, "all-to-all": 0.5}
"""Bytes that each chip in a ring of n sends, in units of (n - 1) / n of the largest array's bytes."""


NONE = ModelFlops(None, 0.0)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Cost of one run of a program, per device.

    fits: whether the program fits in HBM, according to the compiler.
    hbm_bytes_per_device, hbm_limit_bytes: HBM of the program, and of the chip.
    compile_seconds: time of the compilation.
    model_flops_per_device: model FLOPs of the trained networks and of all networks (`ModelFlops`).
    flops_per_device, bytes_accessed_per_device: FLOPs and bytes of the compiled program, with all iterations
        of loops.
    collectives: kind, devices per group, count and bytes of each.
    compute_seconds: sum over all instructions, each at peak FLOP/s or HBM bandwidth, whichever is slower.
    communication_seconds: all collectives, one after the other, on rings along one axis.
    estimated_step_seconds: the larger of the two, as if compute and communication overlapped fully.
    estimated_mfu: model FLOPs utilization of the trained networks and of all networks: model FLOPs in this
        time, relative to the chip's peak FLOP/s.
    reserved_bytes_per_device: allowance for other uses of a GPU's memory (`hardware/cards.py`).
    """

    fits: bool
    hbm_bytes_per_device: float
    hbm_limit_bytes: float
    compile_seconds: float
    model_flops_per_device: ModelFlops = NONE
    flops_per_device: float = 0.0
    bytes_accessed_per_device: float = 0.0
    collectives: tuple[dict[str, Any], ...] = ()
    compute_seconds: float = 0.0
    communication_seconds: float = 0.0
    estimated_step_seconds: float = 0.0
    estimated_mfu: ModelFlops = NONE
    reserved_bytes_per_device: float = 0.0


def estimate(lowered: jax.stages.Lowered, chip: Chip | Card, *, model_flops: ModelFlops) -> Estimate:
    """Compiles a program and estimates its memory and time.

    Args:
        lowered: the program, lowered for a topology of the chip.
        chip: specifications of the chip.
        model_flops: model FLOPs of one run, per device.
    """
    began = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        taken = used_bytes(str(error))
        if taken is None:
            raise
        return Estimate(False, taken, chip.hbm_bytes, time.monotonic() - began, model_flops)
    seconds = time.monotonic() - began
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None  # the compilers for TPUs and CPUs give both
    assert text is not None
    hbm = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    hbm += memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    work = read_work(text)
    compute, communication = compute_seconds(work, chip), communication_seconds(work, chip)
    step = max(compute, communication)
    return Estimate(
        fits=hbm + chip.reserved_bytes(hbm) <= chip.hbm_bytes,
        hbm_bytes_per_device=hbm,
        hbm_limit_bytes=chip.hbm_bytes,
        compile_seconds=seconds,
        model_flops_per_device=model_flops,
        flops_per_device=work.flops,
        bytes_accessed_per_device=work.nbytes,
        collectives=summarise(work.collectives),
        compute_seconds=compute,
        communication_seconds=communication,
        estimated_step_seconds=step,
        estimated_mfu=model_flops / (step * chip.peak_flops) if step else NONE,
        reserved_bytes_per_device=chip.reserved_bytes(hbm),
    )


def used_bytes(message: str) -> float | None:
    """The needed HBM bytes in the compiler's out-of-memory message; None for other messages."""
    match = re.search(r"[Uu]sed ([\d.]+)([KMG]) of [\d.]+[KMG] hbm", message)
    return float(match[1]) * 2.0 ** {"K": 10, "M": 20, "G": 30}[match[2]] if match else None


def compute_seconds(work: Work, chip: Chip | Card) -> float:
    """Roofline (Williams et al. 2009) of each instruction, summed.

    Asynchronous copies overlap with the rest of their scope. They take time only if moving all bytes of the
    scope takes longer than its other instructions.
    """
    pieces: dict[str, float] = collections.defaultdict(float)
    memory: dict[str, float] = collections.defaultdict(float)
    for p in work.pieces:
        moving = p.count * p.nbytes / chip.hbm_bandwidth
        memory[p.scope] += moving
        pieces[p.scope] += 0.0 if p.ahead else max(p.count * p.flops / chip.peak_flops, moving)
    return sum(max(pieces[scope], memory[scope]) for scope in memory)


def communication_seconds(work: Work, chip: Chip | Card) -> float:
    """Time of all collectives, each on a ring: along one axis of a torus, or over cards."""
    return sum(wire_bytes(c) / chip.send_bandwidth(c.span) for c in work.collectives)


def wire_bytes(c: Collective) -> float:
    """Bytes that one chip sends."""
    if c.kind == "collective-permute":
        return c.nbytes
    return WIRE[c.kind] * c.nbytes * (c.group - 1) / max(c.group, 1)


def summarise(collected: tuple[Collective, ...]) -> tuple[dict[str, Any], ...]:
    """Totals of the collectives by kind and group size, most bytes first."""
    totals: dict[tuple[str, int], list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for c in collected:
        totals[c.kind, c.group][0] += c.count
        totals[c.kind, c.group][1] += c.nbytes
    rows = [{"kind": k, "group": n, "count": v[0], "bytes": v[1]} for (k, n), v in totals.items()]
    return tuple(sorted(rows, key=lambda row: -row["bytes"]))
