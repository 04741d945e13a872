"""The models of the package. Each has a folder with its name, which contains a packed model and its card.

A name can be given instead of the directory of a trained model.
"""

from etils import epath

from genmask_jax.utils.errors import ArgumentError
from genmask_jax.utils.paths import IMPORT, to_path

MODELS_DIR = epath.Path(__file__).parent
DEFAULT_MODEL = "refershapes"
FINETUNED_MODEL = "refershapes_small"
"""The model from which `launch/finetune.py` starts: it trains in half the time of the default model."""
EXAMPLE_PROMPT = "a large red circle"
"""Example for messages and pages; the default model draws it correctly with the default seed."""


def is_packaged(name: epath.PathLike) -> bool:
    """Whether this names a model of the package. An existing directory of that name takes precedence."""
    return str(name) in names() and not to_path(name, "name").exists()


def names() -> list[str]:
    """Names of all models of the package."""
    return sorted(path.name for path in MODELS_DIR.iterdir() if (path / "config.json").exists())


def describe_models() -> str:
    """Describes the ways to name a trained model, for error messages."""
    return f"the directory of a training run, or a model of the package: {', '.join(names())}"


def directory_of(model: epath.PathLike, argument: str = "name") -> epath.Path:
    """The directory of a trained model.

    Args:
        model: directory of a run or a packed model, or name of a model of the package.
        argument: name of the caller's argument, for error messages.

    Raises:
        UserError: the model is a URL or not a path.
    """
    advice = f"download it and give its directory, or give {describe_models()}; {IMPORT}"
    if str(model).startswith("hf:"):
        raise ArgumentError(argument, f"={model}: {IMPORT}; give {describe_models()}")
    path = to_path(model, argument, advice)
    return MODELS_DIR / str(model) if is_packaged(model) else path
