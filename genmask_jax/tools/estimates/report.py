"""Prints estimates as tables."""

from rich.table import Table

from genmask_jax.tools.estimates.estimate import Estimate
from genmask_jax.tools.estimates.search import Candidate
from genmask_jax.utils.console import console


def verdict(found: Estimate) -> str:
    """A short text about an estimate."""
    used = f"{found.hbm_bytes_per_device / 2**30:.2f} of {found.hbm_limit_bytes / 2**30:.0f} GiB"
    if not found.fits:
        return f"does not fit, {used}"
    return f"{used}, {found.estimated_step_seconds:.3f} s, MFU {_mfu(found)}"


def _mfu(found: Estimate) -> str:
    """MFU of the trained networks, if there are any, and of all networks."""
    mfu = found.estimated_mfu
    trained = "" if mfu.trained is None else f"{100 * mfu.trained:.0f} % trained, "
    return f"{trained}{100 * mfu.every:.0f} % all networks"


def print_search(title: str, found: list[Candidate]) -> None:
    """Prints one row per mesh, in the given order."""
    table = Table(title=f"{title}: best first")
    for column in ("mesh and remat", ""):
        table.add_column(column)
    for one in found:
        table.add_row(one.name, verdict(one.estimate))
    console().print(table)


def print_estimate(title: str, found: Estimate, count: int) -> None:
    """Prints an estimate for each of `count` devices, and what to change if it does not fit."""
    table = Table(title=f"{title}: {count} devices")
    table.add_column("per device")
    table.add_column("", justify="right")
    limit, reserved = found.hbm_limit_bytes, found.reserved_bytes_per_device
    room = 100 * (1 - (found.hbm_bytes_per_device + reserved) / limit)
    table.add_row("HBM", f"{found.hbm_bytes_per_device / 2**30:.2f} of {limit / 2**30:.0f} GiB")
    if reserved:
        table.add_row("allowance for CUDA context and fragmentation", f"{reserved / 2**30:.2f} GiB")
    table.add_row("fits", f"yes, {room:.0f} % free" if found.fits else f"no, {-room:.0f} % too much")
    if found.fits:
        flops = found.model_flops_per_device
        if flops.trained is not None:
            table.add_row("model FLOPs of the trained networks", f"{flops.trained / 1e12:.1f} TFLOP")
        table.add_row("model FLOPs of all networks", f"{flops.every / 1e12:.1f} TFLOP")
        table.add_row("FLOPs of the compiled program", f"{found.flops_per_device / 1e12:.1f} TFLOP")
        table.add_row("HBM traffic", f"{found.bytes_accessed_per_device / 1e9:.0f} GB")
        for row in found.collectives[:6]:
            name = f"{row['kind']} over {row['group']} devices, {row['count']:.0f} times"
            table.add_row(name, f"{row['bytes'] / 1e9:.2f} GB")
        table.add_row("compute, at peak FLOP/s or HBM bandwidth", f"{found.compute_seconds:.3f} s")
        table.add_row("communication", f"{found.communication_seconds:.3f} s")
        table.add_row("estimated time", f"{found.estimated_step_seconds:.3f} s")
        table.add_row("estimated MFU", _mfu(found))
    table.add_row("compile time", f"{found.compile_seconds:.0f} s")
    console().print(table)
    if not found.fits:
        print(
            "to make it fit: a smaller config.loop.global_batch_size, grad_accumulation_steps above 1, "
            "config.model.remat=all, or a larger config.mesh.fsdp"
        )
