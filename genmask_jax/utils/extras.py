"""Optional packages: the extras of pyproject.toml."""

import importlib.util

from genmask_jax.utils.errors import UserError


def installed(package: str) -> bool:
    """Whether a package is installed; does not import it."""
    return importlib.util.find_spec(package) is not None


def need(package: str, extra: str, what: str) -> None:
    """Raises UserError if `what` needs a package that is not installed."""
    if not installed(package):
        raise UserError(f'{what} needs {package}: pip install "genmask-jax[{extra}]"')
