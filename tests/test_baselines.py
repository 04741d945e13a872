"""Baselines: as large as GenMask, trained, resumed and scored like it."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from baseline import BaselineConfig, BaselineScoring, BaselineTask, count_parameters, make_baseline
from conftest import micro_config
from etils import epath
from unet import UNetConfig, to_patches, to_pixels

from genmask_jax.checkpoints.runs import read_vae_config
from genmask_jax.config import SamplerConfig
from genmask_jax.config.checks import from_config_dict
from genmask_jax.data.sources import texts
from genmask_jax.evaluation.on_scenes import score_scenes
from genmask_jax.instruction import factory
from genmask_jax.system import abstract_networks
from genmask_jax.training.start import train_genmask
from genmask_jax.utils.config_files import load_config
from genmask_jax.utils.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
NAMES = ("unet", "dit_linear")


def shipped(name: str) -> BaselineConfig:
    return from_config_dict(BaselineConfig, load_config(str(ROOT / "baselines" / "configs" / f"{name}.py")))


def small(name: str, vae: str) -> BaselineConfig:
    config = micro_config(vae)
    fields = {**vars(config), "data": dataclasses.replace(config.data, generate="none")}
    return BaselineConfig(**fields, baseline=name, unet=UNetConfig(channels=(8, 16), num_heads=2))


def abstract(config: BaselineConfig):
    encoder = factory.build(config.instruction, epath.Path(), texts(config.data, 400))
    return abstract_networks(config, read_vae_config(config.vae), encoder)


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_has_as_many_parameters_as_genmask(name):
    config = shipped(name)
    genmask = abstract(config)
    own = count_parameters(make_baseline(genmask, config).shapes)
    assert own == pytest.approx(count_parameters(genmask.shapes), rel=0.1)


def test_pixels_are_the_inverse_of_patches():
    x = jax.random.normal(jax.random.key(0), (2, 8, 12, 1))
    assert jnp.array_equal(to_pixels(to_patches(x, 4), 4), x[..., 0])


@pytest.mark.parametrize("name", ["unet", pytest.param("dit_linear", marks=pytest.mark.slow)])
def test_a_baseline_is_trained_and_scored_like_genmask(name, micro_vae, tmp_path):
    config = small(name, micro_vae)
    state, _ = train_genmask(config, str(tmp_path / "run"), make_task=BaselineTask)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert rows[0]["loss"] > [row["loss"] for row in rows if "loss" in row][-1]

    scoring = BaselineScoring(str(tmp_path / "run"), "last", SamplerConfig(), 32, 0, 1, "")
    score_scenes(scoring, config.data, "test", count=6, num_images=1, choose_no_target=False)
    metrics = json.loads((tmp_path / "run" / "evaluation_test" / "metrics.json").read_text())
    assert {"mIoU", "oIoU", "P@0.5", "P@0.9", "groups", "swapped", "absent", "sampler"} <= set(metrics)
    assert (metrics["count"], metrics["checkpoint_step"]) == (6, 4)

    _, segmenter, _ = scoring.open()
    images = np.zeros((2, 32, 32, 3), np.uint8)
    images[1, :16] = 255
    texts = ["the red star", "the blue circle"]
    probabilities, spread = segmenter.sample_phrases(images, texts)
    pairs = segmenter(images[[0, 0, 1, 1]], texts * 2).reshape(2, 2, 32, 32)
    assert np.allclose(probabilities, pairs, atol=1e-6)
    assert not spread.any()

    resumed, _ = train_genmask(config, str(tmp_path / "run"), resume=True, make_task=BaselineTask)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, resumed.params, state.params))


def test_a_baseline_refuses_what_it_cannot_do(micro_vae):
    config = small("unet", micro_vae)
    genmask = abstract(config)
    for changes, complaint in (
        ({"baseline": "mlp"}, "config.baseline: 'mlp' is not unet or dit_linear"),
        ({"init": "refershapes"}, "config.init: a baseline is trained from random weights"),
        ({"data": dataclasses.replace(config.data, generate="")}, "config.data.generate"),
        ({"unet": UNetConfig(patch_size=3)}, "config.data.size 32 is not a multiple of the U-Net's 12"),
    ):
        with pytest.raises(UserError, match=complaint):
            make_baseline(genmask, dataclasses.replace(config, **changes))


def test_the_package_does_not_import_the_baselines():
    modules = {path.stem for path in (ROOT / "baselines").glob("*.py")} - {"train", "evaluate"}
    for path in (ROOT / "genmask_jax").rglob("*.py"):
        for name in (*modules, "baselines"):
            assert f"import {name}" not in path.read_text(), path
            assert f"from {name} " not in path.read_text(), path
