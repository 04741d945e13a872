"""Checks every function of the package in the tests; as in static type checkers, an int is a float."""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def install() -> None:
    """Lets every function check its arguments, shapes included. Call it before the package is imported."""
    install_import_hook("genmask_jax", f"{__name__}.check")
