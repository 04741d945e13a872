"""Wrong types, wrong choices and impossible pairs in every config; for numbers see test_wrong_configs.py.

All are named before anything is compiled, downloaded or written.
"""

import copy
import dataclasses
import typing

import pytest

from genmask_jax.config import EvaluationConfig, SweepConfig, TrainConfig, VAETrainConfig
from genmask_jax.config.checks import from_config_dict
from genmask_jax.training.start import train_genmask
from genmask_jax.utils.config_files import load_config
from genmask_jax.utils.errors import UserError

SWEEP = {"name": "a", "base": "genmask_tiny", "variants": {"a": {}, "b": {}}, "reference": "a"}
CONFIGS = {
    "train": (TrainConfig, load_config("genmask_tiny").to_dict()),
    "vae": (VAETrainConfig, load_config("vae_tiny").to_dict()),
    "evaluate": (EvaluationConfig, {"benchmarks": ["reasonseg:val"], "path": "", "reason": False}),
    "sweep": (SweepConfig, SWEEP),
}
WRONG_TYPES = {
    int: (None, "many", 0.5, True, [1], {}),
    float: (None, "fast", True, [1.0], {}),
    bool: (None, "yes", 1, []),
    str: (None, 3, True, ["a"], {}),
}


def fields(kind, prefix=""):
    """(dotted name, type) of each field of a dataclass and of the dataclasses in it."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name, hint = f"{prefix}{field.name}", hints[field.name]
        yield name, hint
        if dataclasses.is_dataclass(hint):
            yield from fields(hint, f"{name}.")


def wrong_types(hint) -> tuple:
    if dataclasses.is_dataclass(hint):
        return (None, 3, "a", [1])
    origin = typing.get_origin(hint) or hint
    if origin is tuple:
        item = typing.get_args(hint)[0]
        return (None, 3, {}, *([value] for value in WRONG_TYPES[item]))
    return (None, 3, "a", [1]) if origin is dict else WRONG_TYPES[origin]


def changed(values: dict, name: str, value) -> dict:
    """The values with one field set, and the groups above it made."""
    values = copy.deepcopy(values)
    *groups, last = name.split(".")
    group = values
    for part in groups:
        group = group.setdefault(part, {})
    group[last] = value
    return values


def need_named(kind, values, name) -> None:
    with pytest.raises(UserError) as caught:
        from_config_dict(kind, values)
    said = str(caught.value)
    assert f"config.{name}" in said, (name, said)
    assert "\n" not in said
    assert len(said) < 500


@pytest.mark.parametrize("config", CONFIGS)
def test_wrong_types_are_named(config):
    kind, values = CONFIGS[config]
    from_config_dict(kind, values)
    tried = 0
    for name, hint in fields(kind):
        for value in wrong_types(hint):
            need_named(kind, changed(values, name, value), name)
            tried += 1
    assert tried > {"train": 600, "vae": 200, "evaluate": 10, "sweep": 30}[config]


@pytest.mark.parametrize("config", CONFIGS)
def test_unknown_and_missing_fields_are_named(config):
    kind, values = CONFIGS[config]
    for name in {"", *(name for name, hint in fields(kind) if dataclasses.is_dataclass(hint))}:
        unknown = f"{name}.learning_rat".lstrip(".")
        need_named(kind, changed(values, unknown, 1), unknown)
    for field in dataclasses.fields(kind):
        if (field.default, field.default_factory) == (dataclasses.MISSING, dataclasses.MISSING):
            need_named(kind, {k: v for k, v in values.items() if k != field.name}, field.name)


CHOICES = {
    "compute_dtype": "float16",
    "model.remat": "some",
    "instruction.name": "clip",
    "timesteps.segment.name": "gaussian",
    "timesteps.generate.name": "",
    "objective.clean_frame": "on",
    "objective.mask_loss": "dice",
    "optimizer.name": "sgd",
    "optimizer.moments_dtype": "float16",
    "sampler.method": "midpoint",
    "data.templates": [],
}


@pytest.mark.parametrize("name", CHOICES)
def test_wrong_choices_are_named(name):
    need_named(TrainConfig, changed(CONFIGS["train"][1], name, CHOICES[name]), name)


QWEN = {"instruction.name": "qwen"}
NO_JOINT = dict.fromkeys(["refcoco_unc", "refcocoplus_unc", "refcocog_umd"], 0)
PAIRS = [
    ("train", {"loop.global_batch_size": 33}, "loop.global_batch_size"),
    ("train", {"loop.grad_accumulation_steps": 7}, "loop.global_batch_size"),
    ("train", {"data.mixture.masks": 5}, "loop.global_batch_size"),
    ("train", {"optimizer.moments_dtype": "bfloat16", "optimizer.b2": 0.999}, "optimizer.b2"),
    ("train", {"model.num_heads": 5}, "model.hidden_size"),
    ("train", {"model.frequency_dim": 7}, "model.frequency_dim"),
    ("train", {"model.lora_rank": 4}, "model.lora_rank"),
    ("train", {"instruction.tiny.num_heads": 3}, "instruction.tiny.hidden_size"),
    ("train", {"data.latents": "x", "data.absent_share": 0.1}, "data.latents"),
    ("train", {"data.latents": "x", "data.augment.flip": 0.5}, "data.latents"),
    ("train", {"data.latents": "x", "data.templates": ["a {}", "the {}"]}, "data.latents"),
    ("train", {"data.latents": "x", "data.generate": "none"}, "data.latents"),
    ("train", {"data.latents": "x", "small_mask_weight": 1.0}, "small_mask_weight"),
    ("train", {"data.latents": "x", "objective.mask_loss": "linear_cross_entropy"}, "objective.mask_loss"),
    ("train", {"data.templates": ["no braces"]}, "data.templates"),
    ("train", {"data.name": "refcoco_joint", "data.joint": NO_JOINT}, "data.joint"),
    ("train", QWEN | {"instruction.qwen.prompts.phrase": "find it"}, "instruction.qwen.prompts"),
    ("train", QWEN | {"instruction.qwen.prompts.reason": "<|end|>{text}"}, "instruction.qwen.prompts"),
    ("train", QWEN | {"instruction.qwen.image_token_budgets": [64, 16]}, "instruction.qwen.image_token"),
    ("train", QWEN | {"instruction.qwen.layer": 99}, "instruction.qwen"),
    ("train", QWEN | {"instruction.qwen.shape.text.num_kv_heads": 5}, "instruction.qwen.shape"),
    ("vae", {"data.size": 63}, "data.size"),
    ("vae", {"optimizer.name": "muon"}, "optimizer.name"),
    ("vae", {"data.mixture.masks": 3}, "data.mixture"),
    ("vae", {"vae.multipliers": []}, "vae.multipliers"),
    ("vae", {"vae.multipliers": [1] * 9}, "vae.multipliers"),
    ("evaluate", {"benchmarks": []}, "benchmarks"),
    ("sweep", {"reference": "c"}, "reference"),
    ("sweep", {"seeds": []}, "seeds"),
    ("sweep", {"seeds": [1, 1]}, "seeds"),
    ("sweep", {"metrics": []}, "metrics"),
    ("sweep", {"variants": {"a": {}, "../b": {}}}, "variants"),
    ("sweep", {"train": {"seed": 1}}, "train"),
    ("sweep", {"evaluate": {"out": "x"}}, "evaluate"),
]


@pytest.mark.parametrize(("config", "changes", "name"), PAIRS, ids=lambda one: str(one)[:40])
def test_impossible_pairs_are_named(config, changes, name):
    kind, values = CONFIGS[config]
    for field, value in changes.items():
        values = changed(values, field, value)
    need_named(kind, values, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vae", "/no/vae"),
        ("init", "/no/weights"),
        ("data.name", "imagenet"),
        ("data.name", "reasonseg"),
        ("data.generate", "imagenet"),
        ("data.scenes", "loud"),
        ("data.latents", "/no/latents"),
        ("mesh.fsdp", 77),
        ("data.size", 65),
    ],
)
def test_what_needs_data_or_weights_is_named_before_the_workdir_is_made(
    name, value, tmp_path, programs_made, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    config = from_config_dict(TrainConfig, changed(CONFIGS["train"][1], name, value))
    before, workdir = len(programs_made), tmp_path / "run"
    with pytest.raises(UserError) as caught:
        train_genmask(config, str(workdir))
    assert name.split(".")[0] in str(caught.value) or str(value) in str(caught.value)
    assert not workdir.exists()
    assert list(tmp_path.iterdir()) == []
    assert len(programs_made) == before
