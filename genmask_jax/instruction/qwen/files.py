"""Tokenizers and chat templates: loads published ones, and learns a tokenizer."""

from collections.abc import Iterable

import tokenizers
from etils import epath

from genmask_jax.instruction.qwen.prompts import CHAT_TEMPLATE, IMAGE, VISION_END, VISION_START
from genmask_jax.instruction.tokenizer_files import TOKENIZER, read_tokenizer
from genmask_jax.parameters.files import read_json
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import need_regular, read_text

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPECIAL_TOKENS = (PAD, START, END, VISION_START, VISION_END, IMAGE)


def learn_tokenizer(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Learns a byte-level BPE tokenizer like Qwen's, with the special tokens of a prompt."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer(directory: epath.PathLike) -> tokenizers.Tokenizer:
    """Loads the tokenizer in a directory. Raises UserError if it is missing or lacks special tokens."""
    path = epath.Path(directory) / TOKENIZER
    if not path.exists():
        raise UserError(f"{path}: does not exist; copy it from the model's hub")
    tokenizer = read_tokenizer(path, "download it again")
    missing = [token for token in (PAD, START, END) if tokenizer.token_to_id(token) is None]
    if missing:
        raise UserError(f"{path}: has no {', '.join(missing)}; this is not a tokenizer of Qwen2.5")
    return tokenizer


def load_chat_template(directory: epath.PathLike) -> str:
    """Loads the chat template in a directory; `CHAT_TEMPLATE` if no file has one.

    Raises UserError if a file is damaged.
    """
    directory = epath.Path(directory)
    if (directory / "chat_template.jinja").exists():
        try:
            need_regular(directory / "chat_template.jinja")
            return read_text(directory / "chat_template.jinja")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{directory}/chat_template.jinja: not a text file ({error})") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (directory / name).exists():
            template = read_json(directory / name).get("chat_template")
            if isinstance(template, str):
                return template
    return CHAT_TEMPLATE


def stop_ids(tokenizer: tokenizers.Tokenizer) -> tuple[int, ...]:
    """Tokens that end a generated text."""
    ids = (tokenizer.token_to_id(token) for token in (END, PAD))
    return tuple(i for i in ids if i is not None)
