"""The models that come with the package, by name."""

import dataclasses
import inspect
import json
import pathlib

import numpy as np
import pytest
from etils import epath

from genmask_jax import Generator, pretrained
from genmask_jax.checkpoints.initial_weights import open_weights
from genmask_jax.checkpoints.runs import find_step, load_vae, read_config
from genmask_jax.config import DataConfig, TrainConfig
from genmask_jax.data.refershapes.styles import STYLES
from genmask_jax.data.sources import texts
from genmask_jax.evaluation.scene_rule import matches_prompt
from genmask_jax.inference.load import load
from genmask_jax.instruction import tiny
from genmask_jax.training import start
from genmask_jax.utils.errors import UserError
from tests.test_end_to_end import run_script


def test_names_are_directories_of_the_package():
    assert pretrained.DEFAULT_MODEL in pretrained.names()
    assert (pretrained.directory_of(pretrained.DEFAULT_MODEL) / "config.json").exists()
    assert pretrained.directory_of("runs/tiny") == epath.Path("runs/tiny")


def test_an_existing_directory_takes_precedence_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pretrained.is_packaged("refershapes")
    (tmp_path / "refershapes").mkdir()
    assert not pretrained.is_packaged("refershapes")
    assert pretrained.directory_of("refershapes") == epath.Path("refershapes")


def test_a_misspelt_name_lists_the_valid_names():
    with pytest.raises(UserError, match=r"refershape: no checkpoint here.*: refershapes"):
        find_step("refershape", "last")


def test_a_name_loads_everywhere():
    networks, config, step = load("refershapes")
    assert config.data.name == "refershapes"
    assert step > 0
    assert networks.preparer.truncate("the red star") == "the red star"
    assert load_vae("refershapes")[0] == networks.vae_config
    start = open_weights("refershapes")
    assert (start.step, start.instruction("tiny")) == (
        step,
        pretrained.directory_of("refershapes") / "instruction",
    )


def test_words_match_the_training_texts():
    folder = pretrained.directory_of("refershapes") / "instruction"
    words = tiny.split_words(tiny.load_tokenizer(folder), texts(DataConfig(scenes="varied"), count=600))
    assert tiny.load_words(folder) == words
    assert {"red", "star", "thing", "orange"} <= words


def test_a_run_that_starts_from_it_knows_the_words_of_both(tmp_path, monkeypatch):
    config = read_config(TrainConfig, pretrained.directory_of("refershapes"))
    config = dataclasses.replace(config, init="refershapes", vae="refershapes")
    monkeypatch.setattr(start, "texts", lambda data: ["the red dog on the left", "a large circle"])
    monkeypatch.setattr(start, "train", lambda *_: (None, {}))  # the encoder is saved before training
    inspect.unwrap(start.train_genmask)(config, str(tmp_path / "run"))
    saved = tmp_path / "run" / "instruction"
    before = tiny.load_words(pretrained.directory_of("refershapes") / "instruction")
    assert tiny.load_words(saved) == before | {"dog"}


def test_the_model_is_small_and_has_a_card():
    folder = pathlib.Path(pretrained.MODELS_DIR / "refershapes")
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= 12e6
    card = (folder / "README.md").read_text()
    for text in ("mIoU", "launch/export_weights.py genmask", "## Limits"):
        assert text in card


def test_the_example_prompt_is_drawn_with_the_default_seed():
    generator = Generator.from_pretrained(pretrained.DEFAULT_MODEL)
    style = STYLES[read_config(TrainConfig, pretrained.directory_of(pretrained.DEFAULT_MODEL)).data.scenes]
    image = generator(pretrained.EXAMPLE_PROMPT)
    assert matches_prompt(np.asarray(image), pretrained.EXAMPLE_PROMPT, style)


@pytest.mark.slow
def test_the_card_matches_the_evaluation(tmp_path):
    options = ("--split=test", "--count=512", "--num_images=192")
    run = run_script("evaluate", "--checkpoint=refershapes", *options, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    metrics = json.loads((tmp_path / "runs/refershapes/evaluation_test/metrics.json").read_text())
    card = (pretrained.MODELS_DIR / "refershapes/README.md").read_text()
    assert f"| **all** | 512 | {metrics['mIoU']:.3f} | {metrics['oIoU']:.3f} |" in card
    assert f"| varied | {100 * metrics['generation']['share_right']:.0f} % |" in card
