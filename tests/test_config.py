"""Configs: every file loads, and every mistake is named."""

import importlib.util
import json
import pathlib

import pytest
from absl import flags
from ml_collections import config_flags

from genmask_jax import cli
from genmask_jax.config import EvaluationConfig, TrainConfig, VAETrainConfig
from genmask_jax.config.checks import from_config_dict
from genmask_jax.config.ranges import numbers, rule_of
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import to_json

CONFIGS = sorted((pathlib.Path(__file__).parent.parent / "configs").glob("*.py"))


def read(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def kind(path):
    kinds = {"vae": VAETrainConfig, "evaluate": EvaluationConfig}
    return kinds.get(path.stem.split("_")[0], TrainConfig)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_survives_json(path):
    config = from_config_dict(kind(path), read(path))
    assert getattr(config, "name", path.stem) == path.stem
    assert from_config_dict(kind(path), json.loads(to_json(config))) == config


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("loop.global_batch_size", 33, "global_batch_size"),
        ("loop.num_steps", 0, "num_steps"),
        ("loop.num_steps", "many", "num_steps must be int"),
        ("loop.ema_decay", 1.0, "ema_decay"),
        ("compute_dtype", "float16", "float16"),
        ("sampler.method", "midpoint", "midpoint"),
        ("sampler.mask_steps", 0, "mask_steps"),
        ("instruction.name", "clip", "clip"),
        ("timesteps.segment.name", "gaussian", "config.timesteps.segment.name: 'gaussian' is not bimodal, "),
        ("timesteps.segment.a", 0.0, r"timesteps\.segment\.a must be between 0 and 1, not 0.0"),
        ("timesteps.segment.low_share", 1.5, "low_share"),
        ("sampler.refine_t", -0.1, "refine_t"),
        ("model.num_heads", 5, "num_heads"),
        ("optimizer.name", "sgd", "sgd"),
        ("optimizer.momentum", 0.9, "momentum: no such field"),
        ("optimizer.b1", 2.0, r"optimizer\.b1 must be in \[0, 1\)"),
        ("optimizer.learning_rate", float("nan"), "learning_rate must be between 0 and 1, not nan"),
        ("model.depth", 0, r"model\.depth must be from 1 to 1024, not 0"),
        ("model.num_heads", 0, r"model\.num_heads must be from 1 to 1024"),
        ("instruction.tiny.max_tokens", 0, "max_tokens must be from 1 to 65536"),
        ("instruction.tiny.num_heads", 3, "multiple of num_heads 3"),
        ("data.joint.reasonseg", -1.0, r"data\.joint\.reasonseg must not be negative"),
        ("data.num_workers", 100_000, r"data\.num_workers must be from 0 to 1024"),
        ("mesh.data", 0, r"mesh\.data must be positive, or -1"),
    ],
)
def test_mistakes_are_named(field, value, complaint):
    values = read(CONFIGS[0].parent / "genmask_tiny.py").to_dict()
    *groups, last = field.split(".")
    group = values
    for name in groups:
        group = group[name]
    group[last] = value
    with pytest.raises(UserError, match=complaint) as error:
        from_config_dict(TrainConfig, values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("noises", [0, 65])
def test_masks_are_averaged_over_1_to_64_noises(noises):
    values = read(CONFIGS[0].parent / "genmask_tiny.py").to_dict()
    values["sampler"]["mask_samples"] = noises
    with pytest.raises(UserError, match=f"sampler.mask_samples must be from 1 to 64, not {noises}"):
        from_config_dict(TrainConfig, values)


WRONG_VALUE = "--config.optimizer.learning_rate=fast"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--config=genmask_tiny", WRONG_VALUE, "--workdir=x"), "learning_rate=fast"),
        (("--workdir=x", "--config=genmask_tiny", WRONG_VALUE), "learning_rate=fast"),
        (("--workdir=x", WRONG_VALUE, "--config=genmask_tiny"), "learning_rate=fast"),
        (("--config=genmask_tiny", WRONG_VALUE), "learning_rate=fast"),
        (("--config=genmask_tiny",), "--workdir is missing: directory of the run"),
    ],
)
def test_a_wrong_value_is_named_in_any_order_of_flags(given, says):
    known = flags.FlagValues()
    config_flags.DEFINE_config_file("config", lock_config=True, flag_values=known, sys_argv=list(given))
    flags.DEFINE_string("workdir", None, "Directory of the run.", required=True, flag_values=known)
    with pytest.raises(UserError, match=says):
        cli._parse(["train.py", *given], known)


def test_a_config_of_another_command_is_named():
    values = read(CONFIGS[0].parent / "vae_tiny.py")
    said = "^--config=vae_tiny is a config for launch/train_vae.py, not for launch/train.py$"
    with pytest.raises(UserError, match=said):
        from_config_dict(TrainConfig, values, file="--config=vae_tiny")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_number_has_a_range(path):
    """But those of Qwen, which `need_valid` knows."""
    config = from_config_dict(kind(path), read(path))
    assert not [name for name, _ in numbers(config) if not rule_of(name) and "instruction.qwen." not in name]
