"""Seconds per training step, ours and a peer's, in turns, so that drift affects both alike."""

import copy
import functools
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from rich.table import Table

from genmask_jax.models.dit import DiT
from genmask_jax.tools.benchmarks import diffusers_peer
from genmask_jax.tools.benchmarks.timing import (
    caption,
    circumstances,
    matmul_peak,
    peak_memory,
    products,
    seconds,
)
from genmask_jax.tools.benchmarks.workload import Workload, make_ours, our_attention
from genmask_jax.utils.console import console

WARMUP, STEPS = 2, 3
COMPILED = "diffusers, torch.compile"


def measure(workload: Workload, *, peer: str | None, rounds: int) -> dict:
    """Runs the benchmark, prints a table and a last line of JSON.

    Args:
        workload: the step to measure.
        peer: "diffusers", or None for only ours.
        rounds: number of rounds of STEPS steps each.

    Returns:
        The entries of the JSON line.
    """
    makers: dict[str, Callable[[], Callable[[], float]]] = {}
    attention = {"ours": our_attention(workload)}
    if peer:
        torch, _ = diffusers_peer.load()
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        model = diffusers_peer.make_model(workload)
        makers["ours"] = lambda: make_ours(workload, diffusers_peer.our_params(model, workload))
        for name, compiled in (("diffusers", False), (COMPILED, True)):
            makers[name] = functools.partial(_make_peer, model, workload, compiled=compiled)
    else:
        fresh = jax.jit(lambda: nnx.state(DiT(workload.model, rngs=nnx.Rngs(0))))
        makers["ours"] = lambda: make_ours(workload, fresh())
    runs, losses, failed, first, memory = {}, {}, {}, {}, {}
    for name, make in makers.items():
        held = diffusers_peer.DeviceMemory() if name != "ours" else None
        try:
            run = make()
            began = time.perf_counter()
            losses[name] = [run()]
            first[name] = time.perf_counter() - began
            losses[name] += [run() for _ in range(WARMUP - 1)]
        except Exception as error:  # torch.compile needs a C++ compiler and does not work everywhere
            if name != COMPILED:
                raise
            failed[name] = type(error).__name__
            continue
        runs[name] = run
        memory[name] = held.peak() if held else peak_memory().get("peak_device_bytes")
        if held and name != COMPILED:
            attention[name] = diffusers_peer.attention_kernels(run)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    peaks = [matmul_peak(workload.dtype)]
    for _ in range(rounds):
        for name, run in runs.items():
            run()  # warm-up: the previous implementation leaves caches and spinning threads
            taken[name] += seconds(run, STEPS)
        peaks.append(matmul_peak(workload.dtype))
    found = {"first": first, "losses": losses, "failed": failed, "memory": memory, "attention": attention}
    return _report(workload, taken, max(peaks), **found)


def _make_peer(model: Any, workload: Workload, *, compiled: bool) -> Callable[[], float]:
    return diffusers_peer.make_peer(copy.deepcopy(model), workload, compiled=compiled)


def _report(
    workload: Workload,
    taken: dict[str, list[float]],
    peak: float,
    *,
    first: dict[str, float],
    losses: dict[str, list[float]],
    failed: dict[str, str],
    memory: dict[str, int | None],
    attention: dict[str, str],
) -> dict:
    medians = {name: statistics.median(values) for name, values in taken.items()}
    table = Table(title=_title(workload))
    columns = ("s/step", "range", "first step", "samples/s", "GFLOP/s", "MFU", "device memory", "loss")
    for column in ("", *columns):
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
            "-" if (held := memory[name]) is None else f"{held / 2**30:.2f} GiB",
            f"{losses[name][-1]:.6f}",
        )
    for name, why in failed.items():
        table.add_row(name, f"failed: {why}")
    about = circumstances()
    table.caption = "\n".join(
        (
            f"MFU: the DiT's forward and backward pass, without recomputation, relative to a square matrix "
            f"product, {peak / 1e9:.0f} GFLOP/s",
            f"float32 weights and AdamW, {products(workload.dtype)} products",
            "attention: " + "; ".join(f"{name}: {kernels}" for name, kernels in attention.items()),
            caption(about),
        )
    )
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
        "seconds": medians,
        "first_seconds": first,
        "device_bytes": memory,
        "attention": attention,
        "failed": failed,
        "dtype": workload.dtype,
        "products": products(workload.dtype),
        **about,
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
