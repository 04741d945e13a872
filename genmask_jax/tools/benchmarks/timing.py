"""Shared by the benchmarks: timing in turns, measured peak FLOP/s, memory, and the table of stages."""

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

MATMUL = 2048
"""Side of the square matrices of the product that measures peak FLOP/s; 4 times larger on accelerators."""

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
"""Functions that run a stage to completion, by name of the stage."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of the first call, which compiles, and of all later calls."""

    first: float
    later: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.later)


def seconds(function: Callable[[], object], count: int) -> list[float]:
    """Seconds of each of `count` calls."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return taken


def time_in_turns(runs: Stages, repeats: int) -> dict[str, Timing]:
    """Times the functions in turns, so that drift of the machine's speed affects all alike."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            taken[name] += seconds(run, 1)
    return {name: Timing(first, tuple(later)) for name, (first, *later) in taken.items()}


def matmul_peak(dtype: Any = jnp.float32) -> float:
    """FLOP/s of a square matrix product, the best of ten."""
    side = MATMUL if jax.default_backend() == "cpu" else 4 * MATMUL
    x = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(x, x))
    return 2 * side**3 / min(seconds(lambda: jax.block_until_ready(product(x, x)), 10))


def products(dtype: str) -> str:
    """Dtype of products at JAX's default precision; NVIDIA cards since Ampere use TF32 for float32."""
    capability = getattr(jax.devices()[0], "compute_capability", None)
    return "TF32" if dtype == "float32" and capability and float(capability) >= 8 else dtype


def peak_memory() -> dict[str, int]:
    """Peak bytes of the process, and of its first device if it reports them."""
    peak = {"peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    device = jax.local_devices()[0].memory_stats() or {}
    return peak | (
        {"peak_device_bytes": device["peak_bytes_in_use"]} if "peak_bytes_in_use" in device else {}
    )


def circumstances() -> dict[str, Any]:
    """Circumstances of a measurement: command, date, device, driver, versions of packages."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    driver = None
    if jax.default_backend() == "gpu" and shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True).stdout.partition("\n")[0] or None
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": jax.devices()[0].device_kind,
        "driver": driver,
        "versions": versions,
    }


def caption(said: dict[str, Any]) -> str:
    """The `circumstances` in one line, for a table."""
    driver = [f"driver {said['driver']}"] if said["driver"] else []
    versions = [f"{name} {version}" for name, version in said["versions"].items()]
    return ", ".join([said["device"], *driver, *versions, said["date"]])


def report_stages(
    title: str, columns: dict[str, Stages], repeats: int, said: dict[str, Any]
) -> dict[str, Any]:
    """Times our stages and a peer's, in the same order; prints a table and a last line of JSON.

    Args:
        title: title of the table.
        columns: stages by implementation; a peer may have only the first ones.
        repeats: calls of each stage after the first.
        said: further entries of the JSON line.

    Returns:
        The entries of the JSON line: medians and first calls by implementation and stage, memory,
        circumstances, and `said`.
    """
    table = Table(title=title)
    for column in ("", *(f"{who}{part}" for who in columns for part in ("", ": range", ": first call"))):
        table.add_column(column, justify="right" if column else "left")
    medians: dict[str, dict[str, float]] = {who: {} for who in columns}
    first: dict[str, dict[str, float]] = {who: {} for who in columns}
    names = list(next(iter(columns.values())))
    for i, name in enumerate(names):
        runs = {who: list(stages.values())[i] for who, stages in columns.items() if i < len(stages)}
        cells = []
        for who, timing in time_in_turns(runs, repeats).items():
            medians[who][name], first[who][name] = timing.median, timing.first
            spread = f"{min(timing.later):.4f}-{max(timing.later):.4f}"
            cells += [f"{timing.median:.4f} s", spread, f"{timing.first:.2f}"]
        table.add_row(name, *cells)
    memory = peak_memory()
    for name, value in memory.items():
        table.add_row(name.replace("_", " ").removesuffix(" bytes") + " memory", f"{value / 2**30:.2f} GiB")
    about = circumstances()
    table.caption = caption(about)
    console().print(table)
    line = {"seconds": medians, "first_call_seconds": first, **memory, **about, **said}
    print(json.dumps(line))
    return line
