"""Which mesh and which rematerialisation suit a run on a topology."""

import dataclasses
from collections.abc import Callable, Iterator

from genmask_jax.config import TrainConfig
from genmask_jax.models.layers import REMAT
from genmask_jax.scale.estimate import Estimate


@dataclasses.dataclass(frozen=True)
class Found:
    """What one choice would take."""

    config: TrainConfig
    estimate: Estimate

    @property
    def name(self) -> str:
        mesh = self.config.mesh
        return f"fsdp {mesh.fsdp}, tensor {mesh.tensor}, remat {self.config.model.remat}"


def meshes(config: TrainConfig, count: int, slices: int) -> Iterator[TrainConfig]:
    """The config with fsdp over every power of two of devices that a slice allows, and tensor as it is."""
    inside, fsdp = count // slices, 1
    while fsdp * config.mesh.tensor <= inside:
        if inside % (fsdp * config.mesh.tensor) == 0:
            yield dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, data=-1, fsdp=fsdp))
        fsdp *= 2


def search(
    config: TrainConfig, count: int, slices: int, compile_: Callable[[TrainConfig], Estimate]
) -> Iterator[Found]:
    """For every mesh the policy that computes least anew and fits, or that none does.

    Args:
        config: of the run.
        count: of devices, in all slices.
        slices: how many there are.
        compile_: what a config would take.
    """
    for candidate in meshes(config, count, slices):
        for remat in REMAT:  # from most memory to least
            changed = dataclasses.replace(candidate, model=dataclasses.replace(candidate.model, remat=remat))
            found = Found(changed, compile_(changed))
            if found.estimate.fits:
                break
        yield found


def ranked(found: list[Found]) -> list[Found]:
    """Those that fit by their time, then those that do not by what is missing."""
    return sorted(
        found,
        key=lambda f: (
            not f.estimate.fits,
            f.estimate.estimated_step_seconds if f.estimate.fits else f.estimate.hbm_bytes_per_device,
        ),
    )
