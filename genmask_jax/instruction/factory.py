"""Instruction encoders by name; see `base.py` for their interface."""

from collections.abc import Callable, Iterable

from etils import epath

from genmask_jax.instruction import minilm, tiny
from genmask_jax.instruction.base import Instruction
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.instruction.qwen import load as qwen
from genmask_jax.utils.digests import check_digests

Build = Callable[[InstructionConfig, epath.PathLike, Iterable[str]], Instruction]

ENCODERS: dict[str, Build] = {
    "tiny": lambda config, directory, texts: tiny.build(config.tiny, directory, texts),
    "minilm": lambda config, directory, texts: minilm.build(config.minilm_max_tokens),
    "qwen": lambda config, directory, texts: qwen.build(config.qwen, directory, texts),
}


def build(config: InstructionConfig, directory: epath.PathLike, texts: Iterable[str] = ()) -> Instruction:
    """Builds the encoder that a config names.

    Args:
        config: name and shape of the encoder.
        directory: folder of the encoder's files in a run; only read.
        texts: texts of the dataset, for a new run; the encoder may learn its vocabulary from them.

    Raises:
        UserError: a file is damaged, the tokenizer or the weights are missing, or a package is not installed.
    """
    check_digests(directory)
    return ENCODERS[config.name](config, directory, texts)
