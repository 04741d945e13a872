"""The configuration: typed, frozen dataclasses, and their checks.

A file in `configs/` builds a `TrainConfig`, `VAETrainConfig` or `EvaluationConfig` and returns it as a
ConfigDict, which the command line may override. `from_config_dict` converts it back to the dataclass. All
code below the commands uses the dataclass.
"""

import dataclasses
import math
import numbers
from typing import Any, TypeVar

from ml_collections import ConfigDict

from genmask_jax.errors import ArgumentError, UserError
from genmask_jax.fields import from_dict
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.instruction.factory import ENCODERS
from genmask_jax.instruction.qwen.config import need_valid
from genmask_jax.models.dit import DiTConfig
from genmask_jax.models.layers import REMAT
from genmask_jax.models.vae import VAEConfig
from genmask_jax.ranges import check_ranges, rule_of
from genmask_jax.sharding import MeshConfig
from genmask_jax.timesteps import Law

DIT_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 192, "depth": 5, "num_heads": 4, "ffn_size": 768},
    "s": {"hidden_size": 384, "depth": 12, "num_heads": 6, "ffn_size": 1536},
    "b": {"hidden_size": 768, "depth": 12, "num_heads": 12, "ffn_size": 3072},
    "l": {"hidden_size": 1536, "depth": 30, "num_heads": 12, "ffn_size": 8960},  # Wan 2.1 1.3B
    "xl": {"hidden_size": 5120, "depth": 40, "num_heads": 40, "ffn_size": 13824},  # Wan 2.1 14B
}


@dataclasses.dataclass(frozen=True)
class JointConfig:
    """Relative weights of the train splits in the mixture "refcoco_joint".

    A weight of 0 excludes the dataset. Images in a val or test split of RefCOCO, RefCOCO+ (unc) or RefCOCOg
    (umd), or of another COCO dataset in the mixture, are excluded from all of them.
    """

    refcoco_unc: float = 1.0
    refcoco_google: float = 0.0
    refcocoplus_unc: float = 1.0
    refcocog_umd: float = 1.0
    refcocog_google: float = 0.0
    grefcoco_unc: float = 0.0
    reasonseg: float = 0.0
    image_folder: float = 0.0


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Random augmentation of training examples (`data/augment.py`); none by default.

    crop: smallest share of an image's area that a random crop keeps; 1 for no crop.
    flip: probability of mirroring an image and its words, if the words allow it.
    flip_words: words of the texts that stay true in a mirror image, in addition to common English ones.
    jitter: largest relative change of brightness, contrast and saturation.
    """

    crop: float = 1.0
    flip: float = 0.0
    flip_words: tuple[str, ...] = ()
    jitter: float = 0.0


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Training data.

    name: dataset of images with masks: "refershapes" (built in), or a dataset made by launch/prepare_data.py:
        "stamps", "refcoco:unc", "reasonseg", "image_folder", ..., or "refcoco_joint", a mixture with the
        weights of `joint`.
    generate: dataset of images with prompts: "coco_captions", "image_folder" or "refershapes"; empty if
        `name` has prompts itself; "classes" for the images of `name` with their classes as prompts; "none" to
        train on masks alone, with the whole batch.
    scenes: style of ReferShapes' scenes: "muted", or "varied", which also has plain and light backgrounds,
        shapes of any size and angle, hearts and rings, outlines and shadows.
    path: --out of launch/prepare_data.py; empty for a built-in dataset.
    latents: directory of cached latents (launch/encode_latents.py) to train on instead of images; empty to
        encode images in every step.
    size: side of the square images, pixels.
    seed: seed of generated scenes.
    num_workers: processes that prepare batches; 0 uses threads of the main process.
    augment: random augmentation of training examples.
    templates: texts that ask for a class, with {} for its name; training draws one, scoring uses the first.
    absent_share: share of training examples that ask for a class that the image does not show (an empty
        mask). Images without any class are only trained on in this way.
    """

    name: str = "refershapes"
    generate: str = ""
    joint: JointConfig = JointConfig()
    scenes: str = "muted"
    path: str = ""
    latents: str = ""
    size: int = 64
    seed: int = 0
    num_workers: int = 0
    augment: AugmentConfig = AugmentConfig()
    templates: tuple[str, ...] = ("{}",)
    absent_share: float = 0.0

    @property
    def varies(self) -> bool:
        """Whether training examples are augmented at random."""
        return self.augment != AugmentConfig() or len(self.templates) > 1 or self.absent_share > 0


@dataclasses.dataclass(frozen=True)
class TimestepsConfig:
    """Distributions of the timesteps in training (see `genmask_jax/timesteps.py`)."""

    segment: Law = Law("bimodal")
    generate: Law = Law("logit_normal")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser, with linear warm-up, cosine decay to zero and clipping by the gradient's global norm.

    name: "adamw", or "muon": Muon for the matrices of transformer blocks and Adam for the rest.
    warmup_steps: steps of linear warm-up; at most a quarter of the run.
    weight_decay: for matrices (also those of adapters); biases, norms, tables and embeddings have none.
    instruction_lr_scale: factor on the learning rate for an instruction encoder that is trained with the DiT.
    moments_dtype: dtype of the moments between steps; "bfloat16" halves their memory. They are updated in
        float32 and rounded, which loses changes below about 0.3 %, so b2 must not exceed 0.99.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    instruction_lr_scale: float = 0.1
    warmup_steps: int = 100
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.99
    max_grad_norm: float = 1.0
    moments_dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """Sampling, in validation and in the commands.

    mask_steps: passes per mask: 1 is one pass from pure noise; further passes refine the mask at low noise.
    refine_t: timestep at which a mask is refined; 0 for the median of the low mode of `timesteps.segment`.
        Refining at a level that training seldom draws makes masks worse.
    mask_samples: number of noises whose masks are averaged.
    mask_threshold: probability above which a pixel is in the mask. A threshold chosen on val is better than
        0.5, because a model that doubts between two objects gives both a lower probability.
    no_target_area: masks that cover at most this fraction of the image become empty (no target); 0 for none.
    no_target_score: masks whose pixels have a mean probability below this become empty; 0 for none.
    image_steps: sampling steps per generated image.
    method: integrator for images, "euler" or "heun".
    guidance_scale: scale of classifier-free guidance for images; 1 is no guidance.
    shift: shift of the timesteps for images towards noise; 1 is no shift.
    """

    mask_steps: int = 1
    refine_t: float = 0.0
    mask_samples: int = 1
    mask_threshold: float = 0.5
    no_target_area: float = 0.0
    no_target_score: float = 0.0
    image_steps: int = 20
    method: str = "euler"
    guidance_scale: float = 3.0
    shift: float = 1.0


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Settings of the training loop.

    num_steps: optimizer steps of the run.
    global_batch_size: examples per step, over all devices and hosts.
    grad_accumulation_steps: parts of a batch whose gradients are accumulated, to save memory.
    ema_decay: decay of the average of the parameters that validation and sampling use; 0 for no average.
    log_every_steps: interval of logged losses.
    eval_every_steps: interval of validation, which also writes sample images and a checkpoint.
    checkpoint_every_steps: interval of checkpoints without validation.
    num_eval_examples: examples of the val split in a validation.
    """

    num_steps: int = 2000
    global_batch_size: int = 32
    grad_accumulation_steps: int = 1
    ema_decay: float = 0.999
    log_every_steps: int = 50
    eval_every_steps: int = 500
    checkpoint_every_steps: int = 500
    num_eval_examples: int = 128


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Training of GenMask itself.

    name: name of the run in logs and reports.
    vae: directory of a VAE: trained (launch/train_vae.py), imported (launch/import_weights.py) or of a run;
        or the name of a model in the package.
    init: directory of weights to start from: imported (launch/import_weights.py) or of a training run, or the
        name of a model in the package; empty for random initialisation. With `model.lora_rank`, these weights
        are frozen. Adapters are trained, and parts that the weights do not have (a text projection of another
        width, a trained instruction encoder).
    seed: seed of initialisation, noise and data order.
    model: the DiT; `channels` and `text_dim` are set from the VAE and the instruction encoder.
    segment_weight: weight of the masks' loss relative to the images'; 1 is the paper's objective.
    small_mask_weight: largest extra weight in the loss for the inside of a small object's mask
        (`training/genmask.py`); 0 is the paper's objective.
    condition_dropout: fraction of generation prompts that are replaced by the null instruction.
    compute_dtype: dtype of matrix products; parameters, norms, softmax and loss are float32.
    """

    name: str
    vae: str
    model: DiTConfig
    init: str = ""
    seed: int = 0
    data: DataConfig = DataConfig()
    instruction: InstructionConfig = InstructionConfig()
    timesteps: TimestepsConfig = TimestepsConfig()
    segment_weight: float = 1.0
    small_mask_weight: float = 0.0
    condition_dropout: float = 0.1
    compute_dtype: str = "float32"
    optimizer: OptimizerConfig = OptimizerConfig()
    loop: LoopConfig = LoopConfig()
    sampler: SamplerConfig = SamplerConfig()
    mesh: MeshConfig = MeshConfig()


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Benchmarks for launch/evaluate.py.

    benchmarks: each as DATASET:SPLIT_BY:SPLIT or DATASET:SPLIT, such as "refcoco:unc:testA", "reasonseg:val".
    path: --out of launch/prepare_data.py; the run's own `data.path` if empty.
    reason: let the run's Qwen describe the target of each question, and segment the description.
    """

    benchmarks: tuple[str, ...]
    path: str = ""
    reason: bool = False


@dataclasses.dataclass(frozen=True)
class VAETrainConfig:
    """Training of a VAE on images and on masks as RGB, half of the batch each.

    name: name of the run in logs and reports.
    init: directory of a VAE of the same shape to start from, or the name of a model in the package; empty for
        random initialisation.
    seed: seed of initialisation, noise and data order.
    mask_weight: weight of the masks' reconstruction error relative to the images'.
    kl_weight: weight of the KL divergence (nats per latent value).
    compute_dtype: dtype of convolutions; parameters and loss are float32.
    """

    name: str
    vae: VAEConfig
    init: str = ""
    seed: int = 0
    data: DataConfig = DataConfig()
    mask_weight: float = 1.0
    kl_weight: float = 1e-6
    compute_dtype: str = "float32"
    optimizer: OptimizerConfig = OptimizerConfig()
    loop: LoopConfig = LoopConfig()
    mesh: MeshConfig = MeshConfig()


C = TypeVar("C")


def from_config_dict(kind: type[C], values: ConfigDict | dict, where: str = "config", file: str = "") -> C:
    """Converts a ConfigDict, or a dictionary read from JSON, to the dataclass `kind`, and validates it.

    Args:
        kind: dataclass of the config.
        values: its fields.
        where: prefix of field names in errors.
        file: name of the file in the error about another kind of config; `where` if empty.

    Raises:
        UserError: a field is unknown, missing, of the wrong type, or inconsistent with the others.
    """
    _need_kind(kind, values, file or where)
    config = from_dict(kind, values, where)
    if isinstance(config, (TrainConfig, VAETrainConfig)):
        validate(config)
    elif isinstance(config, EvaluationConfig) and not config.benchmarks:
        raise UserError("config.benchmarks is empty; give at least one, such as reasonseg:val")
    return config


def _need_kind(kind: type, values: ConfigDict | dict, file: str) -> None:
    """Raises UserError if the values are the fields of another kind of config."""
    users = {TrainConfig: "train", VAETrainConfig: "train_vae", EvaluationConfig: "evaluate"}
    for other, user in users.items():
        names = {field.name for field in dataclasses.fields(other)}
        if other is not kind and kind in users and set(values) == names:
            raise UserError(f"{file} is a config for launch/{user}.py, not for launch/{users[kind]}.py")


def validate(config: TrainConfig | VAETrainConfig) -> None:
    """Checks everything that can be checked without data or weights. Raises UserError."""
    loop, data = config.loop, config.data

    def need(condition: bool, complaint: str):
        if not condition:
            raise UserError(f"config.{complaint}")

    check_ranges(config)
    if data.name == "refcoco_joint":
        need(any(dataclasses.asdict(data.joint).values()), "data.joint: all weights are 0")
    need(
        bool(data.templates) and all(template.count("{}") == 1 for template in data.templates),
        f"data.templates: each of {data.templates} must contain one {{}}, for the name of a class",
    )
    need(
        not (data.latents and data.varies),
        "data.latents: they cannot be augmented; leave out data.augment, templates and absent_share",
    )
    need(
        not (data.latents and data.generate == "none"),
        "data.latents: a cache has masks and images; data.generate=none does not work with it",
    )
    small = isinstance(config, TrainConfig) and config.small_mask_weight > 0
    need(
        not (data.latents and small),
        "small_mask_weight needs masks, which a cache of latents does not have; leave out data.latents",
    )
    need(
        loop.global_batch_size % (2 * loop.grad_accumulation_steps) == 0,
        "loop.global_batch_size must be a multiple of 2 x loop.grad_accumulation_steps",
    )
    need(
        config.compute_dtype in ("float32", "bfloat16"),
        f"compute_dtype: {config.compute_dtype!r} is not float32 or bfloat16",
    )
    optimizer = config.optimizer
    need(optimizer.name in ("adamw", "muon"), f"optimizer.name: {optimizer.name!r} is not adamw or muon")
    need(
        optimizer.moments_dtype in ("float32", "bfloat16"),
        f"optimizer.moments_dtype: {optimizer.moments_dtype!r} is not float32 or bfloat16",
    )
    need(
        optimizer.moments_dtype == "float32" or optimizer.b2 <= 0.99,
        f"optimizer.b2 {optimizer.b2} must be at most 0.99 with moments in bfloat16",
    )
    if isinstance(config, VAETrainConfig):
        need(bool(config.vae.multipliers), "vae.multipliers must not be empty")
        need(optimizer.name == "adamw", "optimizer.name: a VAE has no transformer blocks; use adamw")
        need(
            data.size % config.vae.stride == 0,
            f"data.size {data.size} is not a multiple of the VAE's stride {config.vae.stride}",
        )
        return
    model, sampler = config.model, config.sampler
    need(
        model.hidden_size % (2 * model.num_heads) == 0,
        f"model.hidden_size {model.hidden_size} must be a multiple of 2 x num_heads {model.num_heads}",
    )
    need(
        bool(config.init) or not model.lora_rank,
        f"model.lora_rank {model.lora_rank} needs weights to adapt; set config.init",
    )
    need(model.remat in REMAT, f"model.remat: {model.remat!r} is not {', '.join(REMAT)}")
    need(model.frequency_dim % 2 == 0, f"model.frequency_dim {model.frequency_dim} must be even")
    need(
        config.instruction.name in ENCODERS,
        f"instruction.name: {config.instruction.name!r} is not {', '.join(ENCODERS)}",
    )
    tiny = config.instruction.tiny
    need(
        tiny.hidden_size % tiny.num_heads == 0,
        f"instruction.tiny.hidden_size {tiny.hidden_size} must be a multiple of num_heads {tiny.num_heads}",
    )
    if config.instruction.name == "qwen":
        need_valid(config.instruction.qwen, "config.instruction.qwen")
    validate_sampler(sampler)


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


def with_refinement(sampler: SamplerConfig, law: Law) -> SamplerConfig:
    """The sampler with `refine_t` set from the law, if masks are refined and `refine_t` is 0.

    Args:
        sampler: sampling of masks.
        law: law of the noise levels that masks were trained at.

    Raises:
        UserError: the law has no low mode.
    """
    if sampler.mask_steps == 1 or sampler.refine_t:
        return sampler
    if law.low_level is None:
        raise ArgumentError(
            "mask_steps",
            f"={sampler.mask_steps}: masks were trained by the law {law.name!r}, which has no levels for "
            "refining; use mask_steps=1, or set refine_t",
        )
    return dataclasses.replace(sampler, refine_t=law.low_level)


def validate_sampler(sampler: SamplerConfig) -> None:
    """Raises UserError if a field of `config.sampler` is out of range."""

    check_ranges(sampler, "sampler.")
    if sampler.method not in ("euler", "heun"):
        raise UserError(f"config.sampler.method: {sampler.method!r} is not euler or heun")
