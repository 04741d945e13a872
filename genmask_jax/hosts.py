"""Several hosts: how they find one another, wait for one another, and bring together what each has.

A host is a JAX process: a worker of a TPU slice, a task of SLURM, or one of several processes on one machine.
"""

import json
from typing import Any

import jax
import numpy as np
from absl import flags, logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genmask_jax.errors import UserError


def define_flags() -> None:
    """Flags that say who is who; only where neither a TPU slice nor SLURM says so."""
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where processes are started by hand.")
    flags.DEFINE_integer("num_processes", None, "How many processes there are.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Which of them this is.", lower_bound=0)


def connect() -> None:
    """Joins the processes of a run: those of the flags, else of the environment; alone where there are none.

    JAX itself knows TPU slices, SLURM and Open MPI by their environment. To be called before the first array
    is made.

    Raises:
        UserError: some of the flags are given and others are not, or the processes do not meet.
    """
    given = {name: flags.FLAGS[name].value for name in ("coordinator", "num_processes", "process_id")}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < 3:
        raise UserError(
            f"--{missing[0]} is missing; --coordinator, --num_processes, --process_id go together"
        )
    who = "the environment" if missing else f"--coordinator={given['coordinator']}"
    try:
        jax.distributed.initialize(*(() if missing else given.values()))
    except (ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        if missing and "coordinator_address should be defined" in line:
            return  # nobody says that there are others
        raise UserError(f"the processes that {who} speaks of do not meet: {line}") from error
    logging.info("process %d of %d", jax.process_index(), jax.process_count())


def is_first() -> bool:
    """Whether this is the host that writes logs, tables and images."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Returns once all hosts are here; `name` says where that is."""
    multihost_utils.sync_global_devices(name)


def any_host(flag: bool) -> bool:
    """Whether it is true on one of the hosts; all of them must ask."""
    return bool(flag) if jax.process_count() == 1 else bool(_all(np.asarray(flag)).any())


def reached_stop(step: int) -> bool:
    """Whether a host has been asked to stop (SIGTERM) and this is the step that all agreed on."""
    return multihost_utils.reached_preemption_sync_point(step)


def gather_rows(rows: dict[int, Any]) -> list[Any]:
    """Every host's rows, in the order of their numbers, each number once, on every host.

    Args:
        rows: what JSON can say of each example, by its number.
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
    """One array from every host's, alike in shape, whose elements are 0 but on hosts that have them."""
    if jax.process_count() == 1:
        return x
    one_each = {device.process_index: device for device in reversed(jax.devices())}
    mesh = Mesh(np.array([one_each[i] for i in sorted(one_each)]), ("host",))
    together = jax.make_array_from_process_local_data(NamedSharding(mesh, P("host")), np.float32(x)[None])
    largest = jax.jit(lambda x: x.max(0), out_shardings=NamedSharding(mesh, P()))(together)
    return np.asarray(largest.addressable_data(0)).astype(x.dtype)


def on_every_host(tree: Any) -> Any:
    """Arrays that may be divided over the hosts, whole on each of them; NumPy's where there are several."""
    return tree if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)


def _all(x: np.ndarray) -> np.ndarray:
    """Every host's, one below the other."""
    return np.asarray(multihost_utils.process_allgather(x)).reshape(jax.process_count(), *x.shape)
