"""Config files: how they are found and loaded, and how one builds on another.

A config file defines `get_config()`, or `get_config(argument)`, which `--config=FILE:ARGUMENT` calls.
"""

import inspect
import os
import pathlib
import re
import runpy
import traceback
from typing import Any

from genmask_jax.utils.errors import UserError


def folder() -> pathlib.Path:
    """The folder of the shipped configs: inside the installed package, or next to it in a checkout."""
    package = pathlib.Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.exists() else package.parent / "configs"


def path_of(value: str) -> str:
    """The path of a config, given as a path or as the name of a shipped config.

    Names are such as genmask_tiny, or ablations/passes in a subfolder.
    """
    name, colon, argument = value.partition(":")
    shipped = folder() / f"{name}.py"
    known = re.fullmatch(r"\w+(/\w+)?", name) and not os.path.isfile(name) and shipped.exists()
    return f"{shipped}{colon}{argument}" if known else value


def need_file(path: str) -> None:
    """Raises UserError if there is no such config file."""
    if not os.path.isfile(path):
        raise UserError(f"--config={path}: there is no such file. Shipped configs: {_names()}")


def load_config(value: str) -> Any:
    """The config of --config=VALUE, such as "genmask_tiny" or "my/config.py:argument".

    Raises:
        UserError: the file does not exist or fails.
    """
    path, colon, argument = path_of(value).partition(":")
    need_file(path)
    return _run(path, [argument] if colon else [])


def base_config(name: str, file: str) -> Any:
    """The config that another one builds on.

        def get_config():
            config = base_config("genmask_l", __file__)
            config.loop.num_steps = 2000
            return config

    Args:
        name: name of a config in the folder of `file`, or else of a shipped one; "NAME:ARGUMENT" passes an
            argument.
        file: `__file__` of the config that builds on it; it may have the name of the shipped one.

    Raises:
        UserError: there is no such config, or it fails.
    """
    stem, colon, argument = name.partition(":")
    own = pathlib.Path(file).absolute()
    for path in (own.with_name(f"{stem}.py"), folder() / f"{stem}.py"):
        if path.is_file() and not path.samefile(own):
            return _run(str(path), [argument] if colon else [])
    raise UserError(f"{file}: there is no config {stem}.py next to it. Shipped configs: {_names()}")


def _names() -> str:
    files = [*sorted(folder().glob("*.py")), *sorted(folder().glob("*/*.py"))]
    return ", ".join(file.relative_to(folder()).with_suffix("").as_posix() for file in files)


def _run(path: str, arguments: list[str]) -> Any:
    """The result of a file's `get_config`."""
    try:
        get_config = runpy.run_path(path).get("get_config")
        if get_config is None:
            raise UserError(f"--config={path}: it does not define get_config()")
        if arguments and not inspect.signature(get_config).parameters:
            raise UserError(f"--config={path}:{arguments[0]}: this config takes no argument; leave it out")
        return get_config(*arguments)
    except UserError:
        raise
    except Exception as error:  # a config file may raise anything
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == path]
        line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
        where = f"line {line}: " if line else ""
        raise UserError(f"--config={path}: {where}{type(error).__name__}: {error}") from error
