"""Searches meshes and gradient checkpointing policies for a run on a topology."""

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
    """The config with each power of two for fsdp that fits into a slice; tensor is unchanged."""
    inside, fsdp = count // slices, 1
    while fsdp * config.mesh.tensor <= inside:
        if inside % (fsdp * config.mesh.tensor) == 0:
            yield dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, data=-1, fsdp=fsdp))
        fsdp *= 2


def search(
    config: TrainConfig, count: int, slices: int, compile_: Callable[[TrainConfig], Estimate]
) -> Iterator[Candidate]:
    """Yields for each mesh the policy with the least recomputation that fits, or the last one if none fits.

    Args:
        config: config of the run.
        count: number of devices in all slices.
        slices: number of slices.
        compile_: estimates a config.
    """
    for candidate in meshes(config, count, slices):
        for remat in REMAT:  # from most memory to least
            changed = dataclasses.replace(candidate, model=dataclasses.replace(candidate.model, remat=remat))
            found = Candidate(changed, compile_(changed))
            if found.estimate.fits:
                break
        yield found


def ranked(found: list[Candidate]) -> list[Candidate]:
    """Sorts by time; those that do not fit come last, sorted by HBM."""
    return sorted(
        found,
        key=lambda f: (
            not f.estimate.fits,
            f.estimate.estimated_step_seconds if f.estimate.fits else f.estimate.hbm_bytes_per_device,
        ),
    )
