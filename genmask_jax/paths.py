"""Paths given by flags."""

from etils import epath

from genmask_jax.errors import UserError


def make_directory(path: epath.PathLike, flag: str) -> epath.Path:
    """The directory given by a flag, created if it is missing. Raises UserError if it cannot be created."""
    try:
        epath.Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag}={path} cannot be created: {error.strerror}") from error
    return epath.Path(path)
