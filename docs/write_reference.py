"""Writes docs/reference/: config fields, the help of commands, and directives for the Python API.

    python docs/write_reference.py

`make docs` calls it.
"""

import contextlib
import dataclasses
import functools
import inspect
import io
import os
import pathlib
import re
import runpy
import subprocess
import sys
import typing
from typing import Any

from genmask_jax import __all__ as public
from genmask_jax.config import EvaluationConfig, SweepConfig, TrainConfig, VAETrainConfig
from genmask_jax.config.ranges import rule_of

DOCS = pathlib.Path(__file__).parent
REFERENCE = DOCS / "reference"
LAUNCH = DOCS.parent / "launch"
CONFIG_CLASSES = {
    "train.py": TrainConfig,
    "train_vae.py": VAETrainConfig,
    "evaluate.py": EvaluationConfig,
    "sweep.py": SweepConfig,
}


def main() -> None:
    REFERENCE.mkdir(exist_ok=True)
    os.environ |= {"COLUMNS": "100", "JAX_PLATFORMS": "cpu"}
    (REFERENCE / "config.md").write_text(config_page())
    (REFERENCE / "commands.md").write_text(commands_page())
    (REFERENCE / "python.md").write_text(python_page())


def config_page() -> str:
    """The docstring and a table of the fields of every dataclass in a config."""
    parts = [
        "# Config",
        "A config is a file `configs/NAME.py`, whose `get_config()` returns one of these dataclasses "
        "([Configs](../training.md#configs) shows how to write one). "
        "`--config.GROUP.FIELD=VALUE` sets a field on the command line.",
    ]
    visited: set[type] = set()
    for script, kind in CONFIG_CLASSES.items():
        parts.append(f"## {kind.__name__}: `--config` of launch/{script}")
        parts += _dataclass(kind, "", visited)
    return "\n\n".join(parts) + "\n"


def _dataclass(kind: Any, prefix: str, visited: set[type]) -> list[str]:
    """Docstring and table of a dataclass, then those of nested dataclasses that are not in `visited`."""
    description, notes = _docstring(kind)
    rows = ["| field | type | default | |", "|---|---|---|---|"]
    nested = []
    hints = inspect.get_annotations(kind, eval_str=True)
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hint):
            nested.append((hint, f"{name}."))
        elif dataclasses.is_dataclass(item := (typing.get_args(hint) or (None,))[-1]):
            nested.append((item, f"{name}.NAME."))
        rule = rule_of(name)
        note = " ".join(filter(None, [notes.get(field.name, ""), f"({rule[1]})" if rule else ""]))
        default = f"`{_default(field)}`" if not dataclasses.is_dataclass(hint) else f"see `{hint.__name__}`"
        rows.append(f"| `{name}` | {_type(hint)} | {default} | {note.replace('|', chr(92) + '|')} |")
    parts = [description, "\n".join(rows)]
    for hint, start in nested:
        if hint not in visited:
            visited.add(hint)
            parts += [f"### {hint.__name__}: `config.{start.rstrip('.')}`", *_dataclass(hint, start, visited)]
    return parts


def _docstring(kind: Any) -> tuple[str, dict[str, str]]:
    """The text of a docstring without its fields, and the description of each field."""
    text = inspect.getdoc(kind) or ""
    names = {field.name for field in dataclasses.fields(kind)}
    description, notes, current = [], {}, []
    for line in text.splitlines():
        match = re.match(r"([\w, ]+): (.*)", line)
        fields = [name.strip() for name in match[1].split(",")] if match else []
        if match and fields and set(fields) <= names:
            current = fields
            notes |= dict.fromkeys(fields, match[2])
        elif current and line.startswith(" "):
            notes |= {name: f"{notes[name]} {line.strip()}" for name in current}
        else:
            current = []
            description.append(line)
    return "\n".join(description).strip(), notes


def _type(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if not getattr(hint, "__args__", None) else str(hint)


def _default(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return "required" if field.default is dataclasses.MISSING else repr(field.default)


def commands_page() -> str:
    """The help of every script."""
    parts = ["# Commands", "Installed with pip, `launch/train.py` is `genmask-train`, and so on."]
    for script in sorted(LAUNCH.glob("*.py")):
        parts.append(f"## {script.name}\n\n```text\n{_help(script)}\n```")
        for command in re.findall(r"^\s+\{([\w,]+)\}", _help(script), flags=re.M)[:1]:
            parts += [
                f"### {script.name} {name}\n\n```text\n{_help(script, name)}\n```"
                for name in command.split(",")
            ]
    return "\n\n".join(parts) + "\n"


@functools.cache
def _help(script: pathlib.Path, *command: str) -> str:
    """The output of --help. Scripts with absl flags, which are global, run in a separate process."""
    source = (DOCS.parent / "genmask_jax" / "commands" / script.name).read_text()
    if "absl import flags" in source:
        process = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True)
        text = process.stdout
    else:
        output, argv = io.StringIO(), sys.argv
        sys.argv = [script.name, *command, "--help"]
        try:
            with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
                runpy.run_path(str(script), run_name="__main__")
        finally:
            sys.argv = argv
        text = output.getvalue()
    if not text.strip():
        raise SystemExit(f"{script.name} --help prints nothing")
    return text.strip().replace(f"{LAUNCH.parent}/", "")


def python_page() -> str:
    """A directive of mkdocstrings for every public name."""
    names = [name for name in public if not name.startswith("_")]
    return "\n\n".join(["# Python", *(f"::: genmask_jax.{name}" for name in names)]) + "\n"


if __name__ == "__main__":
    main()
