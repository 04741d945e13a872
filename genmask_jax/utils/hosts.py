"""Several hosts: connecting them, waiting for all of them, and gathering what each of them has.

A host is a JAX process: a worker of a TPU slice, a SLURM task, or one of several processes on one machine.
"""

import ctypes
import functools
import itertools
import json
import signal
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags, logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genmask_jax.utils.errors import UserError

_asked = itertools.count(1)
"""Numbers of the calls of `reached_stop`; JAX's service needs every number to follow the last."""


def connect() -> None:
    """Connects the processes given by the flags, or else by the environment; if neither, there is only one.

    JAX recognises TPU slices, SLURM and Open MPI by their environment. Call this before the first array is
    made.

    Raises:
        UserError: only some of the flags are given, or the processes cannot connect.
    """
    given = {name: flags.FLAGS[name].value for name in ("coordinator", "num_processes", "process_id")}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < 3:
        raise UserError(
            f"--{missing[0]} is missing; --coordinator, --num_processes, --process_id go together"
        )
    who = "the environment" if missing else f"--coordinator={given['coordinator']}"
    try:
        if missing:
            jax.distributed.initialize()
        else:
            address, count, index = given.values()
            jax.distributed.initialize(address, count, index)
    except (ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        if missing and "coordinator_address should be defined" in line:
            return  # a single process
        raise UserError(f"cannot connect to the processes given by {who}: {line}") from error
    logging.info("process %d of %d", jax.process_index(), jax.process_count())


def is_first() -> bool:
    """Whether this is the host that writes logs, tables and images."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Waits until all hosts have called this; `name` identifies the call."""
    multihost_utils.sync_global_devices(name)


def any_host(flag: bool) -> bool:
    """Whether `flag` is true on any host; all hosts must call this."""
    return bool(flag) if jax.process_count() == 1 else bool(_all(np.asarray(flag)).any())


def reached_stop() -> bool:
    """Whether a host has been asked to stop and all hosts agreed to stop here; all must call this."""
    return multihost_utils.reached_preemption_sync_point(next(_asked))


@functools.cache
def preemption_notice() -> Callable[[], object]:
    """A function that tells JAX's preemption service that this host has been asked to stop.

    The service waits for SIGTERM with a handler in C, whose place a handler in Python takes. So this must be
    called before.
    """
    action = ctypes.create_string_buffer(1024)  # room for a struct sigaction, which begins with the handler
    ctypes.CDLL(None).sigaction(signal.SIGTERM, None, action)
    address = ctypes.c_void_p.from_buffer(action).value
    if address in (None, signal.SIG_IGN.value):
        raise RuntimeError("JAX's preemption service does not wait for SIGTERM")
    return functools.partial(ctypes.CFUNCTYPE(None, ctypes.c_int)(address), signal.SIGTERM)


def gather_rows(rows: dict[int, Any]) -> list[Any]:
    """Gathers every host's rows on every host, sorted by number and without duplicates.

    Args:
        rows: one JSON value per example, by its number.
    """
    if jax.process_count() > 1:
        text = np.frombuffer(json.dumps(list(rows.items())).encode(), np.uint8)
        length = _all(np.asarray(len(text)))
        padded = np.zeros(length.max(), np.uint8)
        padded[: len(text)] = text
        parts = zip(_all(padded), length, strict=True)
        rows = {number: row for part, n in parts for number, row in json.loads(part[:n].tobytes())}
    return [rows[number] for number in sorted(rows)]


def gather_arrays(x: np.ndarray) -> np.ndarray:
    """Combines the hosts' arrays, which have one shape and are 0 where a host has no value, into one."""
    if jax.process_count() == 1:
        return x
    one_each = {device.process_index: device for device in reversed(jax.devices())}
    mesh = Mesh(np.array([one_each[i] for i in sorted(one_each)]), ("host",))
    together = jax.make_array_from_process_local_data(
        NamedSharding(mesh, P("host")), x.astype(np.float32)[None]
    )
    largest = jax.jit(lambda x: x.max(0), out_shardings=NamedSharding(mesh, P()))(together)
    return np.asarray(largest.addressable_data(0)).astype(x.dtype)


def on_every_host(tree: Any) -> Any:
    """Arrays that may be sharded over the hosts, whole on each host; as NumPy arrays if there are several."""
    return tree if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)


def _all(x: np.ndarray) -> np.ndarray:
    """Every host's array, stacked along a new first axis."""
    return np.asarray(multihost_utils.process_allgather(x)).reshape(jax.process_count(), *x.shape)
