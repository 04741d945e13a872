"""launch/finetune.py: from a folder to a model and its scores, and on after an interruption."""

import json

import numpy as np
import pytest
from etils import epath
from PIL import Image
from test_end_to_end import one_line_error, run_script

from genmask_jax.commands import finetune
from genmask_jax.config import LoopConfig
from genmask_jax.data.prepared import records
from genmask_jax.data.prepared.prepare import prepare

SMALL = (
    "--config.loop.num_steps=2", "--config.loop.eval_every_steps=2", "--config.loop.checkpoint_every_steps=2",
    "--config.loop.global_batch_size=4", "--config.optimizer.warmup_steps=1", "--config.data.size=32",
    "--vae.loop.num_steps=2", "--vae.loop.global_batch_size=4", "--vae.loop.num_eval_examples=32",
    "--vae.optimizer.warmup_steps=1",
)  # fmt: skip


def write_leaves(folder):
    """Twenty photographs of noise with a bright leaf, and its masks."""
    folder.mkdir()
    for i in range(20):
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
    done = run_script(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for part in ("read as masks: 20 images", "the VAE of refershapes on the val images", "Now try:"):
        assert part in done.stdout
    model = tmp_path / "mine" / "model"
    metrics = json.loads((model / "evaluation_val" / "metrics.json").read_text())
    assert metrics["count"] == 2
    assert set(metrics["label_maps"]["IoU"]) == {"the leaf"}
    assert metrics["label_maps"]["threshold"] > 0  # most pixels are of no class
    for name in ("masks", "label_maps"):
        assert Image.open(model / "evaluation_val" / f"{name}.png").width > 100
    again = run_script(*command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "already prepared" in again.stdout


def test_a_few_masks_need_fewer_steps(raw, tmp_path, capsys):
    prepare("image_folder", epath.Path(raw), epath.Path(tmp_path / "data"), num_workers=1)
    prepared = records.find(str(tmp_path / "data"), "image_folder")
    loop = LoopConfig(num_steps=2700, global_batch_size=16)
    fewer = finetune.fewer_steps
    assert fewer(prepared, loop, [], "none") == ["--config.loop.num_steps=450"]  # 18 masks, 400 times
    assert fewer(prepared, loop, [], "") == ["--config.loop.num_steps=900"]  # half of a batch
    assert fewer(prepared, loop, ["--config.loop.global_batch_size=2"], "none") == []
    assert fewer(prepared, loop, ["--config.loop.num_steps=5000"], "none") == []
    assert "18 masks" in capsys.readouterr().out


def test_mistakes_are_one_line(raw, tmp_path):
    one_line_error(run_script("finetune", "--raw=no", "--workdir=mine", "--from=nothing", cwd=tmp_path), "no")
    flag = run_script("finetune", f"--raw={raw}", "--workdir=mine", "--depth=3", cwd=tmp_path)
    one_line_error(flag, "--depth=3", "no such flag")
    start = run_script("finetune", f"--raw={raw}", "--workdir=mine", "--from=refershape", cwd=tmp_path)
    one_line_error(start, "refershape")
    size = run_script("finetune", f"--raw={raw}", "--workdir=mine", "--config.data.size=x", cwd=tmp_path)
    one_line_error(size, "--config.data.size=x", "number")
