"""The small instruction encoder that is trained with the DiT, and its tokenizer.

The tokenizer's sub-words are learned from the dataset's own texts; it is saved with the model. So are the
words of these texts: sub-words can spell any word, but mean nothing in one that training never showed.
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
from genmask_jax.models.attention import attend
from genmask_jax.models.layers import MLP, gelu, layer_norm, linear_factory, scan_blocks, stack
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import read_text, write_text

PAD, START, UNKNOWN = "[PAD]", "[START]", "[UNK]"
TOKENIZER, WORDS = "tokenizer.json", "words.txt"
MOST_TOKENS_PER_WORD = 2
"""Of the texts that a tokenizer is said to know."""


@dataclasses.dataclass(frozen=True)
class TinyTextConfig:
    """Shape of the encoder: `max_tokens` is the fixed length L of every prepared text."""

    vocab_size: int = 512
    max_tokens: int = 16
    hidden_size: int = 128
    depth: int = 2
    num_heads: int = 4


def learn_tokenizer(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Byte-pair sub-words (lower case, split at spaces and punctuation) of at most `vocab_size` entries.

    The same texts give the same tokenizer. (Not so with a prefix for continued words: the trainer numbers
    those in the order of a hash map.)
    """
    model = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=UNKNOWN))
    model.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, UNKNOWN],
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    return model


def save_tokenizer(tokenizer: tokenizers.Tokenizer, directory: epath.PathLike) -> None:
    """Writes tokenizer.json."""
    epath.Path(directory).mkdir(parents=True, exist_ok=True)
    write_text(epath.Path(directory) / TOKENIZER, tokenizer.to_str())


def load_tokenizer(directory: epath.PathLike) -> tokenizers.Tokenizer:
    """The tokenizer saved with a model. Raises UserError when there is none."""
    path = epath.Path(directory) / TOKENIZER
    if not path.exists():
        raise UserError(f"{directory}: no tokenizer.json here; give the directory of a trained model")
    return tokenizers.Tokenizer.from_str(path.read_text())


def words_of(tokenizer: tokenizers.Tokenizer, texts: Iterable[str]) -> set[str]:
    """The words of texts as the tokenizer splits and normalises them, without punctuation."""
    normal = (tokenizer.normalizer.normalize_str(text) for text in texts)
    pieces = {piece for text in normal for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)}
    return {piece for piece in pieces if not all(map(_is_punctuation, piece))}


def _is_punctuation(letter: str) -> bool:
    return letter in string.punctuation or unicodedata.category(letter).startswith("P")


def save_words(words: Iterable[str], directory: epath.PathLike) -> None:
    """Writes words.txt, in order."""
    write_text(epath.Path(directory) / WORDS, "\n".join([*sorted(words), ""]))


def load_words(directory: epath.PathLike) -> set[str] | None:
    """The words saved with a model; None if it has none, because an earlier version trained it."""
    path = epath.Path(directory) / WORDS
    return set(read_text(path).split()) if path.exists() else None


def knows(tokenizer: tokenizers.Tokenizer, texts: Iterable[str]) -> bool:
    """Whether a tokenizer was learned from such texts: it has all their characters, and most of their words.

    Of words that it does not have, little but letters is left.
    """
    encoded = [tokenizer.encode(text) for text in texts]
    words = sum(len({word for word in one.word_ids if word is not None}) for one in encoded)
    if any(UNKNOWN in one.tokens for one in encoded):
        return False
    return sum(len(one.tokens) for one in encoded) <= MOST_TOKENS_PER_WORD * words


def fits(theirs: epath.PathLike, ours: epath.PathLike | None, texts: Iterable[str]) -> bool:
    """Whether an encoder may go on with a run's texts: its tokenizer is that of the run, or knows the texts.

    Args:
        theirs: directory of the encoder's tokenizer.
        ours: that of the run, if it has one yet.
        texts: of a new run.
    """
    if ours is None:
        return knows(load_tokenizer(theirs), texts)
    return load_tokenizer(theirs).to_str() == load_tokenizer(ours).to_str()


class TinyTextPreparer:
    """Text to token ids: [START], sub-words, padding; longer texts are truncated to `max_tokens`."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, max_tokens: int, words: set[str] | None = None):
        """`words`: of the training texts; None if they are not known."""
        self.tokenizer, self.max_tokens, self.words = tokenizer, max_tokens, words
        self.limit = f"{max_tokens} tokens (config.instruction.tiny.max_tokens)"

    def read(self, text: str) -> str:
        """See `Preparer`."""
        ends = [end for _, end in self.tokenizer.encode(text).offsets]
        room = self.max_tokens - 1  # beside [START]
        return text if len(ends) <= room else text[: max(ends[:room], default=0)]

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """See `ClosedVocabulary`; none if the words of the training texts are not known."""
        if self.words is None:
            return ()
        apart = re.sub(r"(?<=\w)[;,:!?/()]+(?=\w)", " ", text)  # "star;circle" is two words
        unknown = [one for one in apart.split() if not words_of(self.tokenizer, [one]) <= self.words]
        return tuple(dict.fromkeys(one.strip(string.punctuation) or one for one in unknown))

    def add_texts(self, texts: Iterable[str]) -> None:
        """See `ClosedVocabulary`."""
        if self.words is not None:
            self.words |= words_of(self.tokenizer, texts)

    def __call__(self, text: str, image: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """`input_ids`: int32 `[max_tokens]`, 0 for padding."""
        del image
        ids = [self.tokenizer.token_to_id(START), *self.tokenizer.encode(text).ids]
        padded = np.zeros(self.max_tokens, np.int32)
        padded[: len(ids)] = ids[: self.max_tokens]
        return {"input_ids": padded}


class TextBlock(nnx.Module):
    """A pre-norm transformer block over tokens; both branches have learned gates, initialised to 0.

    The first steps of an optimiser that normalises its gradients are mostly noise. Without the gates, they
    drown each token's identity in what all tokens share, and the DiT first learns to segment without text.
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
        """`input_ids` -> float32 embeddings of unit variance, and which tokens are not padding."""
        mask = inputs["input_ids"] != 0
        x = (self.embedding[...][inputs["input_ids"]] + self.positions[...]).astype(self.dtype)
        (x,) = scan_blocks(self.blocks, (x, mask), unroll=True)
        return layer_norm(x), mask


def build(config: TinyTextConfig, directory: epath.PathLike, texts: Iterable[str] = ()) -> Instruction:
    """The encoder, trained with the DiT; for the arguments see `factory.build`."""
    texts = list(texts)
    tokenizer = learn_tokenizer(texts, config.vocab_size) if texts else load_tokenizer(directory)
    words = words_of(tokenizer, texts) if texts else load_words(directory)
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
