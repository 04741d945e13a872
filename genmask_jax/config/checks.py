"""Checks of configs: everything that can be checked without data or weights."""

import dataclasses
import math
import numbers
import re
from typing import Any, TypeVar

from ml_collections import ConfigDict

from genmask_jax.config import (
    CLEAN_FRAMES,
    LATENT_LOSSES,
    MASK_SOURCES,
    PIXEL_LOSSES,
    DataConfig,
    EvaluationConfig,
    MixtureConfig,
    ObjectiveConfig,
    OptimizerConfig,
    SamplerConfig,
    SweepConfig,
    TrainConfig,
    VAETrainConfig,
)
from genmask_jax.config.ranges import check_ranges, rule_of
from genmask_jax.instruction.factory import ENCODERS
from genmask_jax.instruction.qwen.config import need_valid
from genmask_jax.models.layers import REMAT
from genmask_jax.models.vae import VAEConfig
from genmask_jax.timesteps import DISTRIBUTIONS
from genmask_jax.utils.errors import ArgumentError, UserError
from genmask_jax.utils.fields import from_dict

C = TypeVar("C")
MAX_LEVELS = 8
"""Largest number of resolutions of a VAE."""
EVALUATE_FLAGS = (
    "split",
    "count",
    "num_images",
    "batch_size",
    "mask_readout",
    "mask_threshold",
    "mask_steps",
    "mask_noise",
    "mask_samples",
    "image_steps",
    "guidance_scale",
    "shift",
    "no_target_area",
    "no_target_score",
    "uncertainty",
)
"""Flags of launch/evaluate.py that a sweep may set."""


def from_config_dict(kind: type[C], values: Any, where: str = "config", file: str = "") -> C:
    """Converts a ConfigDict, or a dictionary read from JSON, to the dataclass `kind`, and validates it.

    Args:
        kind: dataclass of the config.
        values: its fields, a ConfigDict or a dictionary.
        where: prefix of field names in errors.
        file: name of the file in the error about another kind of config; `where` if empty.

    Raises:
        UserError: a field is unknown, missing, of the wrong type, or inconsistent with the others.
    """
    if isinstance(values, ConfigDict | dict):
        _need_kind(kind, values, file or where)
    config = from_dict(kind, values, where)
    if isinstance(config, (TrainConfig, VAETrainConfig)):
        validate(config)
    elif isinstance(config, EvaluationConfig) and not config.benchmarks:
        raise UserError("config.benchmarks is empty; give at least one, such as reasonseg:val")
    elif isinstance(config, SweepConfig):
        validate_sweep(config)
    elif isinstance(config, VAEConfig):
        validate_vae(config, where)
    return config


def _need_kind(kind: type, values: ConfigDict | dict, file: str) -> None:
    """Raises UserError if the values are the fields of another kind of config."""
    users = {
        TrainConfig: "train",
        VAETrainConfig: "train_vae",
        EvaluationConfig: "evaluate",
        SweepConfig: "sweep",
    }
    for other, user in users.items():
        names = {field.name for field in dataclasses.fields(other)}
        if other is not kind and kind in users and set(values) == names:
            raise UserError(f"{file} is a config for launch/{user}.py, not for launch/{users[kind]}.py")


def validate(config: TrainConfig | VAETrainConfig) -> None:
    """Checks everything that can be checked without data or weights. Raises UserError."""
    check_ranges(config)
    loop, total = config.loop, config.data.mixture.total
    _need(
        loop.global_batch_size % (total * loop.grad_accumulation_steps) == 0,
        f"loop.global_batch_size must be a multiple of {total} x loop.grad_accumulation_steps",
    )
    _need(
        config.compute_dtype in ("float32", "bfloat16"),
        f"compute_dtype: {config.compute_dtype!r} is not float32 or bfloat16",
    )
    _validate_data(config.data)
    _validate_optimizer(config.optimizer)
    if isinstance(config, VAETrainConfig):
        _validate_vae(config)
    else:
        _validate_model(config)
        _validate_objective(config.objective, config.data)
        validate_sampler(config.sampler)


def _need(condition: bool, complaint: str) -> None:
    if not condition:
        raise UserError(f"config.{complaint}")


def _validate_data(data: DataConfig) -> None:
    if data.name == "refcoco_joint":
        _need(any(dataclasses.asdict(data.joint).values()), "data.joint: all weights are 0")
    _need(
        bool(data.templates) and all(template.count("{}") == 1 for template in data.templates),
        f"data.templates: each of {data.templates} must contain one {{}}, for the name of a class",
    )
    _need(
        not (data.latents and data.varies),
        "data.latents: they cannot be augmented; leave out data.augment, templates and absent_share",
    )
    _need(
        not (data.latents and data.generate == "none"),
        "data.latents: a cache has masks and images; data.generate=none does not work with it",
    )


def _validate_optimizer(optimizer: OptimizerConfig) -> None:
    _need(optimizer.name in ("adamw", "muon"), f"optimizer.name: {optimizer.name!r} is not adamw or muon")
    _need(
        optimizer.moments_dtype in ("float32", "bfloat16"),
        f"optimizer.moments_dtype: {optimizer.moments_dtype!r} is not float32 or bfloat16",
    )
    _need(
        optimizer.moments_dtype == "float32" or optimizer.b2 <= 0.99,
        f"optimizer.b2 {optimizer.b2} must be at most 0.99 with moments in bfloat16",
    )


def validate_vae(config: VAEConfig, where: str = "config.vae") -> None:
    """Raises UserError if a dimension of a VAE is out of range; `where` is the prefix of the field."""
    if not 0 < len(config.multipliers) <= MAX_LEVELS:
        raise UserError(f"{where}.multipliers must have from 1 to {MAX_LEVELS} numbers")
    try:
        check_ranges(config, "vae.")
    except UserError as error:
        raise UserError(str(error).replace("config.vae", where, 1)) from error


def _validate_vae(config: VAETrainConfig) -> None:
    validate_vae(config.vae)
    size, stride = config.data.size, config.vae.stride
    _need(config.optimizer.name == "adamw", "optimizer.name: a VAE has no transformer blocks; use adamw")
    _need(
        config.data.mixture == MixtureConfig(),
        "data.mixture: a VAE is trained on as many masks as images; leave it out",
    )
    _need(size % stride == 0, f"data.size {size} is not a multiple of the VAE's stride {stride}")


def _validate_model(config: TrainConfig) -> None:
    model, instruction = config.model, config.instruction
    _need(
        not (config.data.latents and config.small_mask_weight > 0),
        "small_mask_weight needs masks, which a cache of latents does not have; leave out data.latents",
    )
    _need(
        model.hidden_size % (2 * model.num_heads) == 0,
        f"model.hidden_size {model.hidden_size} must be a multiple of 2 x num_heads {model.num_heads}",
    )
    _need(
        bool(config.init) or not model.lora_rank,
        f"model.lora_rank {model.lora_rank} needs weights to adapt; set config.init",
    )
    for task in ("segment", "generate"):
        distribution = getattr(config.timesteps, task).name
        _need(
            distribution in DISTRIBUTIONS,
            f"timesteps.{task}.name: {distribution!r} is not {', '.join(sorted(DISTRIBUTIONS))}",
        )
    _need(model.remat in REMAT, f"model.remat: {model.remat!r} is not {', '.join(REMAT)}")
    _need(model.frequency_dim % 2 == 0, f"model.frequency_dim {model.frequency_dim} must be even")
    _need(
        instruction.name in ENCODERS,
        f"instruction.name: {instruction.name!r} is not {', '.join(ENCODERS)}",
    )
    tiny = instruction.tiny
    _need(
        tiny.hidden_size % tiny.num_heads == 0,
        f"instruction.tiny.hidden_size {tiny.hidden_size} must be a multiple of num_heads {tiny.num_heads}",
    )
    if instruction.name == "qwen":
        need_valid(instruction.qwen, "config.instruction.qwen")


def _validate_objective(objective: ObjectiveConfig, data: DataConfig) -> None:
    losses = LATENT_LOSSES + PIXEL_LOSSES
    _need(
        objective.clean_frame in CLEAN_FRAMES,
        f"objective.clean_frame: {objective.clean_frame!r} is not {', '.join(CLEAN_FRAMES)}",
    )
    _need(
        objective.mask_loss in losses,
        f"objective.mask_loss: {objective.mask_loss!r} is not {', '.join(losses)}",
    )
    _need(
        objective.mask_source in MASK_SOURCES,
        f"objective.mask_source: {objective.mask_source!r} is not {', '.join(MASK_SOURCES)}",
    )
    _need(
        not (data.latents and objective.needs_masks),
        f"objective.mask_loss={objective.mask_loss} needs masks, which a cache of latents does not have; "
        "leave out data.latents",
    )


def with_given(sampler: SamplerConfig, **given: float | None) -> SamplerConfig:
    """The sampler with the given fields replaced; None keeps a field.

    Raises:
        ArgumentError: a value is not a number, not a whole number for an integer field, or out of range.
    """
    fields = {}
    for name, value in given.items():
        if value is None:
            continue
        kind, rule = type(getattr(sampler, name)), rule_of(f"sampler.{name}")
        right = isinstance(value, numbers.Integral if kind is int else numbers.Real)
        if not right or isinstance(value, bool):
            raise ArgumentError(name, f"={value!r} must be a {'whole ' if kind is int else ''}number")
        if rule is not None and not (math.isfinite(value) and rule[0](value)):
            raise ArgumentError(name, f"={value} {rule[1]}")
        fields[name] = kind(value)
    sampler = dataclasses.replace(sampler, **fields)
    validate_sampler(sampler)
    return sampler


def fit_to_training(sampler: SamplerConfig, config: TrainConfig) -> SamplerConfig:
    """The sampler with `refine_t` set from the training, if masks are refined and `refine_t` is 0.

    Args:
        sampler: sampling of masks.
        config: config of the training.

    Raises:
        UserError: the timesteps of masks in training have no mode near clean data, or the model does not
            predict a mask's latents; or masks start from the image, and `sampler` sets their noise.
    """
    if config.objective.mask_source == "image":
        for name, usual in (("mask_samples", 1), ("mask_noise", 1.0)):
            if getattr(sampler, name) != usual:
                raise ArgumentError(
                    name,
                    f"={getattr(sampler, name)}: the model was trained with objective.mask_source=image, so "
                    f"masks do not start from noise; use {name}={usual}",
                )
    if sampler.mask_steps == 1:
        return sampler
    if config.objective.needs_masks:
        raise ArgumentError(
            "mask_steps",
            f"={sampler.mask_steps}: the model was trained with objective.mask_loss="
            f"{config.objective.mask_loss}, so it does not predict latents of masks, which a further pass "
            "would start from; use mask_steps=1",
        )
    if sampler.refine_t:
        return sampler
    distribution = config.timesteps.segment
    if distribution.low_level is None:
        raise ArgumentError(
            "mask_steps",
            f"={sampler.mask_steps}: masks were trained with {distribution.name!r} timesteps, none of which "
            "are near clean data; use mask_steps=1, or set refine_t",
        )
    return dataclasses.replace(sampler, refine_t=distribution.low_level)


def validate_sampler(sampler: SamplerConfig) -> None:
    """Raises UserError if a field of `config.sampler` is out of range or does not fit the others."""
    check_ranges(sampler, "sampler.")
    if sampler.method not in ("euler", "heun"):
        raise UserError(f"config.sampler.method: {sampler.method!r} is not euler or heun")
    if sampler.mask_noise == 0 and sampler.mask_samples > 1:
        raise ArgumentError(
            "mask_samples",
            f"={sampler.mask_samples}: with mask_noise=0, all samples are the same; use mask_samples=1",
        )


def validate_sweep(config: SweepConfig) -> None:
    """Checks everything except the fields of `base`. Raises UserError."""
    check_ranges(config)
    _need(bool(config.metrics), "metrics is empty; name at least one, such as mIoU")
    _need(bool(config.seeds), "seeds is empty; give at least one")
    _need(len(set(config.seeds)) == len(config.seeds), f"seeds: {config.seeds} has a seed twice")
    names = ", ".join(config.variants)
    _need(
        config.reference in config.variants,
        f"reference: {config.reference!r} is not a variant; variants: {names}",
    )
    _validate_overrides(config.train, config.evaluate, "")
    for name, variant in config.variants.items():
        _need(
            re.fullmatch(r"[\w.=+-]+", name) is not None,
            f"variants: {name!r} must consist of letters, digits and . _ = + -, for a folder's name",
        )
        _validate_overrides(variant.train, variant.evaluate, f"variants.{name}.")


def _validate_overrides(train: dict[str, object], evaluate: dict[str, object], prefix: str) -> None:
    """Checks the fields and flags of one variant, or of all variants."""
    _need("seed" not in train, f"{prefix}train: a sweep sets the seed itself; use seeds")
    for flag in evaluate:
        _need(
            flag in EVALUATE_FLAGS,
            f"{prefix}evaluate: {flag!r} is not a flag that a sweep sets; flags: {', '.join(EVALUATE_FLAGS)}",
        )
    for group, values in (("train", train), ("evaluate", evaluate)):
        for name, value in values.items():
            _need(
                isinstance(value, (str, int, float)),
                f"{prefix}{group}.{name} must be text, a number, True or False, not {value!r}",
            )
