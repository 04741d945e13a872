"""Seconds per training step, ours and a peer's, in turns: the machine's speed drifts, the ratio does not."""

import copy
import json
import os
import statistics
import time

import jax
from flax import nnx
from rich.table import Table

from genmask_jax.benchmarks import diffusers_peer
from genmask_jax.benchmarks.timing import matmul_peak, peak_memory, seconds
from genmask_jax.benchmarks.workload import Workload, make_ours
from genmask_jax.console import console
from genmask_jax.models.dit import DiT

WARMUP, STEPS = 2, 3
COMPILED = "diffusers, torch.compile"


def measure(workload: Workload, *, peer: str | None, rounds: int) -> dict:
    """Runs the benchmark, prints a table and, last, one line of JSON.

    Args:
        workload: the step to measure.
        peer: "diffusers", or None for ours alone.
        rounds: number of turns of STEPS steps each.

    Returns:
        The entries of the JSON line.
    """
    runs, losses = {}, {}
    if peer:
        torch, _ = diffusers_peer.load()
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        model = diffusers_peer.make_model(workload)
        runs["ours"] = make_ours(workload, diffusers_peer.our_params(model, workload))
        for name, compiled in (("diffusers", False), (COMPILED, True)):
            runs[name] = diffusers_peer.make_peer(copy.deepcopy(model), workload, compiled=compiled)
    else:
        fresh = jax.jit(lambda: nnx.state(DiT(workload.model, rngs=nnx.Rngs(0))))
        runs["ours"] = make_ours(workload, fresh())
    failed, first = {}, {}
    for name, run in list(runs.items()):
        try:
            began = time.perf_counter()
            losses[name] = [run()]
            first[name] = time.perf_counter() - began
            losses[name] += [run() for _ in range(WARMUP - 1)]
        except Exception as error:  # torch.compile needs a C++ compiler, and does not work everywhere
            if name != COMPILED:
                raise
            failed[name] = type(error).__name__
            del runs[name]
    taken: dict[str, list[float]] = {name: [] for name in runs}
    peaks = [matmul_peak(workload.dtype)]
    for _ in range(rounds):
        for name, run in runs.items():
            run()  # warm-up: the previous one leaves its caches, and threads that still spin
            taken[name] += seconds(run, STEPS)
        peaks.append(matmul_peak(workload.dtype))
    return _report(workload, taken, first, losses, failed, max(peaks))


def _report(workload: Workload, taken: dict, first: dict, losses: dict, failed: dict, peak: float) -> dict:
    medians = {name: statistics.median(values) for name, values in taken.items()}
    table = Table(title=_title(workload))
    for column in ("", "s/step", "range", "first step", "samples/s", "GFLOP/s", "MFU", "loss"):
        table.add_column(column, justify="right" if column else "left")
    for name, values in taken.items():
        rate = workload.flops / medians[name]
        table.add_row(
            name,
            f"{medians[name]:.3f}",
            f"{min(values):.3f}-{max(values):.3f}",
            f"{first[name]:.1f}",
            f"{workload.batch_size / medians[name]:.2f}",
            f"{rate / 1e9:.0f}",
            f"{100 * rate / peak:.0f} %",
            f"{losses[name][-1]:.6f}",
        )
    for name, why in failed.items():
        table.add_row(name, f"failed: {why}")
    table.caption = f"MFU relative to the peak of a square matrix product, {peak / 1e9:.0f} GFLOP/s"
    console().print(table)
    peers = {name: value for name, value in medians.items() if name != "ours"}
    line = {
        "ours_seconds": medians["ours"],
        "ours_first_seconds": first["ours"],
        "peer_seconds": min(peers.values(), default=None),
        "ratio": medians["ours"] / min(peers.values()) if peers else None,
        "samples_per_second": workload.batch_size / medians["ours"],
        "gflops_per_second": workload.flops / medians["ours"] / 1e9,
        "matmul_peak_gflops_per_second": peak / 1e9,
        "share_of_peak": workload.flops / medians["ours"] / peak,
        **peak_memory(),
        "peer": min(peers, key=lambda name: peers[name], default=None),
        "dtype": workload.dtype,
        "device": jax.devices()[0].device_kind,
        "threads": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(line))
    return line


def _title(workload: Workload) -> str:
    m, b = workload.model, workload.batch_size
    return (
        f"{m.depth} layers of width {m.hidden_size}, batch {b}, {workload.frames} x "
        f"{workload.tokens // workload.frames} tokens, {workload.text_tokens} text tokens, {workload.dtype}"
    )
