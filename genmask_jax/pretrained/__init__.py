"""The models that come with the package: packed ones (`packed.py`), each in the folder of its name.

A name is taken wherever the directory of a trained model is; each model card says how it was made.
"""

from etils import epath

from genmask_jax.utils.errors import ArgumentError
from genmask_jax.utils.paths import IMPORT, to_path

BOX = epath.Path(__file__).parent
DEFAULT = "refershapes"
PROMPT = "a large red circle"
"""An example for messages and pages, which the default model draws with the default seed."""


def in_box(name: epath.PathLike) -> bool:
    """Whether this is the name of a model in the package (and of no directory here, which goes first)."""
    return str(name) in names() and not to_path(name, "name").exists()


def names() -> list[str]:
    """The names of all models in the package."""
    return sorted(path.name for path in BOX.iterdir() if (path / "config.json").exists())


def known_models() -> str:
    """What can be given for a trained model, for error messages."""
    return f"the directory of a training run, or a model of the package: {', '.join(names())}"


def directory_of(model: epath.PathLike, argument: str = "name") -> epath.Path:
    """The directory of a trained model: that of a run or a packed model, or of a name in the box.

    Args:
        model: a directory, or a name.
        argument: what the caller calls it, for the error.

    Raises:
        UserError: it is a URL, or no path at all.
    """
    instead = f"download it and give its directory, or give {known_models()}; {IMPORT}"
    if str(model).startswith("hf:"):
        raise ArgumentError(argument, f"={model}: {IMPORT}; give {known_models()}")
    path = to_path(model, argument, instead)
    return BOX / str(model) if in_box(model) else path
