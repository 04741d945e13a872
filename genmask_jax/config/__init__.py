"""The configuration: typed, frozen dataclasses. `checks.py` validates them.

A file in `configs/` builds a `TrainConfig`, `VAETrainConfig`, `EvaluationConfig` or `SweepConfig` and returns
it as a ConfigDict, which the command line may override. `checks.from_config_dict` converts it back to the
dataclass and checks it. All code in layers below the commands uses the dataclass.
"""

import dataclasses
from typing import Any

from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.models.dit import DiTConfig
from genmask_jax.models.vae import VAEConfig
from genmask_jax.sharding import MeshConfig
from genmask_jax.timesteps import TimestepDistribution

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
    flip: probability of mirroring an image (and swapping left and right in its text), if the text allows it.
    flip_words: further words that remain true when the image is mirrored; common English words are built in.
    jitter: largest relative change of brightness, contrast and saturation.
    """

    crop: float = 1.0
    flip: float = 0.0
    flip_words: tuple[str, ...] = ()
    jitter: float = 0.0


@dataclasses.dataclass(frozen=True)
class MixtureConfig:
    """Share of each task in a batch: `masks` examples of masks for every `images` examples of generation.

    The loss is the mean over all examples, with `segment_weight` for masks. Ignored if there are no images
    (`data.generate="none"`).
    """

    masks: int = 1
    images: int = 1

    @property
    def total(self) -> int:
        """A batch has a multiple of this number of examples."""
        return self.masks + self.images


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Training data.

    name: dataset of images with masks: "refershapes" (built in), or a dataset made by launch/prepare_data.py:
        "stamps", "refcoco:unc", "reasonseg", "image_folder", ..., or "refcoco_joint", a mixture with the
        weights of `joint`.
    generate: dataset of images with prompts: "coco_captions", "image_folder" or "refershapes"; empty if
        `name` has prompts itself; "classes" for the images of `name` with their classes as prompts; "none" to
        train on masks alone; the whole batch then consists of masks.
    scenes: style of ReferShapes' scenes: "muted", or "varied", which also has plain and light backgrounds,
        shapes of any size and angle, hearts and rings, outlines and shadows.
    path: directory given to launch/prepare_data.py as --out; empty for a built-in dataset.
    latents: directory of cached latents (launch/encode_latents.py) to train on instead of images; empty to
        encode images in every step.
    size: side of the square images, pixels.
    seed: seed of generated scenes.
    num_workers: processes that prepare batches; 0 uses threads of the main process.
    augment: random augmentation of training examples.
    templates: templates of class expressions, with {} for the class; training draws one, scoring uses the
        first.
    absent_share: share of training examples that ask for a class that the image does not show (an empty
        mask). Images without any class are used only for such examples.
    """

    name: str = "refershapes"
    generate: str = ""
    mixture: MixtureConfig = MixtureConfig()
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

    segment: TimestepDistribution = TimestepDistribution("bimodal")
    generate: TimestepDistribution = TimestepDistribution("logit_normal")


CLEAN_FRAMES = ("timestep_0", "learned", "off")
LATENT_LOSSES = ("velocity", "x0")
PIXEL_LOSSES = ("decoder_cross_entropy", "linear_cross_entropy")
MASK_SOURCES = ("noise", "image")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What the network learns for masks; images always have the velocity's mean squared error.

    clean_frame: how the network sees the clean image of a mask: "timestep_0": its latents are a frame with
        timestep 0; "learned": a frame with the timestep of the noisy mask and a learned vector added to its
        tokens; "off": not at all, so that only an instruction encoder that sees the image knows it.
    mask_loss: mean squared error of the "velocity" or of "x0", the clean latents that it implies;
        "decoder_cross_entropy": cross-entropy of pixels, whose logits are the grey levels of the decoded x0;
        "linear_cross_entropy": the same, with a trained linear layer in the decoder's place, in training and
        in sampling.
    mask_source: what the flow of a mask starts from, at t = 1: "noise", or the latents of its "image", which
        makes sampling deterministic.
    """

    clean_frame: str = "timestep_0"
    mask_loss: str = "velocity"
    mask_source: str = "noise"

    @property
    def needs_masks(self) -> bool:
        """Whether the loss compares pixels, not latents."""
        return self.mask_loss in PIXEL_LOSSES

    @property
    def has_linear_readout(self) -> bool:
        """Whether a linear layer takes the place of the decoder for masks."""
        return self.mask_loss == "linear_cross_entropy"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser, with linear warm-up, cosine decay to zero and clipping by the gradient's global norm.

    name: "adamw", or "muon": Muon for the matrices of transformer blocks and Adam for the rest.
    warmup_steps: steps of linear warm-up; at most a quarter of the run.
    weight_decay: weight decay of matrices, including adapters; biases, norms, tables and embeddings do not
        decay.
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
    mask_noise: standard deviation of the noise of masks, in [0, 1]; 1 as in training, 0 for zeros.
    mask_samples: number of noise samples whose probabilities are averaged; 1 if `mask_noise` is 0.
    mask_threshold: probability above which a pixel is in the mask. A threshold chosen on val is better than
        0.5, because a model that is unsure which object is meant gives each a lower probability.
    no_target_area: masks that cover at most this share of the image become empty (no target); 0 for none.
    no_target_score: masks whose pixels have a mean probability below this become empty; 0 for none.
    image_steps: sampling steps per generated image.
    method: integrator for images, "euler" or "heun".
    guidance_scale: scale of classifier-free guidance for images; 1 is no guidance.
    shift: shift of the timesteps for images towards noise; 1 is no shift.
    """

    mask_steps: int = 1
    refine_t: float = 0.0
    mask_noise: float = 1.0
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
    grad_accumulation_steps: number of microbatches whose gradients are accumulated, to save memory.
    ema_decay: decay of the EMA of the parameters, which validation and sampling use; 0 for no EMA.
    log_every_steps: interval of logged losses.
    eval_every_steps: interval of validation, which also writes sample images and a checkpoint.
    checkpoint_every_steps: interval of checkpoints without validation.
    num_eval_examples: number of val examples per validation.
    max_skipped_steps: largest number of steps in a row whose update may be skipped, because the loss or the
        gradient is not finite or the gradient is a spike; the run stops at the next one.
    max_grad_norm_ratio: a gradient is a spike if its norm, before clipping, exceeds this many times the mean
        norm of about the last 100 updates; 0 for no limit.
    """

    num_steps: int = 2000
    global_batch_size: int = 32
    grad_accumulation_steps: int = 1
    ema_decay: float = 0.999
    log_every_steps: int = 50
    eval_every_steps: int = 500
    checkpoint_every_steps: int = 500
    num_eval_examples: int = 128
    max_skipped_steps: int = 10
    max_grad_norm_ratio: float = 0.0


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Config of a GenMask training run.

    name: name of the run in logs and reports.
    vae: directory of a trained VAE (launch/train_vae.py), of imported weights (launch/import_weights.py) or
        of a training run; or the name of a model in the package.
    init: weights to start from: directory of imported weights (launch/import_weights.py) or of a training
        run, or the name of a model in the package; empty for random initialisation. With `model.lora_rank`,
        these weights are frozen. Only the adapters are trained, and parameters that the weights do not have
        (a text projection of another width, a trained instruction encoder).
    seed: seed of initialisation, noise and data order.
    model: the DiT; `channels`, `text_dim` and `clean_embedding` are set from the VAE, the instruction encoder
        and `objective`.
    segment_weight: weight of the masks' loss relative to the images'; 1 is the paper's objective.
    small_mask_weight: largest extra weight in the loss for the inside of a small object's mask
        (`training/objective.py`); 0 is the paper's objective.
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
    objective: ObjectiveConfig = ObjectiveConfig()
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
    reason: let the run's Qwen turn each question into a description of the target, and segment that.
    """

    benchmarks: tuple[str, ...]
    path: str = ""
    reason: bool = False


@dataclasses.dataclass(frozen=True)
class VAETrainConfig:
    """Config of the training of a VAE. Half of each batch is images, and half is masks as RGB.

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


@dataclasses.dataclass(frozen=True)
class VariantConfig:
    """One variant of a sweep.

    train: fields of the base config by dotted name, such as {"timesteps.segment.name": "uniform"}.
    evaluate: flags of launch/evaluate.py, such as {"mask_steps": 2}.
    base: config of its training; the sweep's `base` if empty.
    scripts: folder of the train.py and evaluate.py that it runs, such as "baselines".
    """

    train: dict[str, object] = dataclasses.field(default_factory=dict)
    evaluate: dict[str, object] = dataclasses.field(default_factory=dict)
    base: str = ""
    scripts: str = "launch"


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """A comparison of variants over several seeds, for launch/sweep.py.

    Variants with the same `train` fields, base and scripts share one training for each seed.

    name: name of the sweep in tables.
    base: config of the trainings: a name, such as "genmask_tiny", or a file.
    variants: by name; names become parts of folder names.
    reference: name of the variant that the others are compared with.
    seeds: seeds of the trainings; each is also the seed of the noise in its evaluations.
    metrics: columns of the table: dotted names in the evaluation's metrics.json, such as "mIoU",
        "groups.kind.mIoU" or "generation.share_right".
    train: fields of `base` that all variants set.
    evaluate: flags of launch/evaluate.py that all variants set.
    """

    name: str
    base: str
    variants: dict[str, VariantConfig]
    reference: str
    seeds: tuple[int, ...] = (0, 1, 2)
    metrics: tuple[str, ...] = ("mIoU", "oIoU")
    train: dict[str, object] = dataclasses.field(default_factory=dict)
    evaluate: dict[str, object] = dataclasses.field(default_factory=dict)
