"""Finds and opens imported Qwen weights (`launch/import_weights.py qwen`)."""

from etils import epath

from genmask_jax.instruction.qwen.config import QwenConfig, need_shape
from genmask_jax.instruction.qwen.encoder import abstract_state
from genmask_jax.parameters.files import read_json
from genmask_jax.parameters.names import flat_paths
from genmask_jax.parameters.reader import ParameterReader
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import read_dataclass

NAME, HUB = "qwen", "hub"
"""Folder of imported weights, and its subfolder with the other files of the hub."""


def find_qwen(directory: epath.PathLike, what: str) -> tuple[QwenConfig, epath.Path]:
    """Finds imported weights; returns their config and their folder, which contains params/ and hub/.

    Args:
        directory: output of `launch/import_weights.py qwen`.
        what: field or flag that gives the directory, for error messages.

    Raises:
        UserError: there are no weights, or their config is invalid.
    """
    folder = epath.Path(directory) / NAME
    if not (folder / "config.json").exists():
        raise UserError(f"{what}={directory}: no Qwen here; make it with launch/import_weights.py qwen")
    config = read_dataclass(QwenConfig, folder / "config.json")
    need_shape(config, str(folder / "config.json"))
    return config, folder


def open_parameters(config: QwenConfig, folder: epath.Path) -> ParameterReader:
    """Opens the parameters in a folder of `find_qwen`. Raises UserError if they do not match the config."""
    reader = ParameterReader(folder / "params")
    expected_shapes = {path: leaf.shape for path, leaf in flat_paths(abstract_state(config))}
    for name in sorted(expected_shapes.keys() | reader.shapes.keys()):
        shape, expected = reader.shapes.get(name, "absent"), expected_shapes.get(name, "absent")
        if shape != expected:
            raise UserError(
                f"{folder}: {name} is {shape}, but config.json implies {expected}; import the weights again"
            )
    return reader


def digest(folder: epath.Path) -> str:
    """SHA-256 of imported weights, recorded by the import."""
    return read_json(folder / "import.json")["sha256"]
