"""Paths that flags name."""

from etils import epath

from genmask_jax.errors import UserError


def make_directory(path: epath.PathLike, flag: str) -> epath.Path:
    """The directory that a flag names, made if it is not there. Raises UserError when it cannot be."""
    try:
        epath.Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag}={path} cannot be made: {error.strerror}") from error
    return epath.Path(path)
