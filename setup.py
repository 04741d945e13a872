"""Where the wheel's packages lie: the configs of a checkout become a part of genmask_jax."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["genmask_jax*"]),
        "genmask_jax.configs",
        "genmask_jax.configs.ablations",
    ],
    package_dir={"genmask_jax.configs": "configs"},
)
