"""Every field of every kind of config with wrong values: all are named before anything else happens."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest

from genmask_jax.config import EvaluationConfig, SweepConfig, TrainConfig, VAETrainConfig
from genmask_jax.config.checks import from_config_dict
from genmask_jax.config.ranges import MAX_INT, rule_of
from genmask_jax.utils.config_files import load_config
from genmask_jax.utils.errors import UserError

CONFIGS = {
    "genmask_tiny": TrainConfig,
    "genmask_qwen_debug": TrainConfig,
    "vae_tiny": VAETrainConfig,
    "evaluate_refcoco": EvaluationConfig,
    "ablations/losses": SweepConfig,
}
WRONG_TYPES: dict[type, tuple[Any, ...]] = {
    bool: (None, 1, "x", [], {}),
    int: (None, True, "x", 1.5, [], {}, math.nan),
    float: (None, True, "x", [], {}),
    str: (None, True, 1, [], {}),
    tuple: (None, 1, "x", {}, [None]),
    list: (None, 1, "x", {}, [None]),
}
NUMBERS = (
    -2,
    -1,
    0,
    1,
    2,
    100,
    MAX_INT + 1,
    -2.0,
    -0.01,
    0.0,
    1.0,
    1.01,
    50.0,
    math.nan,
    math.inf,
    -math.inf,
)
"""Values in and out of the ranges: counts, and shares as per cent."""


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def complaint(kind: type, values: dict[str, Any], name: str, value: Any) -> str:
    """The error about a field with another value; "" if it is accepted."""
    changed = copy.deepcopy(values)
    group = changed
    *groups, last = name.split(".")
    for part in groups:
        group = group[part]
    group[last] = value
    try:
        from_config_dict(kind, changed)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("config", CONFIGS)
def test_values_of_another_type_are_named(config):
    values, count = load_config(config).to_dict(), 0
    for name, value in leaves(values):
        if kind_is_free(name):
            continue
        for wrong in WRONG_TYPES.get(type(value), ()):
            said = complaint(CONFIGS[config], values, name, wrong)
            assert name in said.replace("[0]", ""), f"{name}={wrong!r}: {said!r}"
            assert "\n" not in said
            count += 1
    print(f"{config}: {count} values of another type")


def kind_is_free(name: str) -> bool:
    """Whether a field of a sweep has the type of another config's field."""
    return bool({"train", "evaluate"} & set(name.split(".")))


@pytest.mark.parametrize("config", ["genmask_tiny", "vae_tiny"])
def test_numbers_out_of_range_are_named(config):
    values, counts = load_config(config).to_dict(), {True: 0, False: 0}
    for name, value in leaves(values):
        rule = rule_of(name)
        for number in NUMBERS if rule else ():
            if type(number) is type(value):
                right = math.isfinite(number) and rule[0](number) and number != MAX_INT + 1
                said = complaint(CONFIGS[config], values, name, number)
                assert right or f"config.{name} must " in said, f"{name}={number!r}: {said!r}"
                counts[right] += 1
    print(f"{config}: {counts[False]} numbers out of range, {counts[True]} in range")
