"""The small text encoder and its tokenizer."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genmask_jax.instruction.base import unknown_words
from genmask_jax.instruction.tiny import (
    TinyTextConfig,
    TinyTextEncoder,
    TinyTextPreparer,
    build,
    learn_tokenizer,
    load_tokenizer,
    save_tokenizer,
)
from genmask_jax.utils.errors import UserError

TEXTS = ["the red star", "the small blue circle on the left", "a yellow square and a red cross"] * 4


def test_the_same_texts_give_the_same_tokenizer_and_it_can_be_saved(tmp_path):
    first, second = (learn_tokenizer(TEXTS, 80) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    save_tokenizer(first, tmp_path)
    prepare, loaded = (TinyTextPreparer(t, 12) for t in (first, load_tokenizer(tmp_path)))
    np.testing.assert_array_equal(prepare(TEXTS[1])["input_ids"], loaded(TEXTS[1])["input_ids"])
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path / "nowhere")


def test_prepared_texts_have_one_shape():
    prepare = TinyTextPreparer(learn_tokenizer(TEXTS, 80), 6)
    for text in ("", "the red star", "the red star " * 20):
        ids = prepare(text)["input_ids"]
        assert ids.shape == (6,)
        assert ids.dtype == np.int32
        assert ids[0] != 0  # even the null instruction has a token to attend to


def test_padding_is_masked_and_order_matters():
    encoder = TinyTextEncoder(TinyTextConfig(80, 8, 16, 1, 2), rngs=nnx.Rngs(0))
    encoder.blocks.gates[...] = jnp.ones_like(encoder.blocks.gates[...])  # as if trained: they start at zero
    ids = jnp.array([[1, 5, 6, 0, 0, 0, 0, 0], [1, 6, 5, 0, 0, 0, 0, 0]])
    embeds, mask = encoder({"input_ids": ids})
    assert embeds.shape == (2, 8, 16)
    assert mask.sum(1).tolist() == [3, 3]
    assert jnp.abs(embeds[0, 0] - embeds[1, 0]).max() > 1e-5


def test_words_outside_the_training_texts_are_unknown(tmp_path):
    built = build(TinyTextConfig(80), tmp_path, TEXTS)
    built.save(tmp_path)
    loaded = build(TinyTextConfig(80), tmp_path).preparer
    for preparer in (built.preparer, loaded):
        assert preparer.unknown_words("The RED star, on the left!") == ()
        assert preparer.unknown_words("a red-cross") == ()
        assert preparer.unknown_words("the dog near a dog") == ("dog", "near")
        assert preparer.unknown_words("the star;the dog, a cat;cross") == ("dog", "cat")
        assert preparer.unknown_words("l'étoile rouge") == ("l'étoile", "rouge")
        assert preparer.unknown_words("红星 ⭐") == ("红星", "⭐")
        assert preparer.unknown_words("reds") == ("reds",)  # known sub-words, but another word
    loaded.add_texts(["a dog"])
    assert loaded.unknown_words("the dog near") == ("near",)
    assert unknown_words(loaded, "near") == ("near",)


def test_a_model_without_saved_words_has_no_unknown_words(tmp_path):
    save_tokenizer(learn_tokenizer(TEXTS, 80), tmp_path)
    preparer = build(TinyTextConfig(80), tmp_path).preparer
    assert preparer.unknown_words("the dog") == ()
    preparer.add_texts(["a cat"])
    assert preparer.unknown_words("the dog") == ()
