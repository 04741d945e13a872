"""Interleaved timing, measured peak FLOP/s, memory, and tables of stages, for all benchmarks."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from rich.table import Table

from genmask_jax.utils.console import console

MATMUL_SIZE = 2048
"""Side of the square matrices that measure peak FLOP/s on CPUs; 4 times larger on accelerators."""

PACKAGES = (
    "jax",
    "jaxlib",
    "jax-cuda12-plugin",
    "jax-cuda13-plugin",
    "libtpu",
    "torch",
    "diffusers",
    "transformers",
)

Stages = dict[str, Callable[[], Any]]
"""Functions that run a stage and wait for its results, by name of the stage."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of the first call, which includes compilation, and of the later calls."""

    first: float
    later: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.later)


def time_calls(function: Callable[[], object], count: int) -> list[float]:
    """Seconds of each of `count` calls."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return seconds


def time_interleaved(stages: Stages, repeats: int) -> dict[str, Timing]:
    """Times the stages in alternation, so that changes in the speed of the machine affect all equally."""
    times: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(repeats + 1):
        for name, run in stages.items():
            times[name] += time_calls(run, 1)
    return {name: Timing(first, tuple(later)) for name, (first, *later) in times.items()}


def matmul_peak(dtype: Any = jnp.float32) -> float:
    """FLOP/s of a square matrix product, the best of ten runs."""
    side = MATMUL_SIZE if jax.default_backend() == "cpu" else 4 * MATMUL_SIZE
    x = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(x, x))
    return 2 * side**3 / min(time_calls(lambda: jax.block_until_ready(product(x, x)), 10))


def product_dtype(dtype: str) -> str:
    """Dtype of matrix products at JAX's default precision: TF32 for float32 on NVIDIA GPUs since Ampere."""
    capability = getattr(jax.devices()[0], "compute_capability", None)
    return "TF32" if dtype == "float32" and capability and float(capability) >= 8 else dtype


def peak_memory() -> dict[str, int]:
    """Peak bytes of the process, and of its first device if it reports them."""
    peak = {"peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    device = jax.local_devices()[0].memory_stats() or {}
    return peak | (
        {"peak_device_bytes": device["peak_bytes_in_use"]} if "peak_bytes_in_use" in device else {}
    )


def describe_environment() -> dict[str, Any]:
    """Command, date, device, driver and package versions of a measurement."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    driver = None
    if jax.default_backend() == "gpu" and shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(command, capture_output=True, text=True).stdout.partition("\n")[0] or None
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": jax.devices()[0].device_kind,
        "driver": driver,
        "versions": versions,
    }


def caption(environment: dict[str, Any]) -> str:
    """One line about the result of `describe_environment`, for a table."""
    driver = [f"driver {environment['driver']}"] if environment["driver"] else []
    versions = [f"{name} {version}" for name, version in environment["versions"].items()]
    return ", ".join([environment["device"], *driver, *versions, environment["date"]])


def report_stages(
    title: str, columns: dict[str, Stages], repeats: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Times stages; prints a table, then a line of JSON, which it also returns.

    Args:
        title: title of the table.
        columns: stages by implementation, ours first; others may have only the first stages.
        repeats: number of calls of each stage after the first.
        options: further entries of the JSON line.

    Returns:
        The entries of the JSON line: medians and first calls by implementation and stage, memory,
        environment, and `options`.
    """
    table = Table(title=title)
    for column in (
        "",
        *(f"{column}{part}" for column in columns for part in ("", ": range", ": first call")),
    ):
        table.add_column(column, justify="right" if column else "left")
    medians: dict[str, dict[str, float]] = {column: {} for column in columns}
    first: dict[str, dict[str, float]] = {column: {} for column in columns}
    names = list(next(iter(columns.values())))
    for i, name in enumerate(names):
        runs = {column: list(stages.values())[i] for column, stages in columns.items() if i < len(stages)}
        cells = []
        for column, timing in time_interleaved(runs, repeats).items():
            medians[column][name], first[column][name] = timing.median, timing.first
            spread = f"{min(timing.later):.4f}-{max(timing.later):.4f}"
            cells += [f"{timing.median:.4f} s", spread, f"{timing.first:.2f}"]
        table.add_row(name, *cells)
    memory = peak_memory()
    for name, value in memory.items():
        table.add_row(name.replace("_", " ").removesuffix(" bytes") + " memory", f"{value / 2**30:.2f} GiB")
    environment = describe_environment()
    table.caption = caption(environment)
    console().print(table)
    results = {"seconds": medians, "first_call_seconds": first, **memory, **environment, **options}
    print(json.dumps(results))
    return results
