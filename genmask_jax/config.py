"""The configuration: typed, frozen, and checked in one place.

A file in `configs/` builds a `TrainConfig`, `VAETrainConfig` or `EvaluationConfig` and returns it as a
ConfigDict, which the command line may override. `from_config_dict` converts that back to the dataclass; all
code below the scripts sees only the dataclass.
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
    """Relative weights with which "refcoco_joint" samples the train split of each dataset.

    A weight of 0 leaves the dataset out. Images in a val or test split of RefCOCO, RefCOCO+ (unc) or RefCOCOg
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
    """Random variation of training examples (`data/augment.py`); none by default.

    crop: the smallest share of an image's area that a crop keeps; 1 for no crop.
    flip: probability of mirroring an image and its words, where these surely can be.
    flip_words: words of the texts that are as true of a mirror image, beside common English ones.
    jitter: by how much brightness, contrast and saturation may change, as a share.
    """

    crop: float = 1.0
    flip: float = 0.0
    flip_words: tuple[str, ...] = ()
    jitter: float = 0.0


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Training data.

    name: dataset of images with masks: "refershapes" (built in), or one made by launch/prepare_data.py:
        "stamps", "refcoco_joint" (a mixture, weighted by `joint`), or a single one such as "refcoco:unc",
        "reasonseg", "image_folder".
    generate: dataset of images with prompts: "coco_captions", "image_folder" or "refershapes"; empty if
        `name` has prompts of its own; "classes" for the images of `name` with prompts that list their
        classes; "none" to train on masks alone: the whole batch is masks.
    scenes: style of ReferShapes' scenes: "muted", or "varied", which also has plain and light backgrounds,
        shapes of any size and angle, hearts and rings, outlines and shadows.
    path: the --out of launch/prepare_data.py; empty for a built-in dataset.
    latents: directory of cached latents (launch/encode_latents.py) to train on instead of images; empty to
        encode images in every step.
    size: side of the square images, pixels.
    seed: for composing scenes.
    num_workers: processes that prepare batches; 0 uses threads of the main process.
    augment: random variation of training examples.
    templates: how a class is asked for, with {} for its name; training draws one, scoring uses the first.
    absent_share: how often training asks for a class that the image does not show (an empty mask). Images
        that show no class at all are trained on in this way alone.
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
        """Whether training examples are varied at random."""
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
    warmup_steps: of the learning rate; of a short run, at most a quarter of its steps.
    weight_decay: of matrices alone (adapters' too); biases, norms, tables and embeddings have none.
    instruction_lr_scale: factor on the learning rate for an instruction encoder that is trained with the DiT.
    moments_dtype: in which the moments are kept between steps; "bfloat16" halves their memory. They are
        updated in float32 and rounded to the nearest, which loses changes of less than some 0.3 %: b2 must
        not exceed 0.99.
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
    """Sampling in validation and in the scripts.

    mask_steps: 1 is one pass from pure noise; further passes refine the mask at low noise.
    refine_t: timestep at which a mask is refined; 0 for the median of the low mode of `timesteps.segment`,
        the law that masks were trained by. Refining at a level that it hardly draws makes masks worse.
    mask_samples: number of noise samples whose masks are averaged.
    mask_threshold: a pixel is in the mask if its probability is above this. 0.5 is halfway between black and
        white; a model in doubt between two objects gives each less, so a threshold chosen on val is better.
    no_target_area, no_target_score: a mask that covers at most this fraction of the image, or whose pixels'
        mean probability is below this, is replaced by an empty one (no target). 0 keeps masks as they are.
    image_steps, method, guidance_scale, shift: for image generation.
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

    ema_decay: of the average of the parameters that is validated and sampled with; 0 for no average.
    eval_every_steps: interval of validation, which also writes sample images and a checkpoint.
    checkpoint_every_steps: interval of checkpoints without validation.
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

    vae: directory of a VAE, trained (launch/train_vae.py) or imported (launch/import_weights.py).
    init: directory of weights to start from: imported ones (launch/import_weights.py), or a training run's;
        empty for random initialisation. With `model.lora_rank` they stay as they are; adapters are trained,
        and what these weights lack (the projection of texts of another width, a trained instruction encoder).
    model: the DiT; `channels` and `text_dim` are set from the VAE and the instruction encoder.
    compute_dtype: of the matrix products; parameters, norms, softmax and loss are float32.
    segment_weight: weight of the masks' loss relative to the images'; 1 is the paper's objective.
    small_mask_weight: the most that the inside of a small object's mask weighs above the rest of its mask
        (`training/genmask.py`); 0 is the paper's objective.
    condition_dropout: fraction of generation prompts that are replaced by the null instruction.
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
    """Benchmarks that launch/evaluate.py scores a run on.

    benchmarks: each as DATASET:SPLIT_BY:SPLIT or DATASET:SPLIT, such as "refcoco:unc:testA", "reasonseg:val".
    path: the --out of launch/prepare_data.py; the run's own `data.path` if empty.
    reason: let the run's Qwen first describe what each question asks for, and segment that.
    """

    benchmarks: tuple[str, ...]
    path: str = ""
    reason: bool = False


@dataclasses.dataclass(frozen=True)
class VAETrainConfig:
    """Training of a VAE on images and on masks as RGB, half of the batch each.

    mask_weight: weight of the masks' reconstruction error relative to the images'.
    kl_weight: weight of the KL divergence (nats per latent value).
    init: directory of a VAE of the same shape to start from, or the name of a model in the package; empty for
        random initialisation.
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
        kind: of the config.
        values: of its fields.
        where: what the names of fields begin with in errors.
        file: what the error calls the file if it holds another kind of config; `where` if empty.

    Raises:
        UserError: a field is unknown, missing, of the wrong type, or inconsistent with the others.
    """
    _need_kind(kind, values, file or where)
    config = from_dict(kind, values, where)
    if isinstance(config, (TrainConfig, VAETrainConfig)):
        validate(config)
    elif isinstance(config, EvaluationConfig) and not config.benchmarks:
        raise UserError("config.benchmarks is empty; name some, such as reasonseg:val")
    return config


def _need_kind(kind: type, values: ConfigDict | dict, file: str) -> None:
    """Raises UserError if the values are those of another kind of config."""
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
        f"data.templates: {data.templates} must each hold one {{}}, for the name of a class",
    )
    need(
        not (data.latents and data.varies),
        "data.latents: cached latents cannot be varied; leave out data.augment, templates and absent_share",
    )
    need(not (data.latents and data.generate == "none"), "data.latents are of masks and images")
    small = isinstance(config, TrainConfig) and config.small_mask_weight > 0
    need(not (data.latents and small), "small_mask_weight needs masks, and data.latents has none")
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
        f"optimizer.b2 {optimizer.b2} is above 0.99, which moments in bfloat16 are too coarse for",
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
        f"model.lora_rank {model.lora_rank} adapts weights; name them with config.init",
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
    """The sampler with the given fields replaced, except those that are None.

    Raises:
        ArgumentError: a value is not a number of the field's kind, or out of its range.
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
    """The sampler with the level at which masks are refined, if they are and it is left to the law.

    Args:
        sampler: how masks are sampled.
        law: by which masks were trained.

    Raises:
        UserError: the law has no low mode.
    """
    if sampler.mask_steps == 1 or sampler.refine_t:
        return sampler
    if law.low_level is None:
        raise ArgumentError(
            "mask_steps",
            f"={sampler.mask_steps}: masks were trained by the law {law.name!r}, which has no low "
            "mode to refine them at; use mask_steps=1, or give refine_t",
        )
    return dataclasses.replace(sampler, refine_t=law.low_level)


def validate_sampler(sampler: SamplerConfig) -> None:
    """Raises UserError if a field of `config.sampler` is out of range."""

    check_ranges(sampler, "sampler.")
    if sampler.method not in ("euler", "heun"):
        raise UserError(f"config.sampler.method: {sampler.method!r} is not euler or heun")
