"""Instruction encoders by name; see `base.py` for what one is."""

import dataclasses
from collections.abc import Callable, Iterable

from etils import epath
from flax import nnx

from genmask_jax.config import InstructionConfig
from genmask_jax.instruction import minilm, tiny
from genmask_jax.instruction.base import InstructionEncoder, Preparer


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An encoder, ready to be used.

    preparer: its host side.
    make: (rngs, dtype) -> its module, freshly initialised.
    text_dim: channels of its embeddings.
    load: () -> the module's weights, for a frozen encoder; None for one that is trained with the DiT.
    """

    preparer: Preparer
    make: Callable[..., InstructionEncoder]
    text_dim: int
    load: Callable[[], nnx.State] | None = None

    @property
    def trainable(self) -> bool:
        return self.load is None


def build(config: InstructionConfig, directory: epath.PathLike, texts: Iterable[str] = ()) -> Instruction:
    """The encoder that a config names.

    Args:
        config: which one, and its shape.
        directory: where its tokenizer is kept, or will be when `texts` are given to learn one from.
        texts: of the data set; only for a new run of an encoder that learns its vocabulary.

    Raises:
        UserError: no tokenizer is found, or the weights' package is not installed.
    """
    if config.name == "minilm":
        return Instruction(
            preparer=minilm.MiniLMPreparer(config.minilm_max_tokens),
            make=lambda rngs, dtype: minilm.MiniLM(rngs=rngs),  # small enough to stay in float32
            text_dim=minilm.MiniLM.text_dim,
            load=lambda: nnx.state(minilm.load_minilm()),
        )
    texts = list(texts)
    if texts:
        tiny.learn_tokenizer(texts, config.tiny.vocab_size).save_pretrained(str(directory))
    return Instruction(
        preparer=tiny.TinyTextPreparer(tiny.load_tokenizer(directory), config.tiny.max_tokens),
        make=lambda rngs, dtype: tiny.TinyTextEncoder(config.tiny, dtype=dtype, rngs=rngs),
        text_dim=config.tiny.hidden_size,
    )
