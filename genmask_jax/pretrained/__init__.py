"""The models that come with the package: packed ones (`packed.py`), each in the folder of its name.

A name is taken wherever the directory of a trained model is; each model card says how it was made.
"""

from etils import epath

BOX = epath.Path(__file__).parent
DEFAULT = "refershapes"


def in_box(name: epath.PathLike) -> bool:
    """Whether this is the name of a model in the package (and of no directory here, which goes first)."""
    return str(name) in names() and not epath.Path(name).exists()


def names() -> list[str]:
    """The names of all models in the package."""
    return sorted(path.name for path in BOX.iterdir() if (path / "config.json").exists())


def known_models() -> str:
    """What can be given for a trained model, for error messages."""
    return f"the --workdir of a training run, or a model of the package: {', '.join(names())}"


def directory_of(model: epath.PathLike) -> epath.Path:
    """The directory of a trained model: that of a run or a packed model, or of a name in the box."""
    return BOX / str(model) if in_box(model) else epath.Path(model)
