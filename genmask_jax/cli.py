"""Flags, help, one-line errors and the compilation cache of the commands.

Commands import JAX inside functions, so that `--help` and errors in flags appear immediately.
"""

import argparse
import ctypes
import difflib
import importlib.metadata
import os
import pathlib
import re
import sys
import threading
import types
from collections.abc import Callable
from logging import ERROR, WARNING
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from genmask_jax.utils import config_files
from genmask_jax.utils.errors import (
    ArgumentError,
    Stopped,
    UserError,
    describe_memory_error,
    describe_storage_error,
)
from genmask_jax.utils.paths import DOWNLOAD, IMPORT, expand_flags, need_no_url

flags.disclaim_key_flags()  # flags defined here belong to the command that calls the function

# transformers warns at import if PyTorch is missing, but its tokenizers do not need PyTorch. TensorFlow logs
# unused CPU features, but it only writes TensorBoard events here.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAG_NAMES = {
    "directory": "out",
    "images": "image",
    "name": "checkpoint",
    "noises": "mask_samples",
    "phrases": "text",
    "prompts": "text",
    "steps": "image_steps",
}
"""Names of flags by the name of the Python argument, where they differ."""
REQUIRED_MESSAGE = "must have a value"
"""Part of absl's error for a missing required flag."""
TEXT_FLAGS = ("text",)
"""Flags whose values are texts, not paths."""


def run(main: Callable[[], None]) -> None:
    """Parses the flags and runs `main`. Bad input prints one line to stderr and exits with status 1."""

    def guarded(arguments: list[str]) -> None:
        if len(arguments) > 1:
            fail(f"{arguments[1]!r}: flags begin with --; see --help")
        logging.set_verbosity(logging.INFO)
        configure_cpu()
        use_compilation_cache()
        if "coordinator" in flags.FLAGS:
            from genmask_jax.utils import hosts

            hosts.connect()
            guard(hosts.naming_lost_hosts(main))
        else:
            guard(main)

    if not {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        _print_help(sys.modules[main.__module__])
        return
    try:
        app.run(guarded, flags_parser=_parse)
    except UserError as error:
        fail(str(error))


def define_host_flags() -> None:
    """Defines flags that connect processes manually; a TPU slice or SLURM needs none."""
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, if processes are started manually.")
    flags.DEFINE_integer("num_processes", None, "Number of processes.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Index of this process, from 0.", lower_bound=0)


def as_called(text: str) -> str:
    """Adapts the names of commands and configs in a text to this installation.

    `python launch/train.py --config=configs/genmask_tiny.py` in a checkout becomes `genmask-train
    --config=genmask_tiny` in an installed package.
    """
    if sys.argv[0].endswith(".py"):
        return text
    name = r"(?<![\w/])(?:python )?launch/(\w+)\.py"
    text = re.sub(name, lambda match: f"genmask-{match[1].replace('_', '-')}", text)
    return re.sub(r"(?<![\w/])configs/([\w/]+)\.py", r"\1", text)


def other_command(name: str, folder: str = "launch") -> list[str]:
    """Returns what starts another command, such as "train", from the directory of this script.

    Args:
        name: name of the command.
        folder: "launch", or a folder of other scripts, such as "baselines", in the current directory.
    """
    if folder != "launch":
        return [sys.executable, f"{folder}/{name}.py"]
    own_script = pathlib.Path(sys.argv[0])
    in_checkout = own_script.suffix == ".py"
    script = own_script.with_name(f"{name}.py" if in_checkout else f"genmask-{name.replace('_', '-')}")
    return [sys.executable, str(script)]


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser whose help starts with the command's docstring."""
    return argparse.ArgumentParser(
        description=as_called(description or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _print_help(command: types.ModuleType) -> None:
    """Prints the help of a command that uses absl's flags, in the format of argparse."""
    parser = make_parser(command.__doc__)
    for flag in flags.FLAGS.get_key_flags_for_module(command):
        default = f" (default: {flag.default})" if flag.default not in (None, False, "", []) else ""
        options: dict[str, Any] = {"help": f"{flag.help}{default}".replace("%", "%%")}
        options |= {"action": "store_true"} if flag.boolean else {"required": _is_required(flag)}
        if isinstance(flag, flags.EnumFlag):
            options["choices"] = flag.parser.enum_values
        parser.add_argument(f"--{flag.name}", **options)
    parser.print_help()


def _is_required(flag: flags.Flag) -> bool:
    return any(REQUIRED_MESSAGE in validator.message for validator in flag.validators)


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the command line of a command without a config."""
    return parser.parse_args(_expand_paths(sys.argv[1:]))


def parse_known(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    """Like `parse`, but also returns the arguments that the parser does not know."""
    return parser.parse_known_args(_expand_paths(sys.argv[1:]))


def _expand_paths(arguments: list[str]) -> list[str]:
    """Expands paths in arguments. Exits with an error if a path is a URL."""
    arguments = expand_flags(arguments)
    try:
        _need_no_urls(arguments)
    except UserError as error:
        fail(_describe_error(error))
    return arguments


def _need_no_urls(arguments: list[str]) -> None:
    """Raises UserError if the value of a flag, after "=" or a space, is a URL."""
    for previous, argument in zip(["", *arguments], arguments, strict=False):
        flag, equals, value = (
            argument.partition("=") if argument.startswith("-") else (previous, "=", argument)
        )
        if equals and flag.startswith("-") and flag.lstrip("-") not in TEXT_FLAGS:
            need_no_url(flag, value, DOWNLOAD if flag.endswith("image") else f"{DOWNLOAD}; {IMPORT}")


def _describe_error(error: UserError) -> str:
    """Returns an error's message, with the flag's name instead of the Python argument's."""
    if not isinstance(error, ArgumentError) or not error.argument.isidentifier():
        return str(error)
    return f"--{FLAG_NAMES.get(error.argument, error.argument)}{error.complaint}"


def guard(main: Callable[[], None]) -> None:
    """Runs `main`. Bad input or Ctrl-C prints one line to stderr and exits with status 1.

    Info logs of libraries are hidden.
    """
    logging.use_absl_handler()
    logging.get_absl_handler().addFilter(_should_log)
    threading.excepthook = _log_storage_errors
    try:
        main()
    except UserError as error:
        fail(_describe_error(error))
    except KeyboardInterrupt:
        fail("stopped")
    except Exception as error:  # of Python, JAX, TensorStore, ArrayRecord, TensorBoard's thread
        problem = describe_storage_error(error) or describe_memory_error(error)
        if not problem:
            raise
        fail(problem)
    except Stopped:
        # A normal exit would wait for a running compilation and crash.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _log_storage_errors(raised: threading.ExceptHookArgs) -> None:
    """Logs the error of a disk in a thread in one line; other errors with a traceback.

    The main thread raises Orbax's errors again when it waits for a checkpoint.
    """
    problem = raised.exc_value and describe_storage_error(raised.exc_value)
    if problem:
        logging.error("%s", problem)
    else:
        threading.__excepthook__(raised)


def _should_log(record: Any) -> bool:
    """Whether to print a log record; hides info logs of libraries, and warnings and tracebacks of Orbax."""
    folders = set(pathlib.Path(record.pathname).parts)
    if "orbax" in folders:
        record.exc_info = record.exc_text = None  # the error is raised, too
    return "genmask_jax" in folders or record.levelno >= (ERROR if "orbax" in folders else WARNING)


def read_config(arguments: list[str]) -> ConfigDict:
    """Reads the config of --config=NAME and fields such as --config.data.size=64. Raises UserError."""
    values, arguments = flags.FlagValues(), [_with_config_path(argument) for argument in arguments]
    options = {"lock_config": True, "flag_values": values, "sys_argv": arguments}
    config = config_flags.DEFINE_config_file("config", **options)
    _parse([sys.argv[0], *arguments], values)
    return config.value


def _parse(arguments: list[str], flag_values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses absl's flags. Raises UserError for an unknown config field or a wrong value."""
    arguments = [_with_config_path(argument) for argument in expand_flags(arguments)]
    _need_no_urls(arguments)
    try:
        _need_config_file(arguments)
        return flag_values(arguments)
    except UserError:
        raise
    except Exception as error:  # a config file may raise anything
        configs = [a.partition("=")[2] for a in arguments if re.match("--?config=", a)]
        if configs:
            _need_fields(arguments, config_files.load_config(configs[-1]))
        if isinstance(error, flags.Error):
            if not isinstance(error, flags.IllegalFlagValueError) or REQUIRED_MESSAGE in str(error):
                _need_required_flags(flag_values)
            raise UserError(str(error)) from error
        raise UserError(f"--config: {type(error).__name__}: {error}") from error


def _with_config_path(argument: str) -> str:
    match = re.match(r"(--?config=)(.+)", argument)
    return match[1] + config_files.path_of(match[2]) if match else argument


def config_flag() -> str:
    """Returns the --config flag with its value, for error messages."""
    return f"--config={config_flags.get_config_filename(flags.FLAGS['config'])}"


def _need_fields(arguments: list[str], config: Any) -> None:
    """Raises UserError if a flag such as --config.model.depth names an unknown field."""
    for argument in arguments:
        match = re.match(r"--?config\.([\w.]+)", argument)
        names, group = (match[1].split(".") if match else []), config
        for i, name in enumerate(names):
            prefix = f"--config.{'.'.join(names[: i + 1])}: no such field"
            if not isinstance(group, ConfigDict):
                raise UserError(f"{prefix}; config.{'.'.join(names[:i])} has no fields")
            if name not in group:
                close = difflib.get_close_matches(name, list(group), n=1)
                hint = f"did you mean {close[0]}?" if close else f"fields: {', '.join(sorted(group))}"
                raise UserError(f"{prefix}; {hint}")
            group = group[name]
        if names and isinstance(group, ConfigDict):
            flag = f"--config.{'.'.join(names)}"
            raise UserError(
                f"{flag} is a group of fields; set {flag}.FIELD. Fields: {', '.join(sorted(group))}"
            )


def _need_config_file(arguments: list[str]) -> None:
    """Raises UserError if the config file does not exist; ml_collections would raise only later."""
    for argument in arguments:
        if match := re.match(r"--?config=([^:]*)", argument):
            config_files.need_file(match[1])


def _need_required_flags(flag_values: flags.FlagValues) -> None:
    """Raises UserError if a required flag is missing."""
    for module in flag_values.flags_by_module_dict().values():
        for flag in module:
            if flag.value is None and _is_required(flag):
                raise UserError(
                    f"--{flag.name} is missing: {flag.help[0].lower()}{flag.help[1:].rstrip('.')}"
                )


def fail(message: str) -> None:
    """Prints one line to stderr and exits with status 1."""
    print(f"error: {as_called(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(1)


def configure_cpu() -> None:
    """Makes training on CPUs faster; has no effect on other devices. Call it before any array is created.

    Freed memory is reused (`reuse_freed_memory`), and XLA runs independent operations concurrently.
    """
    reuse_freed_memory()
    if cpu_flags():
        os.environ.setdefault("XLA_FLAGS", " ".join(cpu_flags()))


def reuse_freed_memory() -> None:
    """Makes glibc reuse memory that XLA on CPU frees. Call it before any array is created.

    XLA allocates and frees hundreds of megabytes in every step. With glibc's defaults, the process returns
    the memory to the system and maps it again, which takes a third of the time. This applies to allocations
    below 2 GiB; buffers of large models may be larger.

    Commands that only use a trained model call this function instead of `configure_cpu`: cached programs
    depend on XLA_FLAGS, and commands and Python should share them.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        trim_threshold, mmap_threshold, mmap_max, arena_max = -1, -3, -4, -8
        libc.mallopt(trim_threshold, -1)
        libc.mallopt(arena_max, 1)
        if not libc.mallopt(mmap_threshold, 2**31 - 1):  # fails before glibc 2.35
            libc.mallopt(mmap_max, 0)


def cpu_flags() -> list[str]:
    """Returns XLA's flags for CPUs that this jaxlib knows; XLA does not start with unknown flags."""
    version = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
    return ["--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_CONCURRENCY_OPTIMIZED"] if version >= (0, 10) else []


def allocate_on_demand() -> None:
    """Makes JAX allocate GPU memory on demand instead of 75 % at once, so that other libraries can use it.

    Call it before any array is created.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def use_compilation_cache() -> None:
    """See `programs.use_compilation_cache`."""
    from genmask_jax.inference import programs

    programs.use_compilation_cache()
