"""Several hosts: connecting and synchronising them, and gathering their data.

A host is a JAX process: a worker of a TPU slice, a SLURM task, or one of several processes on a machine.
"""

import ctypes
import functools
import itertools
import json
import re
import signal
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags, logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genmask_jax.utils.errors import Stopped, UserError, first_line

LOST = re.compile(
    r"Gloo|NCCL|heartbeat|coordination|UNAVAILABLE|DEADLINE_EXCEEDED|Connection (reset|closed|refused)"
)
"""Matches the errors of collectives, and of JAX's coordination service, if another host is gone."""
_sync_ids = itertools.count(1)
"""Numbers of the calls of `reached_stop`; JAX's preemption service needs consecutive ones."""


def connect() -> None:
    """Connects the processes that the flags or else the environment describe; does nothing for a single one.

    JAX recognises TPU slices, SLURM and Open MPI by their environment. Call this before creating arrays.

    Raises:
        UserError: only some of the flags are given, or the processes cannot connect.
    """
    values = {name: flags.FLAGS[name].value for name in ("coordinator", "num_processes", "process_id")}
    missing = [name for name, value in values.items() if value is None]
    if 0 < len(missing) < 3:
        raise UserError(
            f"--{missing[0]} is missing; --coordinator, --num_processes, --process_id go together"
        )
    source = "the environment" if missing else f"--coordinator={values['coordinator']}"
    try:
        if missing:
            jax.distributed.initialize()
        else:
            address, count, index = values.values()
            jax.distributed.initialize(address, count, index)
    except (ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        if missing and "coordinator_address should be defined" in line:
            return  # a single process
        raise UserError(f"cannot connect to the processes given by {source}: {line}") from error
    logging.info("process %d of %d", jax.process_index(), jax.process_count())


def naming_lost_hosts(main: Callable[[], None]) -> Callable[[], None]:
    """Returns `main`, which ends with one line if another host ended or does not answer.

    On GPUs and CPUs, a collective fails at once if a host is dead. Otherwise, JAX's coordination service
    misses the heartbeats of a host after 100 s, and ends the process itself.
    """

    def named() -> None:
        try:
            main()
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1 or not LOST.search(str(error)):
                raise
            logging.error(
                "another host ended or does not answer (%s); start the command again on all hosts, trainings "
                "with --resume",
                first_line(error),
            )
            raise Stopped(1) from error  # a normal exit would wait for the other host

    return named


def is_first() -> bool:
    """Whether this host writes logs, tables and images."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Blocks until all hosts have called this with the same `name`."""
    multihost_utils.sync_global_devices(name)


def any_host(flag: bool) -> bool:
    """Whether `flag` is true on any host; all hosts must call this."""
    return bool(flag) if jax.process_count() == 1 else bool(_allgather(np.asarray(flag)).any())


def reached_stop() -> bool:
    """Whether a host was asked to stop and all hosts have agreed to stop now; all hosts must call this."""
    return multihost_utils.reached_preemption_sync_point(next(_sync_ids))


@functools.cache
def preemption_notice() -> Callable[[], object]:
    """Returns a function that tells JAX's preemption service that this host was asked to stop.

    The service installs a C handler for SIGTERM, which a Python handler replaces. Call this before installing
    one.
    """
    action = ctypes.create_string_buffer(
        1024
    )  # large enough for a struct sigaction, whose first field is the handler
    ctypes.CDLL(None).sigaction(signal.SIGTERM, None, action)
    address = ctypes.c_void_p.from_buffer(action).value
    if address in (None, signal.SIG_IGN.value):
        raise RuntimeError("JAX's preemption service does not handle SIGTERM")
    return functools.partial(ctypes.CFUNCTYPE(None, ctypes.c_int)(address), signal.SIGTERM)


def gather_rows(rows: dict[int, Any]) -> list[Any]:
    """Gathers the rows of all hosts on each host, sorted by example and without duplicates.

    Args:
        rows: JSON values by number of the example.
    """
    if jax.process_count() > 1:
        text = np.frombuffer(json.dumps(list(rows.items())).encode(), np.uint8)
        length = _allgather(np.asarray(len(text)))
        padded = np.zeros(length.max(), np.uint8)
        padded[: len(text)] = text
        parts = zip(_allgather(padded), length, strict=True)
        rows = {number: row for part, n in parts for number, row in json.loads(part[:n].tobytes())}
    return [rows[number] for number in sorted(rows)]


def gather_arrays(x: np.ndarray) -> np.ndarray:
    """The elementwise maximum of the hosts' arrays, which have the same shape and 0 for missing values."""
    if jax.process_count() == 1:
        return x
    first_devices = {device.process_index: device for device in reversed(jax.devices())}
    mesh = Mesh(np.array([first_devices[i] for i in sorted(first_devices)]), ("host",))
    stacked = jax.make_array_from_process_local_data(
        NamedSharding(mesh, P("host")), x.astype(np.float32)[None]
    )
    maximum = jax.jit(lambda x: x.max(0), out_shardings=NamedSharding(mesh, P()))(stacked)
    return np.asarray(maximum.addressable_data(0)).astype(x.dtype)


def on_every_host(tree: Any) -> Any:
    """Gathers arrays that may be sharded over hosts; returns NumPy arrays if there are several hosts."""
    return tree if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)


def _allgather(x: np.ndarray) -> np.ndarray:
    """The arrays of all hosts, stacked along a new first axis."""
    return np.asarray(multihost_utils.process_allgather(x)).reshape(jax.process_count(), *x.shape)
