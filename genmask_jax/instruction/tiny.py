"""The small instruction encoder that is trained with the DiT, and its tokenizer.

The tokenizer learns its sub-words from the texts of the dataset, and is saved with the model. The words of
these texts are saved too: sub-words can spell any word, but words that are not in the training texts have no
learned meaning.
"""

import dataclasses
import re
import string
import unicodedata
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
import tokenizers
from etils import epath
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from genmask_jax.instruction.base import Instruction, InstructionEncoder
from genmask_jax.instruction.tokenizer_files import TOKENIZER, read_tokenizer
from genmask_jax.models.attention import attend
from genmask_jax.models.layers import MLP, gelu, layer_norm, linear_factory, scan_blocks, stack
from genmask_jax.utils.errors import UserError, first_line
from genmask_jax.utils.paths import need_regular, read_text, write_text

PAD, START, UNKNOWN = "[PAD]", "[START]", "[UNK]"
WORDS = "words.txt"
MAX_TOKENS_PER_WORD = 2
"""Maximum mean number of tokens per word for a tokenizer to fit texts."""


@dataclasses.dataclass(frozen=True)
class TinyTextConfig:
    """Shape of the encoder; `max_tokens` is the length L of every prepared text."""

    vocab_size: int = 512
    max_tokens: int = 16
    hidden_size: int = 128
    depth: int = 2
    num_heads: int = 4


def learn_tokenizer(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Learns byte-pair sub-words (lower case, split at spaces and punctuation), at most `vocab_size` of them.

    The same texts give the same tokenizer. (They would not with a prefix for continued words: the trainer
    numbers such tokens in the order of a hash map.)
    """
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, UNKNOWN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: tokenizers.Tokenizer, directory: epath.PathLike) -> None:
    """Writes tokenizer.json."""
    epath.Path(directory).mkdir(parents=True, exist_ok=True)
    write_text(epath.Path(directory) / TOKENIZER, tokenizer.to_str())


def load_tokenizer(directory: epath.PathLike) -> tokenizers.Tokenizer:
    """Loads the tokenizer of a model. Raises UserError if there is none, or it is damaged."""
    path = epath.Path(directory) / TOKENIZER
    if not path.exists():
        raise UserError(f"{directory}: no tokenizer.json here; give the directory of a trained model")
    return read_tokenizer(path, "export the model again")


def split_words(tokenizer: tokenizers.Tokenizer, texts: Iterable[str]) -> set[str]:
    """Words of the texts, split and normalised by the tokenizer, without punctuation."""
    normalised = (tokenizer.normalizer.normalize_str(text) for text in texts)
    pieces = {piece for text in normalised for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)}
    return {piece for piece in pieces if not all(map(_is_punctuation, piece))}


def _is_punctuation(letter: str) -> bool:
    return letter in string.punctuation or unicodedata.category(letter).startswith("P")


def save_words(words: Iterable[str], directory: epath.PathLike) -> None:
    """Writes words.txt, sorted."""
    write_text(epath.Path(directory) / WORDS, "\n".join([*sorted(words), ""]))


def load_words(directory: epath.PathLike) -> set[str] | None:
    """Loads the words that were saved with a model; None if an earlier version trained it, without words.

    Raises UserError if the file is damaged.
    """
    path = epath.Path(directory) / WORDS
    try:
        need_regular(path)
        return set(read_text(path).split()) if path.exists() else None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a list of words ({first_line(error)}); export the model again"
        ) from error


def fits_texts(tokenizer: tokenizers.Tokenizer, texts: Iterable[str]) -> bool:
    """Whether a tokenizer was learned from similar texts: it has all their characters and most of their
    words.

    It splits words that it does not have into many short tokens.
    """
    encodings = [tokenizer.encode(text) for text in texts]
    num_words = sum(len({word for word in e.word_ids if word is not None}) for e in encodings)
    if any(UNKNOWN in encoding.tokens for encoding in encodings):
        return False
    return sum(len(encoding.tokens) for encoding in encodings) <= MAX_TOKENS_PER_WORD * num_words


def can_start_from(encoder: epath.PathLike, run: epath.PathLike | None, texts: Iterable[str]) -> bool:
    """Whether a run can start from a trained encoder.

    Its tokenizer must be the run's, or fit the texts of a new run.

    Args:
        encoder: directory of the trained encoder's tokenizer.
        run: directory of the run's tokenizer; None for a new run.
        texts: texts of a new run.
    """
    if run is None:
        return fits_texts(load_tokenizer(encoder), texts)
    return load_tokenizer(encoder).to_str() == load_tokenizer(run).to_str()


class TinyTextPreparer:
    """Tokenizes a text into [START], sub-words and padding; truncates it to `max_tokens`."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, max_tokens: int, words: set[str] | None = None):
        """`words` are the words of the training texts; None if they are not known."""
        self.tokenizer, self.max_tokens, self.words = tokenizer, max_tokens, words
        self.limit = f"{max_tokens} tokens (config.instruction.tiny.max_tokens)"

    def truncate(self, text: str) -> str:
        """See `Preparer`."""
        ends = [end for _, end in self.tokenizer.encode(text).offsets]
        limit = self.max_tokens - 1  # without [START]
        return text if len(ends) <= limit else text[: max(ends[:limit], default=0)]

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """See `ClosedVocabulary`; () if the words of the training texts are not known."""
        if self.words is None:
            return ()
        separated = re.sub(r"(?<=\w)[;,:!?/()]+(?=\w)", " ", text)  # "star;circle" is two words
        unknown = [w for w in separated.split() if not split_words(self.tokenizer, [w]) <= self.words]
        return tuple(dict.fromkeys(word.strip(string.punctuation) or word for word in unknown))

    def add_texts(self, texts: Iterable[str]) -> None:
        """See `ClosedVocabulary`."""
        if self.words is not None:
            self.words |= split_words(self.tokenizer, texts)

    def __call__(self, text: str, image: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """`input_ids`: int32 `[max_tokens]`, 0 for padding."""
        del image
        ids = [self.tokenizer.token_to_id(START), *self.tokenizer.encode(text).ids]
        padded = np.zeros(self.max_tokens, np.int32)
        padded[: len(ids)] = ids[: self.max_tokens]
        return {"input_ids": padded}


class TextBlock(nnx.Module):
    """A pre-norm transformer block over tokens; both branches have learned gates, initialised to 0.

    The first steps of an optimiser that normalises gradients are mostly noise. Without the gates, this noise
    makes all tokens similar, and the DiT first learns to segment without text.
    """

    def __init__(self, size: int, num_heads: int, *, dtype, rngs: nnx.Rngs):
        self.num_heads = num_heads
        linear = linear_factory(dtype, jnp.float32, rngs)
        self.to_qkv = linear(size, 3 * size)
        self.to_out = linear(size, size)
        self.mlp = MLP((size, 4 * size, size), gelu, linear=linear)
        self.gates = nnx.Param(jnp.zeros((2, size)))

    def __call__(self, x, mask):
        gates = self.gates[...].astype(x.dtype)
        qkv = self.to_qkv(layer_norm(x).astype(x.dtype))
        query, key, value = jnp.split(qkv.reshape(*x.shape[:2], self.num_heads, -1), 3, axis=-1)
        x = x + gates[0] * self.to_out(attend(query, key, value, mask).reshape(x.shape))
        return x + gates[1] * self.mlp(layer_norm(x).astype(x.dtype))


class TinyTextEncoder(InstructionEncoder):
    """Token and position embeddings, a few transformer blocks, a final norm."""

    def __init__(self, config: TinyTextConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        size = config.hidden_size
        init = nnx.initializers.normal(1.0)
        self.dtype, self.text_dim = dtype, size
        self.embedding = nnx.Param(init(rngs.params(), (config.vocab_size, size)))
        self.positions = nnx.Param(init(rngs.params(), (config.max_tokens, size)))
        self.blocks = stack(
            lambda rngs: TextBlock(size, config.num_heads, dtype=dtype, rngs=rngs), config.depth, rngs
        )

    def __call__(
        self, inputs: dict[str, Int[Array, "B L"]]
    ) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
        """Embeds `input_ids`: float32 embeddings of unit variance, and a mask that is False for padding."""
        mask = inputs["input_ids"] != 0
        x = (self.embedding[...][inputs["input_ids"]] + self.positions[...]).astype(self.dtype)
        (x,) = scan_blocks(self.blocks, (x, mask), unroll=True)
        return layer_norm(x), mask


def build(config: TinyTextConfig, directory: epath.PathLike, texts: Iterable[str] = ()) -> Instruction:
    """Builds the encoder, which is trained with the DiT; for the arguments see `factory.build`."""
    texts = list(texts)
    tokenizer = learn_tokenizer(texts, config.vocab_size) if texts else load_tokenizer(directory)
    words = split_words(tokenizer, texts) if texts else load_words(directory)
    preparer = TinyTextPreparer(tokenizer, config.max_tokens, words)

    def save(directory: epath.PathLike) -> None:
        save_tokenizer(tokenizer, directory)
        if preparer.words is not None:
            save_words(preparer.words, directory)

    return Instruction(
        preparer=preparer,
        make=lambda rngs, dtype: TinyTextEncoder(config, dtype=dtype, rngs=rngs),
        text_dim=config.hidden_size,
        trained=("instruction",),
        save=save,
    )
