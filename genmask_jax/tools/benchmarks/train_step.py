"""Measures seconds per training step of ours and of a peer, interleaved."""

import copy
import dataclasses
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
    describe_environment,
    matmul_peak,
    peak_memory,
    product_dtype,
    time_calls,
)
from genmask_jax.tools.benchmarks.workload import Workload, make_ours, our_attention
from genmask_jax.utils.console import console

WARMUP_STEPS, STEPS_PER_ROUND = 2, 3
COMPILED = "diffusers, torch.compile"


@dataclasses.dataclass
class Measurements:
    """Measurements by name of the implementation.

    seconds: seconds of each step, without warm-up.
    first: seconds of the first step, which includes compilation.
    losses: losses of the warm-up steps.
    failures: names of exceptions of implementations that failed.
    memory: peak bytes on the device; None if the device does not report them.
    attention: kernels of attention.
    peak: FLOP/s of a square matrix product.
    """

    seconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    first: dict[str, float] = dataclasses.field(default_factory=dict)
    losses: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    memory: dict[str, int | None] = dataclasses.field(default_factory=dict)
    attention: dict[str, str] = dataclasses.field(default_factory=dict)
    peak: float = 0.0

    def medians(self) -> dict[str, float]:
        """Median seconds per step."""
        return {name: statistics.median(values) for name, values in self.seconds.items()}


def measure(workload: Workload, *, peer: str | None, rounds: int) -> dict:
    """Runs the benchmark; prints a table, then a line of JSON.

    Args:
        workload: the step to measure.
        peer: "diffusers", or None for only ours.
        rounds: number of rounds of STEPS_PER_ROUND steps each.

    Returns:
        The entries of the JSON line.
    """
    measurements = Measurements(attention={"ours": our_attention(workload)})
    makers = _make_implementations(workload, peer)
    runs = {}
    for name, make in makers.items():
        run = _warm_up(name, make, measurements)
        if run is not None:
            runs[name] = run
    measurements.seconds = {name: [] for name in runs}
    peaks = [matmul_peak(workload.dtype)]
    for _ in range(rounds):
        for name, run in runs.items():
            run()  # warm-up: the previous implementation leaves caches and spinning threads
            measurements.seconds[name] += time_calls(run, STEPS_PER_ROUND)
        peaks.append(matmul_peak(workload.dtype))
    measurements.peak = max(peaks)
    environment = describe_environment()
    _print_table(workload, measurements, environment)
    results = _results(workload, measurements, environment)
    print(json.dumps(results))
    return results


def _make_implementations(
    workload: Workload, peer: str | None
) -> dict[str, Callable[[], Callable[[], float]]]:
    """Functions that make the function of one step, by name of the implementation."""
    if not peer:
        init = jax.jit(lambda: nnx.state(DiT(workload.model, rngs=nnx.Rngs(0))))
        return {"ours": lambda: make_ours(workload, init())}
    torch, _ = diffusers_peer.load()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = diffusers_peer.make_model(workload)
    return {
        "ours": lambda: make_ours(workload, diffusers_peer.our_params(model, workload)),
        "diffusers": functools.partial(_make_peer, model, workload, compiled=False),
        COMPILED: functools.partial(_make_peer, model, workload, compiled=True),
    }


def _make_peer(model: Any, workload: Workload, *, compiled: bool) -> Callable[[], float]:
    return diffusers_peer.make_peer(copy.deepcopy(model), workload, compiled=compiled)


def _warm_up(
    name: str, make: Callable[[], Callable[[], float]], measurements: Measurements
) -> Callable[[], float] | None:
    """Makes an implementation and runs its first steps; returns None if it fails."""
    device_memory = diffusers_peer.DeviceMemory() if name != "ours" else None
    try:
        run = make()
        start = time.perf_counter()
        measurements.losses[name] = [run()]
        measurements.first[name] = time.perf_counter() - start
        measurements.losses[name] += [run() for _ in range(WARMUP_STEPS - 1)]
    except Exception as error:  # torch.compile needs a C++ compiler and does not work everywhere
        if name != COMPILED:
            raise
        measurements.failures[name] = type(error).__name__
        return None
    measurements.memory[name] = (
        device_memory.peak() if device_memory else peak_memory().get("peak_device_bytes")
    )
    if device_memory and name != COMPILED:
        measurements.attention[name] = diffusers_peer.attention_kernels(run)
    return run


def _print_table(workload: Workload, measurements: Measurements, environment: dict[str, Any]) -> None:
    table = Table(title=_title(workload))
    columns = ("s/step", "range", "first step", "samples/s", "GFLOP/s", "MFU", "device memory", "loss")
    for column in ("", *columns):
        table.add_column(column, justify="right" if column else "left")
    for name, median in measurements.medians().items():
        rate, memory = workload.flops / median, measurements.memory[name]
        table.add_row(
            name,
            f"{median:.3f}",
            f"{min(measurements.seconds[name]):.3f}-{max(measurements.seconds[name]):.3f}",
            f"{measurements.first[name]:.1f}",
            f"{workload.batch_size / median:.2f}",
            f"{rate / 1e9:.0f}",
            f"{100 * rate / measurements.peak:.0f} %",
            "-" if memory is None else f"{memory / 2**30:.2f} GiB",
            f"{measurements.losses[name][-1]:.6f}",
        )
    for name, error in measurements.failures.items():
        table.add_row(name, f"failed: {error}")
    table.caption = "\n".join(
        (
            f"MFU: the DiT's forward and backward pass, without recomputation, relative to a square matrix "
            f"product, {measurements.peak / 1e9:.0f} GFLOP/s",
            f"float32 weights and AdamW, {product_dtype(workload.dtype)} products",
            "attention: "
            + "; ".join(f"{name}: {kernels}" for name, kernels in measurements.attention.items()),
            caption(environment),
        )
    )
    console().print(table)


def _results(workload: Workload, measurements: Measurements, environment: dict[str, Any]) -> dict[str, Any]:
    """The entries of the JSON line."""
    medians = measurements.medians()
    peers = {name: value for name, value in medians.items() if name != "ours"}
    return {
        "ours_seconds": medians["ours"],
        "ours_first_seconds": measurements.first["ours"],
        "peer_seconds": min(peers.values(), default=None),
        "ratio": medians["ours"] / min(peers.values()) if peers else None,
        "samples_per_second": workload.batch_size / medians["ours"],
        "gflops_per_second": workload.flops / medians["ours"] / 1e9,
        "matmul_peak_gflops_per_second": measurements.peak / 1e9,
        "share_of_peak": workload.flops / medians["ours"] / measurements.peak,
        **peak_memory(),
        "peer": min(peers, key=lambda name: peers[name], default=None),
        "seconds": medians,
        "first_seconds": measurements.first,
        "device_bytes": measurements.memory,
        "attention": measurements.attention,
        "failed": measurements.failures,
        "dtype": workload.dtype,
        "products": product_dtype(workload.dtype),
        **environment,
        "threads": len(os.sched_getaffinity(0)),
    }


def _title(workload: Workload) -> str:
    m, b = workload.model, workload.batch_size
    return (
        f"{m.depth} layers of width {m.hidden_size}, batch {b}, {workload.frames} x "
        f"{workload.tokens // workload.frames} tokens, {workload.text_tokens} text tokens, {workload.dtype}"
    )
