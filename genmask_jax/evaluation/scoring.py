"""The checkpoint, sampling options and output directory of an evaluation."""

import dataclasses
import subprocess
from typing import Any

from etils import epath

import genmask_jax
from genmask_jax.config import SamplerConfig
from genmask_jax.inference.load import load
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.inference.masks import RESIZE
from genmask_jax.pretrained import is_packaged
from genmask_jax.sharding import MeshConfig, make_mesh
from genmask_jax.system import Networks
from genmask_jax.utils import hosts
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import make_directory, resolved


@dataclasses.dataclass(frozen=True)
class Scoring:
    """A checkpoint and its sampling options.

    checkpoint: directory of a training run or a packed model, or the name of a model in the package.
    step: "last", "best" or a number.
    sampler: how masks and images are sampled.
    batch_size: images per batch.
    seed: seed of the noise that sampling starts from.
    fsdp: number of devices that the parameters are sharded over.
    workdir: output directory; if "", a directory in `checkpoint` (in runs/NAME for a model in the package).
    """

    checkpoint: str
    step: str
    sampler: SamplerConfig
    batch_size: int
    seed: int
    fsdp: int
    workdir: str

    def open(self) -> tuple[Networks, MaskSampler, dict[str, Any]]:
        """Returns the networks, a segmenter, and a record of all settings that affect scores.

        Raises:
            UserError: there is no such checkpoint.
        """
        networks, _, step = load(self.checkpoint, self.step, make_mesh(MeshConfig(fsdp=self.fsdp)))
        segmenter = MaskSampler(networks, self.sampler, batch_size=self.batch_size, seed=self.seed)
        return networks, segmenter, self._record(step, segmenter.sampler)

    def make_out(self, default: str) -> epath.Path:
        """Makes the output directory on the first host, before any slow work starts.

        Args:
            default: name of the directory in the checkpoint's directory, used if `workdir` is "".

        Raises:
            UserError: the directory cannot be created; raised on every host.
        """
        parent = f"runs/{self.checkpoint}" if is_packaged(self.checkpoint) else self.checkpoint
        path, failure = epath.Path(self.workdir or f"{parent}/{default}"), None
        if hosts.is_first():
            try:
                make_directory(path, "--workdir")
            except UserError as error:
                failure = error
        if hosts.any_host(failure is not None):
            raise failure or UserError("--workdir: the first host cannot create it")
        return path

    def _record(self, step: int, sampler: SamplerConfig) -> dict[str, Any]:
        packaged = is_packaged(self.checkpoint)
        checkpoint = self.checkpoint if packaged else str(resolved(self.checkpoint))
        return {
            "checkpoint": checkpoint,
            "checkpoint_step": step,
            "sampler": vars(sampler),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "resize": RESIZE,
            "weights": "ema",
            "version": describe_version(),
        }


def describe_version() -> str:
    """Returns the package's version, with the commit in a checkout, and "dirty" for uncommitted changes."""
    folder = epath.Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty"]
    try:
        completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return genmask_jax.__version__
    return f"{genmask_jax.__version__} {completed.stdout.strip()}".strip()
