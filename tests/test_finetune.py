"""launch/finetune.py: from a folder to a model and its scores, also after an interruption."""

import argparse
import json
import re

import numpy as np
import pytest
from etils import epath
from PIL import Image
from test_end_to_end import one_line_error, run_script

from genmask_jax import cli
from genmask_jax.commands import finetune
from genmask_jax.config import TrainConfig, VAETrainConfig
from genmask_jax.config.checks import from_config_dict
from genmask_jax.data.prepared import records
from genmask_jax.data.prepared.prepare import prepare
from genmask_jax.training import finetuning
from genmask_jax.training.optimizer import learning_rate_schedule
from genmask_jax.utils import config_files
from genmask_jax.utils.errors import UserError
from tests.conftest import micro_config

SMALL = (
    "--config.loop.num_steps=2", "--config.loop.eval_every_steps=2", "--config.loop.checkpoint_every_steps=2",
    "--config.loop.global_batch_size=4", "--config.optimizer.warmup_steps=1", "--config.data.size=32",
    "--vae.loop.num_steps=2", "--vae.loop.global_batch_size=4", "--vae.loop.num_eval_examples=32",
    "--vae.optimizer.warmup_steps=1",
)  # fmt: skip


def write_leaves(folder, count=20):
    """Photographs of noise with a bright leaf, and its masks."""
    folder.mkdir()
    for i in range(count):
        rng = np.random.default_rng(i)
        mask = np.zeros((40, 60), np.uint8)
        x, y = rng.integers(5, 35), rng.integers(5, 20)
        mask[y : y + 15, x : x + 20] = 255
        image = np.where(mask[..., None] > 0, 220, rng.integers(0, 90, (40, 60, 3))).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{i}.jpg")
        Image.fromarray(mask).save(folder / f"{i}_mask.png")
    (folder / "phrases.txt").write_text("the leaf\n")


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    write_leaves(folder)
    return folder


@pytest.mark.slow
def test_a_folder_becomes_a_model_in_one_command(raw, tmp_path):
    command = ("finetune", f"--raw={raw}", "--workdir=mine", *SMALL)
    completed = run_script(*command, cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    for text in (
        "read as masks: 20 images",
        "1.0.0/examples.png",
        "the VAE of refershapes_small on val images",
        "Now try:",
    ):
        assert text in completed.stdout
    model = tmp_path / "mine" / "model"
    metrics = json.loads((model / "evaluation_val" / "metrics.json").read_text())
    assert metrics["count"] == 2
    assert set(metrics["label_maps"]["IoU"]) == {"the leaf"}
    assert metrics["label_maps"]["threshold"] > 0  # most pixels have no class
    for name in ("masks", "label_maps"):
        assert Image.open(model / "evaluation_val" / f"{name}.png").width > 100
    rerun = run_script(*command, cwd=tmp_path)
    assert rerun.returncode == 0, rerun.stderr
    assert "already prepared" in rerun.stdout


@pytest.mark.parametrize(
    ("images", "masks", "steps"), [(2, 1, 25), (3, 2, 50), (5, 4, 100), (20, 18, 450), (None, 0, 0)]
)
def test_a_few_masks_need_fewer_steps(images, masks, steps, tmp_path):
    write_leaves(tmp_path / "raw", images or 1)
    prepare("image_folder", epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "data"), num_workers=1)
    prepared = records.find(str(tmp_path / "data"), "image_folder")
    config = micro_config("", num_steps=2700, global_batch_size=16)
    if images is None:
        with pytest.raises(UserError, match="the split val has no image; add images"):
            finetuning.make_plan(prepared, config)
        return
    plan = finetuning.make_plan(prepared, config)
    assert (plan.masks, plan.num_steps) == (masks, steps)  # 400 passes over the masks, in batches of 16
    assert (plan.captioned, plan.split, plan.phrase) == (False, "val", "the leaf")
    assert finetuning.make_plan(prepared, micro_config("", num_steps=2)).num_steps == 2


def make_run(raw, tmp_path, *fields, **options) -> finetune.FinetuneRun:
    """Runs the checks before the first step."""
    flags = {
        "config": "finetune",
        "vae_config": "vae_photographs",
        "format": "",
        "start": "refershapes_small",
    }
    flags |= {"raw": epath.Path(raw), "workdir": str(tmp_path / "mine"), **options}
    return finetune.plan_run(argparse.Namespace(**flags), list(fields))


@pytest.fixture
def same_process(monkeypatch):
    """Runs checks in this process, which is faster than a subprocess."""
    monkeypatch.setattr(finetune, "run_in_subprocess", lambda function, *arguments: function(*arguments))


def test_everything_is_checked_before_the_first_step(raw, tmp_path, same_process):
    run = make_run(raw, tmp_path, "--config.loop.num_steps=30", "--vae.loop.num_steps=40")
    assert (run.config.loop.num_steps, run.vae_config.loop.num_steps) == (30, 40)
    assert (run.config.data.size, run.vae_config.data.size) == (96, 96)
    assert run.vae_fits
    assert "--config.init=refershapes_small" in run.train_vae
    errors = {
        "--config.model.depht=3": "did you mean depth",
        "--config.data.size=x": "--config.data.size=x",
        "--config.data.size=100": "not a multiple of VAE stride",
        "--config.model.hidden_size=256": "this checkpoint is of another model",
        "--config.mesh.fsdp=3": "does not match the",
        "--vae.mesh.fsdp=3": "does not match the",
        "--vae.loop.global_batch_size=3": "loop.global_batch_size must be a multiple",
        "--vae.learning_rate=3": "no such field",
        "--depth=3": "--depth=3: no such flag",
    }
    for field, message in errors.items():
        with pytest.raises(UserError, match=re.escape(message)):
            make_run(raw, tmp_path, field)
    for option, value, message in (
        ("config", "nope", "there is no such file. Shipped configs: "),
        (
            "config",
            "vae_tiny",
            "--config=vae_tiny is a config for launch/train_vae.py, not for launch/train.py",
        ),
        (
            "vae_config",
            "genmask_tiny",
            "--vae_config=genmask_tiny is a config for launch/train.py, not for launch/train_vae.py",
        ),
        ("raw", "nope", "there is no such folder"),
        ("start", "nope", "nope"),
    ):
        with pytest.raises(UserError, match=message):
            make_run(**{"raw": raw, "tmp_path": tmp_path, option: value})
    assert not (tmp_path / "mine").exists()


def test_a_new_vae_of_another_shape_starts_from_random_weights(raw, tmp_path, same_process):
    run = make_run(raw, tmp_path, "--vae.vae.channels=4")
    assert not run.vae_fits
    assert run.train_vae[-1] == "--config.init="


SHIPPED = sorted(path.stem for path in config_files.folder().glob("*.py"))
CONFIGS = [name for name in SHIPPED if not name.startswith("evaluate")]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_steps", [1, 30])
def test_short_runs_of_every_config_have_a_short_warmup(name, num_steps):
    values = cli.read_config([f"--config={name}", f"--config.loop.num_steps={num_steps}"])
    config = from_config_dict(VAETrainConfig if "kl_weight" in values else TrainConfig, values)
    schedule = learning_rate_schedule(config.optimizer, config.loop)
    rates = [float(schedule(step)) for step in range(num_steps)]
    assert rates.index(max(rates)) == num_steps // 4
    assert max(rates) == pytest.approx(config.optimizer.learning_rate)
    assert float(schedule(num_steps)) == pytest.approx(0, abs=1e-9)


def test_a_mistake_gives_one_line_and_creates_nothing(raw, tmp_path):
    fields = (f"--raw={raw}", "--workdir=mine", "--config.data.size=100")
    one_line_error(run_script("finetune", *fields, cwd=tmp_path), "config.data.size 100 is not a multiple")
    assert not (tmp_path / "mine").exists()
