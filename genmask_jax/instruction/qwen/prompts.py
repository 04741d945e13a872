"""Prepares texts and images as inputs of `encoder.py`, on the host.

Reference: transformers' `Qwen2_5_VLProcessor` (chat template, image tokens) and `get_rope_index`.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tokenizers
from jaxtyping import Bool, Int, UInt8

from genmask_jax.instruction.qwen.config import QwenInstructionConfig, QwenVisionConfig
from genmask_jax.instruction.qwen.images import fit, prepare_image
from genmask_jax.utils.errors import UserError, first_line
from genmask_jax.utils.extras import need

VISION_START, IMAGE, VISION_END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
TEXT_PLACEHOLDER = "\x00text\x00"
"""Placeholder for the text while the chat template is rendered."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{% if part.type == "image" %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}
{%- endfor %}{% endif %}<|im_end|>
{% endfor -%}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""ChatML, for models without a template of their own."""


@dataclasses.dataclass(frozen=True)
class RenderedPrompt:
    """A rendered prompt, without the text.

    before, after: the prompt before and after the text, with one IMAGE token per image.
    num_tokens: number of tokens of both parts, or of the longest prompt of the same batches.
    """

    before: str
    after: str
    num_tokens: int


class PromptMaker:
    """Makes chat prompts with texts and images, as token ids and their positions.

    Args:
        tokenizer: tokenizer of the model.
        chat_template: chat template of the model, in Jinja.
        vision: shape of the vision tower.
        config: prompts and limits.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        chat_template: str,
        vision: QwenVisionConfig,
        config: QwenInstructionConfig,
    ):
        # Used for the chat template only; its overhead exceeds the encoding time.
        need("transformers", "qwen", "Qwen")
        from transformers import PreTrainedTokenizerFast  # slow to import; runs without Qwen do not need it

        self._chat = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=chat_template)
        self.tokenizer, self.vision, self.config = tokenizer, vision, config
        self.image_id = tokenizer.token_to_id(IMAGE)
        added = tokenizer.get_added_tokens_decoder().values()
        self._special = [token.content for token in added if token.special]
        self.limit = f"{config.max_text_tokens} tokens (config.instruction.qwen.max_text_tokens)"

    def truncate(self, text: str) -> str:
        """See `Preparer`."""
        plain = self._strip_special(text)
        beginning = self._truncate(plain)
        return text if beginning == plain else beginning

    def _strip_special(self, text: str) -> str:
        """Removes the model's special tokens from a text."""
        while any(special in text for special in self._special):  # removing one may form another
            for special in self._special:
                text = text.replace(special, "")
        return text

    def _truncate(self, text: str) -> str:
        limit, encoding = self.config.max_text_tokens, self.tokenizer.encode(text, add_special_tokens=False)
        return text if len(encoding.ids) <= limit else text[: encoding.offsets[limit - 1][1]]

    def render(self, prompts: Sequence[str], images: int) -> list[RenderedPrompt]:
        """Renders prompts that are used in the same batches.

        Args:
            prompts: templates of user messages, with {text}.
            images: number of images before each message.

        Raises:
            UserError: the chat template fails, or omits the text or an image.
        """
        rendered = [self._render(prompt, images) for prompt in prompts]
        num_tokens = max(len(self._ids(before + after)) for before, after in rendered)
        return [RenderedPrompt(before, after, num_tokens) for before, after in rendered]

    def _render(self, prompt: str, images: int) -> tuple[str, str]:
        message = prompt.replace("{text}", TEXT_PLACEHOLDER)
        content = [{"type": "image"}] * images + [{"type": "text", "text": message}]
        messages = [{"role": "user", "content": content}]
        if not images:  # templates of text-only models accept nothing else
            messages[0]["content"] = content[0]["text"]
        if self.config.prompts.system:
            messages.insert(0, {"role": "system", "content": self.config.prompts.system})
        try:
            rendered = self._chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates come from strangers: transformers runs them in Jinja's sandbox
            raise UserError(
                f"the chat template fails ({first_line(error)}); does it belong to this model?"
            ) from error
        before, placeholder, after = str(rendered).partition(TEXT_PLACEHOLDER)
        if not placeholder or before.count(IMAGE) != images or IMAGE in after:
            raise UserError("the chat template omits the text or an image; does it belong to this model?")
        return before, after

    def __call__(
        self, rendered: RenderedPrompt, text: str, images: Sequence[UInt8[np.ndarray, "_ _ 3"]] = ()
    ) -> dict[str, np.ndarray]:
        """Prepares one example; for the arrays see `encoder.py`.

        Shapes depend only on `rendered.num_tokens` and on the budget of the images.

        Args:
            rendered: a prompt for this number of images.
            text: truncated if too long; special tokens are removed.
            images: images of any size.

        Raises:
            UserError: an image is too long and narrow.
        """
        config, size = self.config, self.vision.token_size
        bounds = (config.min_image_tokens, config.image_token_budgets[-1])
        images = [fit(image, self.vision, *bounds) for image in images]
        grids = [(image.shape[0] // size, image.shape[1] // size) for image in images]
        budget = self._budget(grids)
        length = rendered.num_tokens + config.max_text_tokens + len(images) * (budget - 1)
        ids, is_text = self._encode(rendered, text, grids, length)
        is_image = (ids == self.image_id) & bool(images)
        positions = rope_positions(is_image, grids)
        output, output_length = np.arange(len(ids)), length
        if config.drop_template:
            output = np.flatnonzero(is_text | is_image | (output == len(ids) - 1))
            output_length = config.max_text_tokens + 1 + budget * len(images)
        inputs = {
            "input_ids": _pad(ids, length),
            "attention_mask": np.arange(length) < len(ids),
            "positions": _pad(positions, length),
            "output_index": _pad(output, output_length),
            "output_mask": np.arange(output_length) < len(output),
        }
        if images:
            counts = [rows * columns for rows, columns in grids]
            index = np.full(length, -1, np.int32)
            index[: len(ids)][is_image] = np.concatenate(
                [i * budget + np.arange(n) for i, n in enumerate(counts)]
            )
            rows = [prepare_image(image, self.vision, budget) for image in images]
            inputs |= {
                "image_index": index,
                **{name: np.stack([row[name] for row in rows]) for name in rows[0]},
            }
        return inputs

    def _budget(self, grids: list[tuple[int, int]]) -> int:
        largest = max((rows * columns for rows, columns in grids), default=0)
        for budget in self.config.image_token_budgets if largest else (0,):
            if largest <= budget:
                return budget
        raise UserError(
            f"an image of {largest} tokens is too long and narrow for image_token_budgets, at most {budget}; "
            "crop it"
        )

    def _encode(
        self, rendered: RenderedPrompt, text: str, grids: list[tuple[int, int]], length: int
    ) -> tuple[Int[np.ndarray, "N"], Bool[np.ndarray, "N"]]:
        """Token ids of a prompt, and which of them belong to the text, which is truncated to fit."""
        before, *parts = rendered.before.split(IMAGE)
        for (rows, columns), part in zip(grids, parts, strict=True):
            before += IMAGE * (rows * columns) + part
        text, limit = self._truncate(self._strip_special(text)), self.config.max_text_tokens
        while True:  # in a prompt, a text may have more tokens than alone
            encoding = self.tokenizer.encode(before + text + rendered.after, add_special_tokens=False)
            first, last = np.asarray(encoding.offsets).T
            is_text = (first < len(before) + len(text)) & (last > len(before)) & (first < last)
            if len(encoding.ids) <= length and is_text.sum() <= limit:
                return np.asarray(encoding.ids, np.int32), is_text
            text = text[:-1]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def rope_positions(
    is_image: Bool[np.ndarray, "N"], grids: Sequence[tuple[int, int]]
) -> Int[np.ndarray, "N 3"]:
    """Frame, row and column of each token.

    The three are equal for words, and increase by one per word. The rows and columns of an image count from
    the position of its first token.

    Args:
        is_image: whether each token belongs to an image. Tokens of one image are adjacent; words separate two
            images.
        grids: number of rows and columns of tokens of each image.
    """
    positions = np.zeros((len(is_image), 3), np.int32)
    token, next_position, images = 0, 0, iter(grids)
    while token < len(is_image):
        rows, columns = next(images) if is_image[token] else (1, 1)
        row, column = np.indices((rows, columns)).reshape(2, -1)
        offsets = np.stack([0 * row, row, column], axis=1)
        positions[token : token + rows * columns] = next_position + offsets
        token, next_position = token + rows * columns, next_position + max(rows, columns)
    return positions


def _pad(x: np.ndarray, length: int) -> np.ndarray:
    return np.pad(x, [(0, length - len(x))] + [(0, 0)] * (x.ndim - 1)).astype(np.int32)


class QwenPreparer:
    """The `Preparer` of Qwen: the image, then the text in one of the config's prompts."""

    def __init__(self, maker: PromptMaker):
        prompts, self.maker, self.limit = maker.config.prompts, maker, maker.limit
        self._images = int(maker.vision.depth > 0)
        self._phrase, self._sentence = maker.render((prompts.phrase, prompts.sentence), self._images)
        (self._generate,) = maker.render([prompts.generate], 0)

    def truncate(self, text: str) -> str:
        """See `Preparer`."""
        return self.maker.truncate(text)

    def __call__(self, text: str, image: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Prepares a prompt for segmentation, or for generation if `image` is None; see `PromptMaker`."""
        if image is None:
            return self.maker(self._generate, text)
        is_sentence = text.rstrip().endswith((".", "?", "!"))
        return self.maker(self._sentence if is_sentence else self._phrase, text, [image][: self._images])
