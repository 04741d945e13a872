"""From a compiled program to a verdict: does it fit, and about how long does it take."""

import collections
import dataclasses
import re
import time
from typing import Any

import jax

from genmask_jax.scale.chips import Chip
from genmask_jax.scale.hlo import Collective, Work, read_work

WIRE = {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 2, "all-to-all": 0.5}
"""Times (n - 1) / n of its largest array, the bytes that a chip of a ring of n passes on."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of one device and one run of the program, if not said otherwise.

    fits: whether the compiler found room for it.
    hbm_bytes_per_device, hbm_limit_bytes: what it takes, and what the chip has.
    model_flops_per_device: operations that the model asks for, without what is computed anew.
    flops_per_device, bytes_accessed_per_device: each loop's body as often as it runs.
    collectives: kind, devices of a group, how often, bytes.
    compute_seconds: each piece of work at the chip's peak, or at the speed of its memory if that is slower.
    communication_seconds: of the collectives, one after the other, on rings along one axis.
    estimated_step_seconds: the longer of both, as if one hid behind the other.
    estimated_mfu: the model's operations in this time, as a share of the chip's peak.
    """

    fits: bool
    hbm_bytes_per_device: float
    hbm_limit_bytes: float
    compile_seconds: float
    model_flops_per_device: float = 0.0
    flops_per_device: float = 0.0
    bytes_accessed_per_device: float = 0.0
    collectives: tuple[dict[str, Any], ...] = ()
    compute_seconds: float = 0.0
    communication_seconds: float = 0.0
    estimated_step_seconds: float = 0.0
    estimated_mfu: float = 0.0


def estimate(lowered: jax.stages.Lowered, chip: Chip, *, model_flops: float) -> Estimate:
    """Compiles a program and says what it takes.

    Args:
        lowered: for a topology of the chip.
        chip: its figures.
        model_flops: that one run asks of each device.
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
    memory = compiled.memory_analysis()
    hbm = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    hbm += memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    work = read_work(compiled.as_text())
    compute, communication = compute_seconds(work, chip), communication_seconds(work, chip)
    step = max(compute, communication)
    return Estimate(
        fits=True,
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
        estimated_mfu=model_flops / (step * chip.peak_flops) if step else 0.0,
    )


def used_bytes(message: str) -> float | None:
    """The bytes that the compiler says a program without room would take; None if it says something else."""
    match = re.search(r"[Uu]sed ([\d.]+)([KMG]) of [\d.]+[KMG] hbm", message)
    return float(match[1]) * 2.0 ** {"K": 10, "M": 20, "G": 30}[match[2]] if match else None


def compute_seconds(work: Work, chip: Chip) -> float:
    """A roofline (Williams et al. 2009) over each piece of work, one after the other.

    Copies ahead go on beside the rest of their scope; there they cost time where all its bytes together take
    longer than its pieces.
    """
    pieces: dict[str, float] = collections.defaultdict(float)
    memory: dict[str, float] = collections.defaultdict(float)
    for p in work.pieces:
        moving = p.count * p.nbytes / chip.hbm_bandwidth
        memory[p.scope] += moving
        pieces[p.scope] += 0.0 if p.ahead else max(p.count * p.flops / chip.peak_flops, moving)
    return sum(max(pieces[scope], memory[scope]) for scope in memory)


def communication_seconds(work: Work, chip: Chip) -> float:
    """Of all collectives, each on a ring along one axis of the torus."""
    return sum(wire_bytes(c) for c in work.collectives) / chip.ring_bandwidth


def wire_bytes(c: Collective) -> float:
    """What one chip passes on."""
    if c.kind == "collective-permute":
        return c.nbytes
    return WIRE[c.kind] * c.nbytes * (c.group - 1) / max(c.group, 1)


def summarise(collected: tuple[Collective, ...]) -> tuple[dict[str, Any], ...]:
    """Collectives of one kind and size of group together, those with the most bytes first."""
    totals: dict[tuple[str, int], list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for c in collected:
        totals[c.kind, c.group][0] += c.count
        totals[c.kind, c.group][1] += c.nbytes
    rows = [{"kind": k, "group": n, "count": v[0], "bytes": v[1]} for (k, n), v in totals.items()]
    return tuple(sorted(rows, key=lambda row: -row["bytes"]))
