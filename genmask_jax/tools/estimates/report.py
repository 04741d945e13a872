"""Prints estimates as tables."""

from rich.table import Table

from genmask_jax.tools.estimates.estimate import Estimate
from genmask_jax.tools.estimates.search import Candidate
from genmask_jax.utils.console import console


def summarise_estimate(estimate: Estimate) -> str:
    """One line about an estimate."""
    used = f"{estimate.hbm_bytes_per_device / 2**30:.2f} of {estimate.hbm_limit_bytes / 2**30:.0f} GiB"
    if not estimate.fits:
        return f"does not fit, {used}"
    return f"{used}, {estimate.estimated_step_seconds:.3f} s, MFU {_mfu(estimate)}"


def _mfu(estimate: Estimate) -> str:
    """MFU of the trained networks, if any, and of all networks."""
    mfu = estimate.estimated_mfu
    trained = "" if mfu.trained is None else f"{100 * mfu.trained:.0f} % trained, "
    return f"{trained}{100 * mfu.every:.0f} % all networks"


def print_search(title: str, candidates: list[Candidate]) -> None:
    """Prints one row per candidate, in the given order."""
    table = Table(title=f"{title}: best first")
    for column in ("mesh and remat", ""):
        table.add_column(column)
    for candidate in candidates:
        table.add_row(candidate.name, summarise_estimate(candidate.estimate))
    console().print(table)


def print_estimate(title: str, estimate: Estimate, count: int) -> None:
    """Prints an estimate for each of `count` devices, and what to change if it does not fit."""
    table = Table(title=f"{title}: {count} devices")
    table.add_column("per device")
    table.add_column("", justify="right")
    limit, reserved = estimate.hbm_limit_bytes, estimate.reserved_bytes_per_device
    free_percent = 100 * (1 - (estimate.hbm_bytes_per_device + reserved) / limit)
    table.add_row("HBM", f"{estimate.hbm_bytes_per_device / 2**30:.2f} of {limit / 2**30:.0f} GiB")
    if reserved:
        table.add_row("allowance for CUDA context and fragmentation", f"{reserved / 2**30:.2f} GiB")
    table.add_row(
        "fits", f"yes, {free_percent:.0f} % free" if estimate.fits else f"no, {-free_percent:.0f} % too much"
    )
    if estimate.fits:
        flops = estimate.model_flops_per_device
        if flops.trained is not None:
            table.add_row("model FLOPs of the trained networks", f"{flops.trained / 1e12:.1f} TFLOP")
        table.add_row("model FLOPs of all networks", f"{flops.every / 1e12:.1f} TFLOP")
        table.add_row("FLOPs of the compiled program", f"{estimate.flops_per_device / 1e12:.1f} TFLOP")
        table.add_row("HBM traffic", f"{estimate.bytes_accessed_per_device / 1e9:.0f} GB")
        for row in estimate.collectives[:6]:
            name = f"{row['kind']} over {row['group']} devices, {row['count']:.0f} times"
            table.add_row(name, f"{row['bytes'] / 1e9:.2f} GB")
        table.add_row("compute, at peak FLOP/s or HBM bandwidth", f"{estimate.compute_seconds:.3f} s")
        table.add_row("communication", f"{estimate.communication_seconds:.3f} s")
        table.add_row("estimated time", f"{estimate.estimated_step_seconds:.3f} s")
        table.add_row("estimated MFU", _mfu(estimate))
    table.add_row("compile time", f"{estimate.compile_seconds:.0f} s")
    console().print(table)
    if not estimate.fits:
        print(
            "to reduce memory: a smaller config.loop.global_batch_size, a larger grad_accumulation_steps, "
            "config.model.remat=all, or a larger config.mesh.fsdp"
        )
