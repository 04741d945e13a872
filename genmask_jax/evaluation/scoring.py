"""What evaluations on scenes and on benchmarks share: how a checkpoint is scored, and where scores go."""

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
from genmask_jax.utils.paths import make_directory


@dataclasses.dataclass(frozen=True)
class Scoring:
    """One checkpoint and how it is sampled.

    checkpoint: directory of a training run or a packed model, or the name of a model in the package.
    step: "last", "best" or a number.
    sampler: how masks and images are sampled.
    batch_size: images per batch.
    seed: seed of the noise that sampling starts from.
    fsdp: number of devices that the parameters are sharded over.
    workdir: where to write; a directory in `checkpoint` when empty (in runs/NAME of a model in the package).
    """

    checkpoint: str
    step: str
    sampler: SamplerConfig
    batch_size: int
    seed: int
    fsdp: int
    workdir: str

    def open(self) -> tuple[Networks, MaskSampler, dict[str, Any]]:
        """The networks, a segmenter, and a record of everything, except the data, that affects a score.

        Raises:
            UserError: there is no such checkpoint.
        """
        networks, _, step = load(self.checkpoint, self.step, make_mesh(MeshConfig(fsdp=self.fsdp)))
        segmenter = MaskSampler(networks, self.sampler, batch_size=self.batch_size, seed=self.seed)
        return networks, segmenter, self._record(step, segmenter.sampler)

    def make_out(self, default: str) -> epath.Path:
        """Makes the output directory on the first host, before any slow work starts.

        Args:
            default: its name in the checkpoint's directory when `workdir` is empty.

        Raises:
            UserError: on every host, when it cannot be made.
        """
        beside = f"runs/{self.checkpoint}" if is_packaged(self.checkpoint) else self.checkpoint
        path, failed = epath.Path(self.workdir or f"{beside}/{default}"), None
        if hosts.is_first():
            try:
                make_directory(path, "--workdir")
            except UserError as error:
                failed = error
        if hosts.any_host(failed is not None):
            raise failed or UserError("--workdir: the first host cannot make it")
        return path

    def _record(self, step: int, sampler: SamplerConfig) -> dict[str, Any]:
        boxed = is_packaged(self.checkpoint)
        checkpoint = self.checkpoint if boxed else str(epath.Path(self.checkpoint).resolve())
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
    """The package's version, with the commit when it runs from a checkout; "dirty" if that was changed."""
    folder = epath.Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return genmask_jax.__version__
    return f"{genmask_jax.__version__} {done.stdout.strip()}".strip()
