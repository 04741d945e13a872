"""Estimates the memory and time of a compiled program."""

import collections
import dataclasses
import re
import time
from typing import Any

import jax

from genmask_jax.hardware.cards import Card
from genmask_jax.hardware.chips import Chip
from genmask_jax.hardware.flops import ModelFlops
from genmask_jax.tools.estimates.work import Collective, Work, read_work

SENT_FRACTION = {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 2, "all-to-all": 0.5}
"""Bytes that each chip in a ring of n sends, in units of (n - 1) / n of the bytes of the largest array."""

NO_FLOPS = ModelFlops(None, 0.0)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Cost of one run of a program, per device.

    fits: whether the program fits in HBM, according to the compiler.
    hbm_bytes_per_device, hbm_limit_bytes: HBM that the program needs, and HBM of the chip.
    compile_seconds: time of the compilation.
    model_flops_per_device: model FLOPs of the trained networks and of all networks (`ModelFlops`).
    flops_per_device, bytes_accessed_per_device: FLOPs and bytes of the compiled program, including
        all iterations of loops.
    collectives: kind, devices per group, count and bytes of each.
    compute_seconds: sum of the times of all instructions at peak FLOP/s or HBM bandwidth, whichever is
        slower.
    communication_seconds: sum of the times of all collectives, on rings along one axis.
    estimated_step_seconds: the larger of the two, assuming that compute and communication overlap.
    estimated_mfu: model FLOPs utilization of the trained networks and of all networks: model FLOPs in
        `estimated_step_seconds`, relative to the peak FLOP/s of the chip.
    reserved_bytes_per_device: allowance for other uses of a GPU's memory (`hardware/cards.py`).
    """

    fits: bool
    hbm_bytes_per_device: float
    hbm_limit_bytes: float
    compile_seconds: float
    model_flops_per_device: ModelFlops = NO_FLOPS
    flops_per_device: float = 0.0
    bytes_accessed_per_device: float = 0.0
    collectives: tuple[dict[str, Any], ...] = ()
    compute_seconds: float = 0.0
    communication_seconds: float = 0.0
    estimated_step_seconds: float = 0.0
    estimated_mfu: ModelFlops = NO_FLOPS
    reserved_bytes_per_device: float = 0.0


def estimate(lowered: jax.stages.Lowered, chip: Chip | Card, *, model_flops: ModelFlops) -> Estimate:
    """Compiles a program and estimates its memory and time.

    Args:
        lowered: the program, lowered for a topology of the chip.
        chip: specifications of the chip.
        model_flops: model FLOPs of one run, per device.
    """
    start = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = used_bytes(str(error))
        if needed is None:
            raise
        return Estimate(False, needed, chip.hbm_bytes, time.monotonic() - start, model_flops)
    seconds = time.monotonic() - start
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None  # all compilers return both
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
        estimated_mfu=model_flops / (step * chip.peak_flops) if step else NO_FLOPS,
        reserved_bytes_per_device=chip.reserved_bytes(hbm),
    )


def used_bytes(message: str) -> float | None:
    """HBM bytes that a program needs, from the compiler's out-of-memory error; None for other errors."""
    match = re.search(r"[Uu]sed ([\d.]+)([KMG]) of [\d.]+[KMG] hbm", message)
    return float(match[1]) * 2.0 ** {"K": 10, "M": 20, "G": 30}[match[2]] if match else None


def compute_seconds(work: Work, chip: Chip | Card) -> float:
    """Roofline (Williams et al. 2009) of each instruction, summed.

    Asynchronous copies overlap with the rest of their scope. They add time only if moving all bytes of the
    scope takes longer than its other instructions.
    """
    sequential: dict[str, float] = collections.defaultdict(float)
    memory: dict[str, float] = collections.defaultdict(float)
    for i in work.instructions:
        memory_seconds = i.count * i.nbytes / chip.hbm_bandwidth
        memory[i.scope] += memory_seconds
        if not i.is_async_copy:
            sequential[i.scope] += max(i.count * i.flops / chip.peak_flops, memory_seconds)
    return sum(max(sequential[scope], memory[scope]) for scope in memory)


def communication_seconds(work: Work, chip: Chip | Card) -> float:
    """Sum of the times of all collectives, each on a ring along one axis of a torus, or over cards."""
    return sum(sent_bytes(c) / chip.send_bandwidth(c.span) for c in work.collectives)


def sent_bytes(c: Collective) -> float:
    """Bytes that one chip sends for a collective."""
    if c.kind == "collective-permute":
        return c.nbytes
    return SENT_FRACTION[c.kind] * c.nbytes * (c.group - 1) / max(c.group, 1)


def summarise(all_collectives: tuple[Collective, ...]) -> tuple[dict[str, Any], ...]:
    """Totals of the collectives by kind and group size, most bytes first."""
    totals: dict[tuple[str, int], list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for c in all_collectives:
        totals[c.kind, c.group][0] += c.count
        totals[c.kind, c.group][1] += c.nbytes
    rows = [{"kind": k, "group": n, "count": v[0], "bytes": v[1]} for (k, n), v in totals.items()]
    return tuple(sorted(rows, key=lambda row: -row["bytes"]))
