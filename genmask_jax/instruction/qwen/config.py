"""The shape of a Qwen2.5-VL (or of a text-only Qwen2.5), and how it is used as an instruction encoder."""

import dataclasses

from genmask_jax.errors import UserError

MIN_VOCABULARY = 262
"""Of a learned tokenizer: all bytes and a prompt's special tokens."""


@dataclasses.dataclass(frozen=True)
class QwenTextConfig:
    """The language model.

    mrope_section: of a head's rotary frequencies, how many turn with the frame, the row and the column.
    tied: the embedding of tokens is also the output projection.
    """

    vocab_size: int = 152064
    hidden_size: int = 3584
    depth: int = 28
    num_heads: int = 28
    num_kv_heads: int = 4
    ffn_size: int = 18944
    rope_theta: float = 1e6
    mrope_section: tuple[int, ...] = (16, 24, 24)
    eps: float = 1e-6
    tied: bool = False


@dataclasses.dataclass(frozen=True)
class QwenVisionConfig:
    """The vision tower; `depth` 0 is none (a text-only model).

    merge_size: of the side of a square of patches that become one token.
    window_size: side of an attention window, pixels.
    full_attention: blocks that attend to the whole image.
    """

    depth: int = 32
    hidden_size: int = 1280
    num_heads: int = 16
    ffn_size: int = 3420
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    window_size: int = 112
    full_attention: tuple[int, ...] = (7, 15, 23, 31)

    @property
    def token_size(self) -> int:
        """Side of the square of pixels that becomes one token."""
        return self.patch_size * self.merge_size

    @property
    def window_patches(self) -> int:
        """Patches of a whole window."""
        return (self.window_size // self.token_size * self.merge_size) ** 2


@dataclasses.dataclass(frozen=True)
class QwenConfig:
    """A model's shape; the defaults are Qwen2.5-VL-7B's."""

    text: QwenTextConfig = QwenTextConfig()
    vision: QwenVisionConfig = QwenVisionConfig()


SIZES = {
    "vl_7b": QwenConfig(),
    "vl_3b": QwenConfig(
        QwenTextConfig(
            vocab_size=151936,
            hidden_size=2048,
            depth=36,
            num_heads=16,
            num_kv_heads=2,
            ffn_size=11008,
            tied=True,
        )
    ),
}
"""Published shapes. What is trained with takes its shape from the weights."""


@dataclasses.dataclass(frozen=True)
class Prompts:
    """What the user's message says; `{text}` is the expression, prompt or question.

    system: the system's message; where empty, what the chat template says by itself.
    phrase: to segment what a phrase names ("the red star").
    sentence: to segment what a sentence asks for: a text that ends with ".", "?" or "!".
    generate: to draw what a text describes.
    reason: asks for a description of what a question is after (launch/sample.py --reason).
    """

    system: str = ""
    phrase: str = "Segment in this picture: {text}"
    sentence: str = "{text} Segment in this picture what is asked for."
    generate: str = "Draw a picture of: {text}"
    reason: str = (
        "{text} Answer with a short, plain description of the thing in this picture that is asked for: what "
        "it is, its colour and where it is. Write nothing else."
    )


@dataclasses.dataclass(frozen=True)
class WriteConfig:
    """How text is written.

    max_new_tokens: at most.
    temperature: 0 takes the likeliest token; above, tokens are drawn.
    top_p: from the likeliest that together have this probability.
    repetition_penalty: logits of tokens that prompt or text have already are divided by it (if below 0,
        multiplied; Keskar et al. 2019). 1 is none; 1.05 is what Qwen2.5-VL is published with.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.05


@dataclasses.dataclass(frozen=True)
class QwenInstructionConfig:
    """Qwen as an instruction encoder.

    weights: directory made by `launch/import_weights.py qwen`; empty for random weights of `shape`.
    shape: of the model without `weights`, whose vocabulary is learned from the dataset's texts.
    layer: whose hidden states are handed out: 1 is the first, `depth` (or -1) the last, which alone is
        normed; counted as transformers counts `hidden_states`.
    image_token_budgets: an image keeps its size if the largest holds it, and is shrunk to it otherwise; it
        is then padded to the smallest that holds it. One program is compiled for each that is met.
    min_image_tokens: smaller images are enlarged.
    max_text_tokens: longer texts are cut.
    drop_template: hand out the states of the image, of the text and of the prompt's last token only.
    train_layers: how many of the last layers are trained along, from the weights; 0 is none.
    lora_rank: of trained low-rank adapters (Hu et al. 2021) on all of the language model's projections; 0 is
        none.
    """

    weights: str = ""
    shape: QwenConfig = QwenConfig()
    layer: int = -1
    image_token_budgets: tuple[int, ...] = (64, 144, 324)
    min_image_tokens: int = 4
    max_text_tokens: int = 64
    prompts: Prompts = Prompts()
    write: WriteConfig = WriteConfig()
    drop_template: bool = True
    train_layers: int = 0
    lora_rank: int = 0


def need_valid(config: QwenInstructionConfig, where: str) -> None:
    """Every complaint that can be made without weights. Raises UserError."""
    for name, prompt in dataclasses.asdict(config.prompts).items():
        if name != "system" and prompt.count("{text}") != 1:
            raise UserError(f"{where}.prompts.{name} must hold {{text}} once: {prompt!r}")
        if "<|" in prompt:
            raise UserError(f"{where}.prompts.{name}: leave <|...|> to the chat template: {prompt!r}")
    budgets = config.image_token_budgets
    if config.min_image_tokens < 1:
        raise UserError(f"{where}.min_image_tokens must be positive")
    if not budgets or list(budgets) != sorted(set(budgets)) or budgets[0] < config.min_image_tokens:
        raise UserError(f"{where}.image_token_budgets must rise and not be below min_image_tokens: {budgets}")
    if config.max_text_tokens < 1:
        raise UserError(f"{where}.max_text_tokens must be positive")
    if config.train_layers < 0 or config.lora_rank < 0:
        raise UserError(f"{where}: train_layers and lora_rank must not be negative")
    if config.train_layers and config.lora_rank:
        raise UserError(f"{where}: train_layers or lora_rank, not both")
    write = config.write
    if write.max_new_tokens < 1:
        raise UserError(f"{where}.write.max_new_tokens must be positive")
    if write.temperature != 0 and not 0.01 <= write.temperature < 100:
        raise UserError(f"{where}.write.temperature {write.temperature}: 0, or from 0.01 to 100")
    if not 0 < write.top_p <= 1:
        raise UserError(f"{where}.write.top_p must be above 0 and at most 1")
    if not 0.1 <= write.repetition_penalty <= 10:
        raise UserError(f"{where}.write.repetition_penalty must be from 0.1 to 10; 1 is none")
    if not config.weights:
        need_shape(config.shape, f"{where}.shape")
        if config.shape.text.vocab_size < MIN_VOCABULARY:
            raise UserError(f"{where}.shape.text.vocab_size must be at least {MIN_VOCABULARY}")
        need_layer(config, config.shape, where)


def need_shape(shape: QwenConfig, where: str) -> None:
    """Raises UserError where the numbers of a model's shape do not fit together."""
    text, vision = shape.text, shape.vision

    def need(condition: bool, complaint: str) -> None:
        if not condition:
            raise UserError(f"{where}: {complaint}")

    for name in ("vocab_size", "hidden_size", "depth", "num_heads", "num_kv_heads", "ffn_size"):
        need(getattr(text, name) > 0, f"text.{name} must be positive")
    need(text.hidden_size % (2 * text.num_heads) == 0, "text.hidden_size must be a multiple of 2 x num_heads")
    need(text.num_heads % text.num_kv_heads == 0, "text.num_heads must be a multiple of num_kv_heads")
    half = text.hidden_size // text.num_heads // 2
    need(
        len(text.mrope_section) == 3 and sum(text.mrope_section) == half,
        f"text.mrope_section {text.mrope_section} must be three numbers that add up to half a head, {half}",
    )
    if not vision.depth:
        return
    for name in ("hidden_size", "num_heads", "ffn_size", "patch_size", "temporal_patch_size", "merge_size"):
        need(getattr(vision, name) > 0, f"vision.{name} must be positive")
    need(
        vision.hidden_size % (4 * vision.num_heads) == 0,
        "vision.hidden_size must be a multiple of 4 x num_heads",
    )
    need(
        vision.window_size >= vision.token_size,
        f"vision.window_size must be at least patch_size x merge_size = {vision.token_size}",
    )


def need_layer(config: QwenInstructionConfig, shape: QwenConfig, where: str) -> int:
    """The layer that is handed out, from 1 to the depth. Raises UserError where there is no such layer."""
    depth = shape.text.depth
    layer = config.layer + depth + 1 if config.layer < 0 else config.layer
    if not 1 <= layer <= depth:
        raise UserError(f"{where}.layer {config.layer}: the model has layers 1 to {depth}, or -{depth} to -1")
    if config.train_layers > layer:
        raise UserError(f"{where}.train_layers {config.train_layers}: only {layer} layers are used")
    return layer
