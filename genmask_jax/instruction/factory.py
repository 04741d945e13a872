"""Instruction encoders by name; see `base.py` for what one is."""

from collections.abc import Iterable

from etils import epath

from genmask_jax.config import InstructionConfig
from genmask_jax.instruction import minilm, tiny
from genmask_jax.instruction.base import Instruction
from genmask_jax.instruction.qwen.load import build_qwen


def build(config: InstructionConfig, directory: epath.PathLike, texts: Iterable[str] = ()) -> Instruction:
    """The encoder that a config names.

    Args:
        config: which one, and its shape.
        directory: where its tokenizer is kept, or will be when `texts` are given to learn one from.
        texts: of the data set; only for a new run of an encoder that learns its vocabulary.

    Raises:
        UserError: no tokenizer or no weights are found, or the weights' package is not installed.
    """
    if config.name == "qwen":
        return build_qwen(config.qwen, directory, texts)
    if config.name == "minilm":
        return Instruction(
            preparer=minilm.MiniLMPreparer(config.minilm_max_tokens),
            make=lambda rngs, dtype: minilm.MiniLM(rngs=rngs),  # small enough to stay in float32
            text_dim=minilm.MiniLM.text_dim,
            trained=lambda name: False,
            load=minilm.load_parameters,
            fingerprint=lambda: minilm.fingerprint(config.minilm_max_tokens),
        )
    texts = list(texts)
    if texts:
        tiny.learn_tokenizer(texts, config.tiny.vocab_size).save_pretrained(str(directory))
    return Instruction(
        preparer=tiny.TinyTextPreparer(tiny.load_tokenizer(directory), config.tiny.max_tokens),
        make=lambda rngs, dtype: tiny.TinyTextEncoder(config.tiny, dtype=dtype, rngs=rngs),
        text_dim=config.tiny.hidden_size,
        trained=lambda name: True,
    )
