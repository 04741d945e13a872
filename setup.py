"""Where the wheel's packages lie: the scripts and configs of a checkout become parts of genmask_jax."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["genmask_jax*"]), "genmask_jax.commands", "genmask_jax.configs"],
    package_dir={"genmask_jax.commands": "launch", "genmask_jax.configs": "configs"},
)
