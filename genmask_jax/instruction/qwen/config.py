"""Shape of a Qwen2.5-VL or of a text-only Qwen2.5, and its options as an instruction encoder."""

import dataclasses

from genmask_jax.utils.errors import UserError

MIN_VOCABULARY = 262
"""Minimum vocabulary of a learned tokenizer: all bytes and the special tokens of a prompt."""


@dataclasses.dataclass(frozen=True)
class QwenTextConfig:
    """Shape of the language model.

    mrope_section: number of a head's rotary frequencies that encode the frame, the row and the column.
    tied: whether the token embedding is also the output projection.
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
    """Shape of the vision tower; `depth` 0 means that there is none (a text-only model).

    merge_size: side of the square of patches that are merged into one token.
    window_size: side of an attention window, in pixels.
    full_attention: indices of the blocks that attend to the whole image.
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
        """Side of the square that becomes one token, in pixels."""
        return self.patch_size * self.merge_size

    @property
    def window_patches(self) -> int:
        """Number of patches in a full window."""
        return (self.window_size // self.token_size * self.merge_size) ** 2


@dataclasses.dataclass(frozen=True)
class QwenConfig:
    """Shape of a model; the defaults are those of Qwen2.5-VL-7B."""

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
"""Shapes of published models. A run with imported weights reads the shape from them."""


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Templates of the user's message; `{text}` is the expression, prompt or question.

    system: the system message; the chat template's default if empty.
    phrase: segments the object that a phrase names ("the red star").
    sentence: segments the object that a sentence refers to: a text that ends with ".", "?" or "!".
    generate: generates an image from a text.
    reason: asks for a description of the object that a question refers to (launch/sample.py --reason).
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
    """Options of text generation.

    max_new_tokens: maximum number of generated tokens.
    temperature: 0 for the most likely token; tokens are sampled above 0.
    top_p: probability mass of the most likely tokens that are sampled from.
    repetition_penalty: factor that divides positive logits, and multiplies negative ones, of tokens that
        occur in the prompt or the generated text (Keskar et al. 2019). 1 for none; Qwen2.5-VL uses 1.05.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.05


@dataclasses.dataclass(frozen=True)
class QwenInstructionConfig:
    """Options of Qwen as an instruction encoder.

    weights: directory made by `launch/import_weights.py qwen`; empty for random weights of `shape`.
    shape: shape of a model without `weights`, whose vocabulary is learned from the dataset's texts.
    layer: layer whose hidden states are the embeddings, from 1 to `depth` (or -1 for the last), as in
        transformers' `hidden_states`. Only the states of the last layer are normed.
    image_token_budgets: sizes of prepared images, in tokens. Larger images are shrunk to the largest budget,
        and every image is padded to the smallest budget that holds it. One program is compiled per budget.
    min_image_tokens: minimum number of tokens of an image; smaller images are enlarged.
    max_text_tokens: maximum number of tokens of a text; longer texts are truncated.
    drop_template: whether to use only the states of the image, of the text and of the last token.
    train_layers: number of last layers to train with the DiT, starting from the weights; 0 for none.
    lora_rank: rank of the trained low-rank adapters (Hu et al. 2021) on all projections of the language
        model; 0 for none.
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
    """Raises UserError if an option is invalid; checks that need the weights are not included."""
    for name, prompt in dataclasses.asdict(config.prompts).items():
        if name != "system" and prompt.count("{text}") != 1:
            raise UserError(f"{where}.prompts.{name} must contain {{text}} once: {prompt!r}")
        if "<|" in prompt:
            raise UserError(f"{where}.prompts.{name}: leave <|...|> to the chat template: {prompt!r}")
    budgets = config.image_token_budgets
    if config.min_image_tokens < 1:
        raise UserError(f"{where}.min_image_tokens must be positive")
    if not budgets or list(budgets) != sorted(set(budgets)) or budgets[0] < config.min_image_tokens:
        raise UserError(
            f"{where}.image_token_budgets {budgets}: must ascend and be at least min_image_tokens"
        )
    if config.max_text_tokens < 1:
        raise UserError(f"{where}.max_text_tokens must be positive")
    if config.train_layers < 0 or config.lora_rank < 0:
        raise UserError(f"{where}: train_layers and lora_rank must not be negative")
    if config.train_layers and config.lora_rank:
        raise UserError(f"{where}: set train_layers or lora_rank, not both")
    _need_valid_write(config.write, f"{where}.write")
    if not config.weights:
        need_shape(config.shape, f"{where}.shape")
        if config.shape.text.vocab_size < MIN_VOCABULARY:
            raise UserError(f"{where}.shape.text.vocab_size must be at least {MIN_VOCABULARY}")
        need_layer(config, config.shape, where)


def _need_valid_write(config: WriteConfig, where: str) -> None:
    if config.max_new_tokens < 1:
        raise UserError(f"{where}.max_new_tokens must be positive")
    if config.temperature != 0 and not 0.01 <= config.temperature < 100:
        raise UserError(f"{where}.temperature {config.temperature}: must be 0, or from 0.01 to 100")
    if not 0 < config.top_p <= 1:
        raise UserError(f"{where}.top_p must be above 0 and at most 1")
    if not 0.1 <= config.repetition_penalty <= 10:
        raise UserError(f"{where}.repetition_penalty must be from 0.1 to 10; 1 for none")


def need_shape(shape: QwenConfig, where: str) -> None:
    """Raises UserError if the dimensions of a model do not fit together."""
    text, vision = shape.text, shape.vision

    def need(condition: bool, message: str) -> None:
        if not condition:
            raise UserError(f"{where}: {message}")

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
    """The layer whose states are used, from 1 to the depth. Raises UserError if it does not exist."""
    depth = shape.text.depth
    layer = config.layer + depth + 1 if config.layer < 0 else config.layer
    if not 1 <= layer <= depth:
        raise UserError(f"{where}.layer {config.layer}: the model has layers 1 to {depth}, or -{depth} to -1")
    if config.train_layers > layer:
        raise UserError(f"{where}.train_layers {config.train_layers}: only {layer} layers are used")
    return layer
