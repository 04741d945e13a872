"""Sessions of a run: command, machine and versions, one line of sessions.jsonl for each start."""

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from typing import Any

import jax
from etils import epath

from genmask_jax.evaluation.scoring import describe_version
from genmask_jax.utils.paths import write_text

FILE = "sessions.jsonl"
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy")


def add_session(workdir: epath.Path, step: int) -> None:
    """Adds a line for this process, which continues from `step`."""
    path = workdir / FILE
    before = path.read_text().splitlines() if path.exists() else []
    write_text(path, "".join(f"{line}\n" for line in [*before, json.dumps(describe(step))]))


def describe(step: int) -> dict[str, Any]:
    """The fields of the line."""
    devices = jax.devices()
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "step": step,
        "command": shlex.join([os.path.basename(sys.executable), *sys.argv]),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": jax.process_count(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {"genmask-jax": describe_version()} | {name: _version(name) for name in LIBRARIES},
    }


def _processor() -> str:
    try:
        lines = epath.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
