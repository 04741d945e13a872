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
        directory: where a run keeps what belongs to its encoder; nothing is written to it here.
        texts: of the data set; only for a new run, whose encoder may learn its vocabulary from them.

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
    texts, size = list(texts), config.tiny.vocab_size
    tokenizer = tiny.learn_tokenizer(texts, size) if texts else tiny.load_tokenizer(directory)
    return Instruction(
        preparer=tiny.TinyTextPreparer(tokenizer, config.tiny.max_tokens),
        make=lambda rngs, dtype: tiny.TinyTextEncoder(config.tiny, dtype=dtype, rngs=rngs),
        text_dim=config.tiny.hidden_size,
        trained=lambda name: True,
        save=lambda directory: tiny.save_tokenizer(tokenizer, directory),
    )
