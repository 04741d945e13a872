"""The range of every number in a config: one table, read field by field."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

from genmask_jax.utils.errors import UserError, short_repr

MAX_NOISES = 64
"""Masks from more noises would not differ, and fill the memory."""
MAX_INT = 2**31 - 1
"""The largest whole number; steps are counted in int32."""
Rule = tuple[Callable[[float], bool], str]
POSITIVE: Rule = (lambda x: x > 0, "must be positive")
NOT_NEGATIVE: Rule = (lambda x: x >= 0, "must not be negative")
FRACTION: Rule = (lambda x: 0 <= x < 1, "must be in [0, 1)")
INSIDE: Rule = (lambda x: 0 < x < 1, "must be between 0 and 1")
SHARE: Rule = (lambda x: 0 < x <= 1, "must be in (0, 1]")
UNIT: Rule = (lambda x: 0 <= x <= 1, "must be in [0, 1]")
FINITE: Rule = (math.isfinite, "must be finite")
RATIO: Rule = (lambda x: x > 1 or x == 0, "must be above 1, or 0 for no limit")
AXIS: Rule = (lambda x: x > 0 or x == -1, "must be positive, or -1 for all other devices")


def _within(low: int, high: int) -> Rule:
    return lambda x: low <= x <= high, f"must be from {low} to {high}"


# Far more than models and machines have, so that a slip is named before it fills the memory.
WIDTH, DEPTH, BATCH, VOCABULARY = (_within(1, most) for most in (65_536, 1024, 2**20, 10_000_000))
_FIELDS: dict[str, Rule] = {
    "seed seeds data.seed optimizer.warmup_steps optimizer.weight_decay data.joint.* "
    "kl_weight mask_weight small_mask_weight optimizer.instruction_lr_scale "
    "loop.max_skipped_steps": NOT_NEGATIVE,
    "loop.num_steps loop.log_every_steps loop.eval_every_steps loop.checkpoint_every_steps "
    "loop.num_eval_examples optimizer.max_grad_norm segment_weight model.rope_theta sampler.shift "
    "timesteps.segment.std timesteps.generate.std": POSITIVE,
    "data.size model.hidden_size model.ffn_size model.channels model.patch_size model.text_dim "
    "model.frequency_dim mesh.fsdp mesh.tensor vae.base_dim vae.decoder_base_dim vae.channels "
    "vae.multipliers vae.patch_size instruction.tiny.max_tokens instruction.tiny.hidden_size "
    "instruction.minilm_max_tokens": WIDTH,
    "model.depth model.num_heads vae.num_res_blocks instruction.tiny.depth instruction.tiny.num_heads "
    "data.mixture.* loop.grad_accumulation_steps sampler.mask_steps sampler.image_steps": DEPTH,
    "model.lora_rank data.num_workers": _within(0, 1024),
    "loop.global_batch_size": BATCH,
    "instruction.tiny.vocab_size": VOCABULARY,
    "loop.ema_decay optimizer.b1 optimizer.b2 condition_dropout sampler.no_target_area "
    "sampler.no_target_score": FRACTION,
    "sampler.mask_threshold timesteps.segment.a timesteps.generate.a optimizer.learning_rate": INSIDE,
    "sampler.mask_samples": _within(1, MAX_NOISES),
    "data.augment.crop": SHARE,
    "data.augment.flip data.augment.jitter data.absent_share sampler.refine_t sampler.mask_noise "
    "timesteps.segment.low_share timesteps.generate.low_share": UNIT,
    "sampler.guidance_scale timesteps.segment.mean timesteps.generate.mean": FINITE,
    "mesh.data": AXIS,
    "loop.max_grad_norm_ratio": RATIO,
}
RULES: dict[str, Rule] = {name: rule for names, rule in _FIELDS.items() for name in names.split()}


def rule_of(name: str) -> Rule | None:
    """The rule of a field by its dotted name; None if there is none."""
    return RULES.get(name) or RULES.get(f"{name.rpartition('.')[0]}.*")


def numbers(config: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """(dotted name, value) of every number in a dataclass; those in a tuple have the tuple's name."""
    for field in dataclasses.fields(config):
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from numbers(value, f"{name}.")
        for x in value if isinstance(value, tuple) else (value,):
            if isinstance(x, (int, float)) and not isinstance(x, bool):
                yield name, x


def check_ranges(config: Any, prefix: str = "") -> None:
    """Raises UserError if a number is out of its range, infinite or NaN.

    Args:
        config: the whole config, or a group of its fields.
        prefix: of the group, such as "sampler.".
    """
    for name, value in numbers(config, prefix):
        rule = rule_of(name)
        if isinstance(value, int) and abs(value) > MAX_INT:
            raise UserError(f"config.{name} must be at most {MAX_INT}, not {short_repr(value)}")
        if rule is not None and not (math.isfinite(value) and rule[0](value)):
            raise UserError(f"config.{name} {rule[1]}, not {value}")
