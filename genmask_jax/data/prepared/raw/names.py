"""Names of classes: classes.txt (a name a line, or `number name`), or the data.yaml of a YOLO export."""

import csv
import re
from collections.abc import Mapping
from typing import Any

import yaml
from etils import epath

from genmask_jax.errors import UserError
from genmask_jax.paths import listed, read_text

FILES = ("classes.txt", "labels.txt", "class_names.txt")
CSV = "_classes.csv"
"""Of Roboflow's masks, in the folder of each split."""
YAML = ("data.yaml", "data.yml", "dataset.yaml")
IGNORED = {"ignore", "ignored", "void", "unlabelled", "unlabeled", "unlabel", "don't care", "_ignore_"}
"""Classes whose pixels do not count, in lower case."""
BACKGROUND = {"background", "_background_"}
"""Classes that nobody asks for: their pixels belong to no other class."""


def read_names(raw: epath.Path) -> dict[int, str]:
    """Names by number, as written; {} if no file gives any.

    Raises:
        UserError: the file is invalid.
    """
    for name in FILES:
        if (raw / name).exists():
            return _from_lines(raw / name)
    for name in YAML:
        if (raw / name).exists():
            return _from_yaml(raw / name)
    folders = [raw, *(path for path in listed(raw) if path.is_dir())]
    found = [_from_csv(folder / CSV) for folder in folders if (folder / CSV).exists()]
    if any(names != found[0] for names in found):
        raise UserError(f"--raw={raw}: the files {CSV} of its folders differ; make them the same")
    return found[0] if found else {}


def phrase(name: str) -> str:
    """A class's name as it is said: "Traffic_Light" is "traffic light"."""
    return " ".join(name.replace("_", " ").split()).lower()


def is_ignored(name: str) -> bool:
    """Whether the pixels of a class of that name do not count."""
    return name.strip().lower() in IGNORED


def is_background(name: str) -> bool:
    """Whether a class of that name is what belongs to no other class."""
    return name.strip().lower() in BACKGROUND


def _from_lines(path: epath.Path) -> dict[int, str]:
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not text in UTF-8 ({error})") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    numbered = [re.match(r"(\d+)[\s:,;]+(\S.*)$", line) for line in lines]
    if all(numbered):
        pairs = [(int(match[1]), match[2].strip()) for match in numbered if match]
    elif any(numbered):
        i = next(i for i, match in enumerate(numbered) if not match)
        raise UserError(f"{path}: {lines[i]!r} has no number, other lines have; write `number name` in each")
    else:
        pairs = list(enumerate(lines))
    return _checked(pairs, path)


def _from_csv(path: epath.Path) -> dict[int, str]:
    """Names of the rows `number, name` below a heading."""
    try:
        rows = [row for row in csv.reader(read_text(path).splitlines()[1:], skipinitialspace=True) if row]
        return _checked([(int(number), name.strip()) for number, name in rows], path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} has no `Pixel Value, Class` in each line ({error})") from error


def _from_yaml(path: epath.Path) -> dict[int, str]:
    try:
        content = yaml.safe_load(read_text(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from error
    names: Any = content.get("names") if isinstance(content, Mapping) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, Mapping) or not all(isinstance(number, int) for number in names):
        raise UserError(f"{path} has no `names`: a list, or names by number")
    return _checked([(number, str(name)) for number, name in names.items()], path)


def _checked(pairs: list[tuple[int, str]], path: epath.Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, name in pairs:
        if number in names:
            raise UserError(f"{path}: the number {number} has two names, {names[number]!r} and {name!r}")
        if not phrase(name):
            raise UserError(f"{path}: the number {number} has an empty name")
        names[number] = name
    if not names:
        raise UserError(f"{path} names no class; write a name in each line")
    return names
