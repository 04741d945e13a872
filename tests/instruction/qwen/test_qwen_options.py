"""Checks of Qwen's options, and the training step of the large config at full size."""

import dataclasses
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmask_jax.config import TrainConfig
from genmask_jax.config.checks import from_config_dict, validate
from genmask_jax.instruction import factory
from genmask_jax.instruction.qwen.config import SIZES, Prompts, QwenConfig, QwenVisionConfig, WriteConfig
from genmask_jax.models.vae import VAEConfig
from genmask_jax.parameters.names import flat_paths
from genmask_jax.system import abstract_networks
from genmask_jax.training.genmask import GenMaskTask
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import to_json
from tests.instruction.qwen import reference
from tests.instruction.qwen.test_in_the_system import SHAPE, qwen_config


def shaped(**changes) -> QwenConfig:
    return dataclasses.replace(SHAPE, text=dataclasses.replace(SHAPE.text, **changes))


def check(config, directory):
    validate(config)
    factory.build(config.instruction, directory)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer": 3}, "layer 3: the model has layers 1 to 2"),
        ({"layer": 0}, "layer 0"),
        ({"train_layers": 3}, "only 2 layers are used"),
        ({"train_layers": 1, "lora_rank": 1}, "not both"),
        ({"image_token_budgets": (16, 4)}, "image_token_budgets (16, 4): must ascend"),
        ({"min_image_tokens": 0}, "min_image_tokens must be positive"),
        ({"prompts": Prompts(phrase="what?")}, "prompts.phrase must contain {text} once"),
        ({"prompts": Prompts(system="<|image_pad|>")}, "prompts.system: leave <|...|>"),
        ({"write": WriteConfig(temperature=float("nan"))}, "write.temperature nan"),
        ({"write": WriteConfig(temperature=1e-38)}, "write.temperature 1e-38"),
        ({"write": WriteConfig(top_p=0.0)}, "write.top_p"),
        ({"shape": shaped(num_heads=3)}, "text.hidden_size must be a multiple of 2 x num_heads"),
        ({"shape": shaped(num_kv_heads=3)}, "text.num_heads must be a multiple of num_kv_heads"),
        ({"shape": shaped(mrope_section=(2, 1, 2))}, "must be three numbers that add up to half a head, 4"),
        ({"shape": shaped(vocab_size=100)}, "vocab_size must be at least 262"),
        ({"shape": QwenConfig(SHAPE.text, QwenVisionConfig(window_size=4))}, "vision.window_size"),
        ({"weights": "/nowhere"}, "no Qwen here; make it with launch/import_weights.py qwen"),
    ],
    ids=str,
)
def test_invalid_options_are_named(micro_vae, tmp_path, changes, words):
    config = qwen_config(micro_vae, **changes)
    with pytest.raises(UserError) as raised:
        check(config, tmp_path)
    assert words in str(raised.value)


def test_the_training_step_of_the_large_config_can_be_traced(tmp_path):
    """At full size (Wan 1.3B with Qwen2.5-VL-7B); nothing is allocated."""
    path = pathlib.Path(__file__).parents[3] / "configs/genmask_l.py"
    spec = importlib.util.spec_from_file_location("genmask_l", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = from_config_dict(TrainConfig, module.get_config())
    (tmp_path / "qwen/hub").mkdir(parents=True)
    (tmp_path / "qwen/config.json").write_text(to_json(SIZES["vl_7b"]))
    (tmp_path / "qwen/hub/tokenizer.json").write_text(reference.tokenizer().to_str())
    encoder_config = dataclasses.replace(config.instruction.qwen, weights=str(tmp_path))
    encoder = factory.build(dataclasses.replace(config.instruction, qwen=encoder_config), tmp_path)
    networks = abstract_networks(config, VAEConfig(), encoder)
    image = np.zeros((512, 512, 3), np.uint8)

    def task_shapes(inputs, **images):
        rows = {"instruction": inputs, "images": image, **images}
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), rows)

    segment, generate = encoder.preparer("a dog", image), encoder.preparer("a dog")
    assert segment["patches"].shape == (1, 1344, 588)  # 4 x 324 patches, rounded up to full windows
    batch = {"segment": task_shapes(segment, masks=image[..., 0]), "generate": task_shapes(generate)}
    params, loss = networks.abstract_params(), GenMaskTask(networks, config).loss
    assert jax.eval_shape(loss, params, networks.frozen, batch, jax.random.key(0))[0].shape == ()
    frozen = {name: x.get_value() for name, x in flat_paths(networks.frozen["instruction"])}
    assert frozen["text.blocks.mlp.up_proj.kernel"].shape == (28, 3584, 18944)
    assert frozen["text.blocks.mlp.up_proj.kernel"].dtype == jnp.bfloat16
    count = sum(int(np.prod(x.shape)) for x in frozen.values())
    assert count == 8_292_166_656 - 152_064 * 3584  # all except the output projection
    assert dict(flat_paths(params))["dit.text_embedder.linear_1.kernel"].shape == (3584, 1536)
