"""Converts dataclasses to and from ConfigDicts and JSON. Errors name the field."""

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from etils import epath
from ml_collections import ConfigDict

from genmask_jax.utils.errors import UserError, short_repr
from genmask_jax.utils.paths import expand, need_regular, parse_json, read_text

C = TypeVar("C")


def to_config_dict(config: Any) -> ConfigDict:
    """Converts a dataclass to a ConfigDict, for `get_config()` in configs/*.py."""
    return ConfigDict(dataclasses.asdict(config), allow_dotted_keys=True)


def from_dict(kind: type[C], values: Any, where: str = "config") -> C:
    """Converts a ConfigDict, or a dictionary read from JSON, to the dataclass `kind`.

    `where` is the prefix of the field names in errors.

    Raises:
        UserError: a field is unknown, missing or of the wrong type.
    """
    return _build(kind, values.to_dict() if isinstance(values, ConfigDict) else values, where)


def read_dataclass(kind: type[C], path: epath.Path, parse: Callable[..., C] = from_dict) -> C:
    """Reads a JSON file as the dataclass `kind`; `parse` takes the arguments of `from_dict`.

    Raises:
        UserError: the file is not valid JSON, or see `from_dict`.
    """
    try:
        need_regular(path)
        values = parse_json(read_text(path))
    except (OSError, ValueError) as error:  # not a file, not JSON, or not text
        raise UserError(f"{path}: this is not valid JSON ({error})") from error
    return parse(kind, values, str(path))


def _build(kind: Any, values: Any, where: str) -> Any:
    if not dataclasses.is_dataclass(kind):
        return _coerce(kind, values, where)
    if not isinstance(values, dict):
        raise UserError(f"{where} must be a group of fields, not {short_repr(values)}")
    make: Any = kind
    fields, hints = {f.name: f for f in dataclasses.fields(kind)}, _type_hints(kind)
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise UserError(f"{where}.{unknown[0]}: no such field; fields: {', '.join(sorted(fields))}")
    missing = [n for n, f in fields.items() if n not in values and not _has_default(f)]
    if missing:
        raise UserError(f"{where}.{missing[0]} is missing")
    return make(**{n: _build(hints[n], v, f"{where}.{n}") for n, v in values.items()})


_type_hints = functools.cache(typing.get_type_hints)


def _has_default(field: dataclasses.Field) -> bool:
    return (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)


def _coerce(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind) or kind
    if origin is dict and isinstance(value, dict):
        item_kind = typing.get_args(kind)[1]
        return {name: _build(item_kind, item, f"{where}.{name}") for name, item in value.items()}
    if origin is tuple and isinstance(value, (list, tuple)):
        item_kind = (typing.get_args(kind) or (object,))[0]
        return tuple(_coerce(item_kind, item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1023 else float("inf")
    if origin is str and isinstance(value, str):
        return expand(value)  # it may be a path
    wrong = isinstance(origin, types.UnionType) or not isinstance(value, origin)
    if wrong or (isinstance(value, bool) and origin is not bool):
        raise UserError(f"{where} must be {getattr(kind, '__name__', kind)}, not {short_repr(value)}")
    return value


def to_json(config: Any) -> str:
    """A dataclass as indented JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def differences(old: Any, new: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (dotted name, old value, new value) of each field that differs between dataclasses."""
    for field in dataclasses.fields(old):
        name = f"{where}.{field.name}".lstrip(".")
        before, after = getattr(old, field.name), getattr(new, field.name)
        if dataclasses.is_dataclass(before) and not isinstance(before, type):
            yield from differences(before, after, name)
        elif before != after:
            yield name, before, after


def difference(old: Any, new: Any, where: str = "config") -> str:
    """The first of `differences`, such as "config.seed 0 -> 1"; "" if there is none."""
    return next(
        (f"{where}.{name} {before!r} -> {after!r}" for name, before, after in differences(old, new)), ""
    )
