"""Packed models: a directory with everything that inference needs, and nothing else.

    config.json            the training config
    model.safetensors      the trained parameters (EMA), by their names in `GenMask`
    instruction/           as in a run
    vae/                   config.json and model.safetensors
    README.md              the model card
    digests.json           of config.json and model.safetensors; vae/ and instruction/ have their own

`launch/export_weights.py genmask` writes packed models. `runs.py` reads them like the directory of a run.
"""

from collections.abc import Mapping

import jax
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from genmask_jax.parameters.files import TensorFiles
from genmask_jax.utils.digests import check_digests
from genmask_jax.utils.errors import reading
from genmask_jax.utils.paths import need_local, need_regular, replacing

WEIGHTS = "model.safetensors"


def is_packed(directory: epath.PathLike) -> bool:
    """Whether a directory holds a packed model."""
    return (epath.Path(directory) / WEIGHTS).exists()


def read_step(directory: epath.PathLike) -> int:
    """The training step of the weights. Raises DamagedError if the file is damaged."""
    path = epath.Path(directory) / WEIGHTS
    need_local(path)
    opened = reading(f"{path}", "download or export it again")
    with opened:
        need_regular(path)
        with safetensors.safe_open(path, framework="np") as file:
            step = int((file.metadata() or {}).get("step", 0))
        if not 0 <= step < 2**63:
            raise ValueError(f"step {step}")
    return step


class PackedReader:
    """Reads the parameters in a directory one by one; has the interface of `ParameterReader`.

    Args:
        directory: directory of a packed model, or of its VAE.
        prefix: prefix of the parameters to read, such as "dit."; it is removed from their names.

    Raises:
        UserError: the file is damaged.
    """

    _checked = False

    def __init__(self, directory: epath.PathLike, prefix: str = ""):
        self.path, self._prefix = epath.Path(directory) / WEIGHTS, prefix
        self._files = TensorFiles([self.path])
        names = [name for name in self._files.shapes if name.startswith(prefix)]
        self.shapes = {name[len(prefix) :]: self._files.shapes[name] for name in names}
        self.dtypes = {name[len(prefix) :]: self._files.dtypes[name] for name in names}

    def check(self) -> None:
        """Compares weights and config with their digests, once. Raises DamagedError if one has changed."""
        if not self._checked:
            check_digests(self.path.parent)
        self._checked = True

    def read(self, name: str) -> np.ndarray:
        """One parameter, as a NumPy array in the stored dtype."""
        self.check()
        return self._files.read(self._prefix + name)

    def restore(self, targets: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """Parameters by name, in the dtypes and shardings of `targets`."""
        return {
            name: jax.device_put(self.read(name).astype(target.dtype), target.sharding)
            for name, target in targets.items()
        }


def write_weights(directory: epath.Path, tensors: Mapping[str, np.ndarray], step: int = 0) -> None:
    """Writes the file that `PackedReader` reads."""
    directory.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    metadata = {"format": "pt", "step": str(step)}
    with replacing(directory / WEIGHTS) as temporary:
        safetensors.numpy.save_file(contiguous, temporary, metadata=metadata)
