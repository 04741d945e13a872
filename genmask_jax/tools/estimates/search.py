"""Searches over meshes and gradient checkpointing policies of a run on a topology."""

import dataclasses
from collections.abc import Callable, Iterator

from genmask_jax.config import TrainConfig
from genmask_jax.models.layers import REMAT
from genmask_jax.tools.estimates.estimate import Estimate


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A config and its estimate."""

    config: TrainConfig
    estimate: Estimate

    @property
    def name(self) -> str:
        mesh = self.config.mesh
        return f"fsdp {mesh.fsdp}, tensor {mesh.tensor}, remat {self.config.model.remat}"


def meshes(config: TrainConfig, count: int, slices: int) -> Iterator[TrainConfig]:
    """Yields the config with every power of two for fsdp that divides a slice; tensor is unchanged."""
    per_slice, fsdp = count // slices, 1
    while fsdp * config.mesh.tensor <= per_slice:
        if per_slice % (fsdp * config.mesh.tensor) == 0:
            yield dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, data=-1, fsdp=fsdp))
        fsdp *= 2


def search(
    config: TrainConfig, count: int, slices: int, compile_: Callable[[TrainConfig], Estimate]
) -> Iterator[Candidate]:
    """Yields, for each mesh, the policy with the least recomputation that fits, or "all" if none fits.

    Args:
        config: config of the run.
        count: number of devices in all slices.
        slices: number of slices.
        compile_: returns the estimate of a config.
    """
    for mesh_config in meshes(config, count, slices):
        for remat in REMAT:  # from most memory to least
            model = dataclasses.replace(mesh_config.model, remat=remat)
            trial = dataclasses.replace(mesh_config, model=model)
            candidate = Candidate(trial, compile_(trial))
            if candidate.estimate.fits:
                break
        yield candidate


def rank(candidates: list[Candidate]) -> list[Candidate]:
    """Sorts candidates by time; those that do not fit come last, sorted by HBM."""

    def key(candidate: Candidate) -> tuple[bool, float]:
        estimate = candidate.estimate
        cost = estimate.estimated_step_seconds if estimate.fits else estimate.hbm_bytes_per_device
        return not estimate.fits, cost

    return sorted(candidates, key=key)
