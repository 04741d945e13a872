"""A miniature Qwen2.5-VL of transformers with random weights, in a folder with the layout of the hub."""

import functools
import pathlib

import jax.numpy as jnp
import numpy as np
import torch
from etils import epath
from flax import nnx
from PIL import Image
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from genmask_jax.instruction.qwen.config import QwenConfig, QwenInstructionConfig
from genmask_jax.instruction.qwen.encoder import Qwen
from genmask_jax.instruction.qwen.files import END, PAD, learn_tokenizer
from genmask_jax.instruction.qwen.prompts import CHAT_TEMPLATE, IMAGE, VISION_END, VISION_START, PromptMaker
from genmask_jax.public_weights import qwen
from tests.public_weights.reference import randomise

TEXTS = [
    "the red star on the left",
    "a small blue circle near the top",
    "Which of these would you eat for breakfast?",
    "draw two yellow squares and a cross",
]
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
}
VISION = {
    "depth": 3,
    "hidden_size": 40,
    "intermediate_size": 44,
    "num_heads": 2,
    "out_hidden_size": 32,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 32,
    "fullatt_block_indexes": [1],
}


@functools.cache
def tokenizer():
    return learn_tokenizer(TEXTS * 3, 400)


def special_ids() -> dict[str, int]:
    names = {"image": IMAGE, "vision_start": VISION_START, "vision_end": VISION_END}
    ids = {f"{name}_token_id": tokenizer().token_to_id(token) for name, token in names.items()}
    return ids | {"video_token_id": tokenizer().get_vocab_size()}


def reference_vl(**text) -> Qwen2_5_VLForConditionalGeneration:
    mrope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]}
    sizes = {**TEXT, "vocab_size": tokenizer().get_vocab_size() + 8, **text}
    tied = sizes["tie_word_embeddings"]
    config = Qwen2_5_VLConfig(
        text_config={**sizes, "rope_parameters": mrope},
        vision_config=VISION,
        **special_ids(),
        tie_word_embeddings=tied,
    )
    return _with_tokens(Qwen2_5_VLForConditionalGeneration(config))


def reference_text(**text) -> Qwen2ForCausalLM:
    config = Qwen2Config(**{**TEXT, "vocab_size": tokenizer().get_vocab_size(), **text})
    return _with_tokens(Qwen2ForCausalLM(config))


def _with_tokens(model):
    model = randomise(model)
    with torch.no_grad():  # embeddings of unit size, so that words matter
        embeddings = model.get_input_embeddings().weight
        embeddings.copy_(torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(1)))
    eos = [tokenizer().token_to_id(token) for token in (END, PAD)]
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = eos, eos[1]
    return model


def wrapped_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(), chat_template=CHAT_TEMPLATE, pad_token=PAD, eos_token=END
    )


def image_processor(**bounds) -> Qwen2VLImageProcessorPil:
    size = {"shortest_edge": bounds["min_pixels"], "longest_edge": bounds["max_pixels"]}
    return Qwen2VLImageProcessorPil(
        patch_size=VISION["patch_size"], merge_size=VISION["spatial_merge_size"], size=size
    )


def save_hub(directory, model, **options) -> pathlib.Path:
    """Writes a folder in the layout of the hub."""
    model.save_pretrained(directory, **options)
    wrapped_tokenizer().save_pretrained(directory)
    return pathlib.Path(directory)


def instruction_config(**changes) -> QwenInstructionConfig:
    """Small budgets, of tokens of 8 x 8 pixels."""
    return QwenInstructionConfig(**{"image_token_budgets": (16, 64), "max_text_tokens": 24, **changes})


def imported(directory) -> tuple[Qwen, QwenConfig]:
    """Our model with imported weights, and its config."""
    part = qwen.open_qwen(epath.Path(directory))
    model = nnx.eval_shape(lambda: Qwen(part.config, rngs=nnx.Rngs(0)))
    state = nnx.state(model)
    values = {entry.path: part.stream(entry).whole() for entry in part.entries}
    for path, variable in nnx.to_flat_state(state):
        variable.set_value(jnp.asarray(values[".".join(map(str, path))]))
    nnx.update(model, state)
    return model, part.config


def maker(config: QwenConfig, **changes) -> PromptMaker:
    return PromptMaker(tokenizer(), CHAT_TEMPLATE, config.vision, instruction_config(**changes))


def photograph(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth, coloured image."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


class StillProcessor(Qwen2_5_VLProcessor):
    """A processor without videos, which need torchvision."""

    def check_argument_for_proper_class(self, name, argument):
        if name != "video_processor":
            super().check_argument_for_proper_class(name, argument)


def processor(min_tokens: int = 4, max_tokens: int = 64) -> Qwen2_5_VLProcessor:
    """The processor of transformers, for tokens of 8 x 8 pixels."""
    images = image_processor(min_pixels=64 * min_tokens, max_pixels=64 * max_tokens)
    return StillProcessor(images, wrapped_tokenizer(), chat_template=CHAT_TEMPLATE)
