"""Seconds a training step, ours and a peer's, in turns: a machine's speed drifts, their ratio does not."""

import copy
import json
import os
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from rich.console import Console
from rich.table import Table

from genmask_jax.benchmarks import diffusers_peer
from genmask_jax.benchmarks.workload import Workload, make_ours
from genmask_jax.models.dit import DiT

MATMUL = 2048
WARMUP, STEPS = 2, 3
COMPILED = "diffusers, torch.compile"


def matmul_peak() -> float:
    """GFLOP/s of a square float32 matrix product, the best of ten."""
    x = jax.random.normal(jax.random.key(0), (MATMUL, MATMUL))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(x, x))
    return 2 * MATMUL**3 / min(_seconds(lambda: jax.block_until_ready(product(x, x)), 10)) / 1e9


def _seconds(function: Callable[[], object], count: int) -> list[float]:
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return taken


def measure(workload: Workload, *, peer: str | None, rounds: int) -> dict:
    """Runs the benchmark, prints a table, and last one line of JSON.

    Args:
        workload: what a step is.
        peer: "diffusers", or None for ours alone.
        rounds: how often each takes its turn of STEPS steps.

    Returns:
        What the line of JSON says.
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
    failed = {}
    for name, run in list(runs.items()):
        try:
            losses[name] = [run() for _ in range(WARMUP)]
        except Exception as error:  # torch.compile wants a C++ compiler, and does not work everywhere
            if name != COMPILED:
                raise
            failed[name] = type(error).__name__
            del runs[name]
    taken: dict[str, list[float]] = {name: [] for name in runs}
    peaks = [matmul_peak()]
    for _ in range(rounds):
        for name, run in runs.items():
            run()  # the one before leaves caches, and threads that still spin
            taken[name] += _seconds(run, STEPS)
        peaks.append(matmul_peak())
    return _report(workload, taken, losses, failed, max(peaks))


def _report(workload: Workload, taken: dict, losses: dict, failed: dict, peak: float) -> dict:
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    table = Table(title=_title(workload))
    for column in ("", "seconds a step", "fastest", "slowest", "GFLOP/s", "loss"):
        table.add_column(column, justify="right" if column else "left")
    for name, values in taken.items():
        rate = workload.flops / seconds[name] / 1e9
        numbers = (f"{x:.3f}" for x in (seconds[name], min(values), max(values)))
        table.add_row(name, *numbers, f"{rate:.0f}", f"{losses[name][-1]:.6f}")
    for name, why in failed.items():
        table.add_row(name, f"does not work here: {why}")
    table.add_row(f"{MATMUL} x {MATMUL} matrices", "", "", "", f"{peak:.0f}", "")
    Console().print(table)
    peers = {name: value for name, value in seconds.items() if name != "ours"}
    line = {
        "ours_seconds": seconds["ours"],
        "peer_seconds": min(peers.values(), default=None),
        "ratio": seconds["ours"] / min(peers.values()) if peers else None,
        "gflops_per_second": workload.flops / seconds["ours"] / 1e9,
        "matmul_peak_gflops_per_second": peak,
        "peer": min(peers, key=peers.get, default=None),
        "device": jax.devices()[0].device_kind,
        "threads": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(line))
    return line


def _title(workload: Workload) -> str:
    m, b = workload.model, workload.batch_size
    return (
        f"{m.depth} layers of {m.hidden_size}, batch {b}, {workload.frames} x "
        f"{workload.tokens // workload.frames} tokens, {workload.text_tokens} of text"
    )
