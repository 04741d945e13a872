"""Shared by the commands: flags, one-line errors, the compilation cache."""

import argparse
import ctypes
import difflib
import os
import pathlib
import re
import runpy
import sys
import traceback
from collections.abc import Callable
from logging import ERROR, WARNING
from typing import Any

import jax
from absl import app, flags, logging
from etils import epath
from ml_collections import ConfigDict

from genmask_jax import hosts
from genmask_jax.errors import UserError
from genmask_jax.paths import expand_flags

# transformers warns at import that PyTorch is missing, which its tokenizers do not need. TensorFlow, which
# only writes TensorBoard events here, logs the CPU features that it could use.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def run(main: Callable[[], None]) -> None:
    """Parses the flags and runs `main`; bad input ends in one line on stderr and status 1."""

    def guarded(arguments: list[str]) -> None:
        if len(arguments) > 1:
            fail(f"{arguments[1]!r}: flags begin with --; see --help")
        logging.set_verbosity(logging.INFO)
        suit_cpu()
        use_compilation_cache()
        if "coordinator" in flags.FLAGS:
            hosts.connect()
        guard(main)

    try:
        app.run(guarded, flags_parser=_parse)
    except (UserError, flags.Error) as error:
        fail(str(error))


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the command line of a script without a config."""
    return parser.parse_args(expand_flags(sys.argv[1:]))


def parse_known(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    """The same, and the arguments that the script hands on to others."""
    return parser.parse_known_args(expand_flags(sys.argv[1:]))


def guard(main: Callable[[], None]) -> None:
    """Runs `main`; bad input, or Ctrl-C, ends in one line on stderr and status 1.

    Drops libraries' info logs.
    """
    logging.use_absl_handler()
    logging.get_absl_handler().addFilter(_is_ours)
    try:
        main()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("stopped by Ctrl-C")


def _is_ours(record: Any) -> bool:
    """Drops libraries' info logs, and Orbax's warnings: each checkpoint causes dozens of both."""
    folders = set(pathlib.Path(record.pathname).parts)
    ours = not folders.isdisjoint(("genmask_jax", "clu"))
    return ours or record.levelno >= (ERROR if "orbax" in folders else WARNING)


def _parse(arguments: list[str]) -> list[str]:
    """Parses absl's flags; an unknown config field or a wrong value becomes a one-line error."""
    arguments = [_with_config_path(argument) for argument in expand_flags(arguments)]
    try:
        rest = flags.FLAGS(arguments)
        _need_config_file()
        return rest
    except UserError:
        raise
    except Exception as error:  # a config file is a program
        values = [a.partition("=")[2] for a in arguments if re.match("--?config=", a)]
        if values:
            _need_fields(arguments, load_config(values[-1]))
        if isinstance(error, flags.Error):
            raise
        raise UserError(f"--config: {type(error).__name__}: {error}") from error


def _with_config_path(argument: str) -> str:
    match = re.match(r"(--?config=)(.+)", argument)
    return match[1] + config_path(match[2]) if match else argument


def config_path(value: str) -> str:
    """The file that --config names: a path, or the name of a shipped config, such as genmask_tiny."""
    name, colon, argument = value.partition(":")
    shipped = configs() / f"{name}.py"
    known = re.fullmatch(r"\w+", name) and not os.path.exists(name) and shipped.exists()
    return f"{shipped}{colon}{argument}" if known else value


def configs() -> pathlib.Path:
    """The folder of the shipped configs: in the installed package, or beside it in a checkout."""
    package = pathlib.Path(__file__).parent
    inside = package / "configs"
    return inside if inside.exists() else package.parent / "configs"


def load_config(value: str) -> Any:
    """What a config file returns. Raises UserError if there is no such file, or it fails."""
    path, _, argument = config_path(value).partition(":")
    if not os.path.exists(path):
        raise UserError(f"--config={path}: there is no such file; see configs/")
    try:
        return runpy.run_path(path)["get_config"](*([argument] if argument else []))
    except UserError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == path]
        line = error.lineno if isinstance(error, SyntaxError) else (lines or [0])[-1]
        raise UserError(f"--config={path}: line {line}: {type(error).__name__}: {error}") from error


def _need_fields(arguments: list[str], config: Any) -> None:
    """Raises UserError if a flag such as --config.model.depth names a field that the config lacks."""
    for argument in arguments:
        match = re.match(r"--?config\.([\w.]+)", argument)
        names, group = (match[1].split(".") if match else []), config
        for i, name in enumerate(names):
            where = f"--config.{'.'.join(names[: i + 1])}: no such field"
            if not isinstance(group, ConfigDict):
                raise UserError(f"{where}; config.{'.'.join(names[:i])} has none")
            if name not in group:
                close = difflib.get_close_matches(name, list(group), n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(group))}"
                raise UserError(f"{where}; {hint}")
            group = group[name]
        if names and isinstance(group, ConfigDict):
            where = f"--config.{'.'.join(names)}"
            raise UserError(
                f"{where}: a group of fields; set {where}.FIELD; there are {', '.join(sorted(group))}"
            )


def _need_config_file() -> None:
    """Checks that the config file exists; ml_collections itself raises only on use, with many lines."""
    if "config" in flags.FLAGS:
        config: Any = flags.FLAGS["config"]
        if config.value is not None and not isinstance(config.value, ConfigDict):
            raise UserError(f"--config={config.config_filename}: there is no such file; see configs/")


def fail(message: str) -> None:
    """Prints one line to stderr and exits with status 1."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)


def suit_cpu() -> None:
    """Makes XLA on CPU a third faster. Call it before the first array is created; harmless on accelerators.

    XLA allocates and frees hundreds of megabytes in every step. With glibc's defaults, a third of the time
    goes into mapping them again, so the process keeps allocations below 2 GiB (the buffers of a large model
    are larger, and not worth keeping). Independent operations run concurrently.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        trim_threshold, mmap_threshold, mmap_max, arena_max = -1, -3, -4, -8
        libc.mallopt(trim_threshold, -1)
        libc.mallopt(arena_max, 1)
        if not libc.mallopt(mmap_threshold, 2**31 - 1):  # refused before glibc 2.35
            libc.mallopt(mmap_max, 0)
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_CONCURRENCY_OPTIMIZED")


def share_card() -> None:
    """Leaves memory of a card to other libraries: JAX takes it as it needs it, instead of 75 % at once.

    Call it before the first array is created.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
    default = epath.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "genmask_jax"
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", str(default))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
