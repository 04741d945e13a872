"""Texts and images to the inputs of `encoder.py`, on the host.

Reference: transformers' `Qwen2_5_VLProcessor` (chat template, image tokens) and `get_rope_index`.
"""

import dataclasses
from collections.abc import Sequence

import jinja2
import numpy as np
import tokenizers
from jaxtyping import Bool, Int, UInt8

from genmask_jax.instruction.qwen.config import QwenInstructionConfig, QwenVisionConfig
from genmask_jax.instruction.qwen.images import fit, prepare_image
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.extras import need

VISION_START, IMAGE, VISION_END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
TEXT_MARK = "\x00text\x00"
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
"""ChatML, for a model without its own template."""


@dataclasses.dataclass(frozen=True)
class Rendered:
    """A prompt around a text.

    before, after: the prompt before and after the text, with one IMAGE token per image.
    room: number of tokens of both, or of a longer prompt that is used in the same batches.
    """

    before: str
    after: str
    room: int


class PromptMaker:
    """Chat prompts around texts, with images, as token ids with their positions.

    Args:
        tokenizer: the model's.
        chat_template: the model's, in Jinja.
        vision: shape of the vision tower; images are left out if there is none.
        config: prompts and limits.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        chat_template: str,
        vision: QwenVisionConfig,
        config: QwenInstructionConfig,
    ):
        # The wrapper is for chat templates only; its overhead exceeds the encoding time.
        need("transformers", "qwen", "Qwen")
        from transformers import PreTrainedTokenizerFast  # takes 1.4 s, which runs without Qwen avoid

        self._chat = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=chat_template)
        self.tokenizer, self.vision, self.config = tokenizer, vision, config
        self.image_id = tokenizer.token_to_id(IMAGE)
        added = tokenizer.get_added_tokens_decoder().values()
        self._special = [token.content for token in added if token.special]
        self.limit = f"{config.max_text_tokens} tokens (config.instruction.qwen.max_text_tokens)"

    def read(self, text: str) -> str:
        """See `Preparer`."""
        plain = self._plain(text)
        beginning = self._beginning(plain)
        return text if beginning == plain else beginning

    def _plain(self, text: str) -> str:
        """A text without the model's special tokens."""
        while any(special in text for special in self._special):  # what remains may form another
            for special in self._special:
                text = text.replace(special, "")
        return text

    def _beginning(self, text: str) -> str:
        most, alone = self.config.max_text_tokens, self.tokenizer.encode(text, add_special_tokens=False)
        return text if len(alone.ids) <= most else text[: alone.offsets[most - 1][1]]

    def render(self, prompts: Sequence[str], images: int) -> list[Rendered]:
        """Renders prompts for the same batches: user messages with {text}, after this many images.

        Raises:
            UserError: the chat template fails, or leaves out the text or an image.
        """
        rendered = [self._render(prompt, images) for prompt in prompts]
        room = max(len(self._ids(before + after)) for before, after in rendered)
        return [Rendered(before, after, room) for before, after in rendered]

    def _render(self, prompt: str, images: int) -> tuple[str, str]:
        words = prompt.replace("{text}", TEXT_MARK)
        content = [{"type": "image"}] * images + [{"type": "text", "text": words}]
        messages = [{"role": "user", "content": content}]
        if not images:  # templates of text-only models accept nothing else
            messages[0]["content"] = content[0]["text"]
        if self.config.prompts.system:
            messages.insert(0, {"role": "system", "content": self.config.prompts.system})
        try:
            rendered = self._chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except (jinja2.TemplateError, TypeError, KeyError, ValueError) as error:
            raise UserError(f"the chat template fails ({error}); does it belong to this model?") from error
        before, mark, after = str(rendered).partition(TEXT_MARK)
        if not mark or before.count(IMAGE) != images or IMAGE in after:
            raise UserError("the chat template leaves out the text or an image; is it this model's?")
        return before, after

    def __call__(
        self, rendered: Rendered, text: str, images: Sequence[UInt8[np.ndarray, "_ _ 3"]] = ()
    ) -> dict[str, np.ndarray]:
        """The arrays of one prompt, see `encoder.py`; their shapes depend only on its room and the budget.

        Args:
            rendered: a prompt for this number of images.
            text: truncated if too long; the model's special tokens are removed from it.
            images: of any size.

        Raises:
            UserError: an image is too long and narrow.
        """
        config, size = self.config, self.vision.token_size
        bounds = (config.min_image_tokens, config.image_token_budgets[-1])
        images = [fit(image, self.vision, *bounds) for image in images]
        grids = [(image.shape[0] // size, image.shape[1] // size) for image in images]
        budget = self._budget(grids)
        length = rendered.room + config.max_text_tokens + len(images) * (budget - 1)
        ids, is_text = self._encode(rendered, text, grids, length)
        is_image = (ids == self.image_id) & bool(images)
        positions = rope_positions(is_image, grids)
        output, room = np.arange(len(ids)), length
        if config.drop_template:
            output = np.flatnonzero(is_text | is_image | (output == len(ids) - 1))
            room = config.max_text_tokens + 1 + budget * len(images)
        inputs = {
            "input_ids": _pad(ids, length),
            "attention_mask": np.arange(length) < len(ids),
            "positions": _pad(positions, length),
            "output_index": _pad(output, room),
            "output_mask": np.arange(room) < len(output),
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
        most = max((rows * columns for rows, columns in grids), default=0)
        for budget in self.config.image_token_budgets if most else (0,):
            if most <= budget:
                return budget
        raise UserError(
            f"an image of {most} tokens is too long and narrow: image_token_budgets ends at {budget}; cut it"
        )

    def _encode(
        self, rendered: Rendered, text: str, grids: list[tuple[int, int]], length: int
    ) -> tuple[Int[np.ndarray, "N"], Bool[np.ndarray, "N"]]:
        """Token ids of a prompt, and which of them belong to the text; the text is truncated to fit."""
        before, *parts = rendered.before.split(IMAGE)
        for (rows, columns), part in zip(grids, parts, strict=True):
            before += IMAGE * (rows * columns) + part
        text, most = self._beginning(self._plain(text)), self.config.max_text_tokens
        while True:  # at its ends, a text may take one token more than alone
            encoding = self.tokenizer.encode(before + text + rendered.after, add_special_tokens=False)
            first, last = np.asarray(encoding.offsets).T
            is_text = (first < len(before) + len(text)) & (last > len(before)) & (first < last)
            if len(encoding.ids) <= length and is_text.sum() <= most:
                return np.asarray(encoding.ids, np.int32), is_text
            text = text[:-1]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def rope_positions(
    is_image: Bool[np.ndarray, "N"], grids: Sequence[tuple[int, int]]
) -> Int[np.ndarray, "N 3"]:
    """Frame, row and column of each token: equal and counting up for words; an image's start at its place.

    Args:
        is_image: whether each token is an image's; an image's tokens are adjacent, two images' are not.
        grids: (rows, columns) of each image's tokens.
    """
    positions = np.zeros((len(is_image), 3), np.int32)
    place, following, images = 0, 0, iter(grids)
    while place < len(is_image):
        rows, columns = next(images) if is_image[place] else (1, 1)
        row, column = np.indices((rows, columns)).reshape(2, -1)
        positions[place : place + rows * columns] = np.stack([0 * row, row, column], axis=1) + following
        place, following = place + rows * columns, following + max(rows, columns)
    return positions


def _pad(x: np.ndarray, length: int) -> np.ndarray:
    return np.pad(x, [(0, length - len(x))] + [(0, 0)] * (x.ndim - 1)).astype(np.int32)


class QwenPreparer:
    """The `Preparer` of Qwen: the matching prompt of the config, around the text, after the image."""

    def __init__(self, maker: PromptMaker):
        prompts, self.maker, self.limit = maker.config.prompts, maker, maker.limit
        self._images = int(maker.vision.depth > 0)
        self._phrase, self._sentence = maker.render((prompts.phrase, prompts.sentence), self._images)
        (self._generate,) = maker.render([prompts.generate], 0)

    def read(self, text: str) -> str:
        """See `PromptMaker.read`."""
        return self.maker.read(text)

    def __call__(self, text: str, image: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """See `PromptMaker.__call__`. Prompts to segment in `image`, or to generate if it is None."""
        if image is None:
            return self.maker(self._generate, text)
        is_sentence = text.rstrip().endswith((".", "?", "!"))
        return self.maker(self._sentence if is_sentence else self._phrase, text, [image][: self._images])
