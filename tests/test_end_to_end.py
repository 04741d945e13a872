"""A whole run: stopped and resumed bit for bit, evaluated, sampled, and protected from mistakes."""

import dataclasses
import gzip
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import flags
from conftest import micro_config, start
from PIL import Image

from genmask_jax.checkpoints.runs import find_step
from genmask_jax.training import loop
from genmask_jax.utils.errors import UserError

LAUNCH = pathlib.Path(__file__).parent.parent / "launch"


class Interrupted(Exception):
    """Stands for a crash."""


def crash():
    raise Interrupted


def at_batch(count, event):
    """Data that lets `event` happen when the batch after the first `count` is drawn."""

    def wrap(batches):
        def eventful(*arguments):
            inner = batches(*arguments)

            class Eventful(type(inner)):
                def __next__(self):
                    self.drawn = getattr(self, "drawn", 0) + 1
                    if self.drawn == count + 1:
                        event()
                    return super().__next__()

            inner.__class__ = Eventful
            return inner

        return eventful

    return wrap


def rows(workdir):
    """The last row of each step and kind in metrics.jsonl."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {(row["step"], "val_mIoU" in row): row for row in lines}


def is_uninterrupted(workdir, state, micro_run):
    """Compares all that a run leaves with the run that was never stopped."""
    other, _, expected = micro_run
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), expected)
    assert rows(workdir) == rows(other)
    lines = [len((path / "metrics.jsonl").read_text().splitlines()) for path in (workdir, other)]
    assert lines[0] == lines[1]
    for name in ("checkpoints", "samples"):
        found = [sorted(path.name for path in (run / name).iterdir()) for run in (workdir, other)]
        assert found[0] == found[1]
    assert find_step(workdir, "best") == find_step(other, "best")


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit_with_any_workers(micro_run, tmp_path, caplog):
    """It crashes without worker processes, is stopped with two, and ends with one."""
    flags.FLAGS.mark_as_parsed()  # Grain's workers read absl's flags
    _, config, _ = micro_run
    config = dataclasses.replace(config, loop=dataclasses.replace(config.loop, checkpoint_every_steps=1))

    def workers(count):
        return dataclasses.replace(config, data=dataclasses.replace(config.data, num_workers=count))

    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(config, run, batches=at_batch(1, crash))  # dies at step 2; step 1 was saved
    stop = at_batch(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit, match=r"stopped at step 3, .* --resume"):
        start(workers(2), run, batches=stop, resume=True)
    assert "SIGTERM: stopping after this step, with a checkpoint" in caplog.text
    assert find_step(run, "last") == 3
    state, _ = start(workers(1), run, resume=True)
    is_uninterrupted(run, state, micro_run)


def test_a_validation_that_was_stopped_is_made_up(micro_run, tmp_path, caplog):
    """Stopped before its first batch, and, at the end of the run, after its last one."""
    _, config, _ = micro_run
    run = tmp_path / "run"

    def interrupted_at(step, batch):
        def wrap(evaluate):
            def eventful(params, at, directory, between):
                numbers = itertools.count()

                def signalled():
                    if at == step and next(numbers) == batch:
                        os.kill(os.getpid(), signal.SIGINT)
                    between()

                return evaluate(params, at, directory, signalled)

            return eventful

        return wrap

    for step, batch in ((2, 0), (4, 1)):
        with pytest.raises(SystemExit, match=f"stopped during the validation of step {step}; .* --resume"):
            start(config, run, evaluate=interrupted_at(step, batch), resume=True)
        assert f"Ctrl-C: stopping the validation of step {step}, after its checkpoint" in caplog.text
        assert find_step(run, "last") == step
        assert (step, True) not in rows(run)
    with (run / "metrics.jsonl").open("a") as file:  # as if killed before the checkpoint got its scores
        file.write(json.dumps({"step": 4, "val_mIoU": 9, "val_score": 9}) + "\n")
    state, scores = start(config, run, resume=True)
    is_uninterrupted(run, state, micro_run)
    assert json.loads((run / "checkpoints/4/metrics/metrics").read_text()) == scores


def test_a_run_learns_and_keeps_its_average_apart(micro_run):
    _, _, state = micro_run
    assert int(state.step) == 4
    different = jax.tree.map(lambda a, b: not np.array_equal(a, b), state.params, state.ema_params)
    assert any(jax.tree.leaves(different))
    assert np.isfinite(state.metrics["loss"])


def test_nothing_is_compiled_after_the_first_step(micro_vae, tmp_path):
    """Not by steps, logs or checkpoints."""
    compiled, at_draw = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )

    def counted(batches):
        def count(*arguments):
            inner = batches(*arguments)

            class Counted(type(inner)):
                def __next__(self):
                    at_draw.append(len(compiled))
                    return super().__next__()

            inner.__class__ = Counted
            return inner

        return count

    start(micro_config(micro_vae, num_steps=6, eval_every_steps=6), tmp_path / "run", batches=counted)
    assert len(at_draw) == 6
    assert at_draw[1] > at_draw[0]
    assert set(at_draw[2:]) == {at_draw[1]}, at_draw


def test_what_is_not_put_on_the_devices_stops_the_loop(micro_vae, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "to_devices", lambda batch, mesh: batch)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        start(micro_config(micro_vae), tmp_path / "run")


@pytest.mark.slow
def test_a_profile_can_be_opened(micro_vae, tmp_path):
    """By XProf (the .xplane.pb) and Perfetto."""
    start(micro_config(micro_vae, num_steps=3), tmp_path / "run", profile=range(1, 3))
    (trace,) = (tmp_path / "run/profile").rglob("perfetto_trace.json.gz")
    with gzip.open(trace) as file:
        names = {event.get("name", "") for event in json.load(file)["traceEvents"]}
    assert any("train_step" in name for name in names)
    assert list((tmp_path / "run/profile").rglob("*.xplane.pb"))


def test_a_used_directory_is_left_alone(micro_run, tmp_path):
    workdir, config, _ = micro_run
    before = sorted(path.name for path in workdir.rglob("*"))
    with pytest.raises(UserError, match="--resume or --overwrite"):
        start(config, workdir)
    with pytest.raises(UserError, match=r"loop\.num_steps 4 -> 6"):
        start(micro_config(config.vae, num_steps=6), workdir, resume=True)
    assert sorted(path.name for path in workdir.rglob("*")) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        start(config, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def run_script(name, *arguments, cwd, **environment):
    command = [sys.executable, LAUNCH / f"{name}.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | environment)


def one_line_error(done, *words):
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert all(word in lines[0] for word in words), lines[0]


def test_evaluate_writes_what_it_says(micro_run, tmp_path):
    workdir, _, _ = micro_run
    done = run_script(
        "evaluate", f"--checkpoint={workdir}", "--count=6", "--num_images=3", f"--workdir={tmp_path}",
        "--batch_size=4", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["split"] == "test"
    assert metrics["count"] == 6
    assert metrics["checkpoint_step"] == 4
    assert {"mIoU", "oIoU", "P@0.5", "P@0.9", "seconds_per_image", "generation", "swapped"} <= set(metrics)
    assert metrics["absent"]["count"] == 6
    examples = [json.loads(line) for line in (tmp_path / "examples.jsonl").read_text().splitlines()]
    assert len(examples) == 6
    intersection, union = (sum(e[key] for e in examples) for key in ("intersection", "union"))
    assert metrics["oIoU"] == pytest.approx(intersection / union)
    for name in ("masks", "images", "shapes"):
        assert Image.open(tmp_path / f"{name}.png").width > 100


def test_sample_segments_and_draws(micro_run, tmp_path):
    workdir, _, _ = micro_run
    Image.fromarray(np.full((50, 70, 3), 90, np.uint8)).save(tmp_path / "photo.jpg")
    shared = (f"--checkpoint={workdir}", "--text=the red star", "--out=out")
    done = run_script("sample", *shared, "--image=photo.jpg", "--mask_steps=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "out/photo_mask.png").size == (70, 50)
    assert set(np.unique(np.asarray(Image.open(tmp_path / "out/photo_mask.png")))) <= {0, 255}
    done = run_script("sample", *shared, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "out/image.png").size == (32, 32)
    done = run_script("sample", *shared, "--count=2", "--seed=4", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["seed"], line["files"]) for line in lines] == [
        (4, ["out/image_1.png"]),
        (5, ["out/image_2.png"]),
    ]
    assert Image.open(tmp_path / "out/grid.png").width > 2 * 128


CONFIGS = LAUNCH.parent / "configs"
SMALL = (
    "--config.optimizer.warmup_steps=1",
    "--config.optimizer.name=adamw",
    "--config.loop.global_batch_size=4",
    "--config.data.size=32",
    "--config.loop.num_eval_examples=32",
    "--config.loop.num_steps=2",
)
SMALL_DIT = (
    f"--config={CONFIGS}/genmask_tiny.py",
    *SMALL,
    "--config.model.depth=1",
    "--config.sampler.image_steps=2",
    "--workdir=~/my runs, 1/é",
)


def on_two_devices(home):
    """The environment of a script with two pretend devices, and a home directory."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    return {"HOME": str(home), "XLA_FLAGS": flags}


def test_the_scripts_train_in_relative_directories(tmp_path):
    done = run_script("train_vae", f"--config={CONFIGS}/vae_tiny.py", *SMALL, "--workdir=vae", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # What works on one device works on several.
    done = run_script("train", *SMALL_DIT, "--config.vae=vae", cwd=tmp_path, **on_two_devices(tmp_path))
    assert done.returncode == 0, done.stderr
    run = tmp_path / "my runs, 1/é"
    assert (run / "checkpoints/2").is_dir()
    assert list((run / "samples").glob("masks_*.png"))


@pytest.mark.slow
def test_a_run_goes_on_on_fewer_devices_and_for_longer(micro_vae, tmp_path):
    train = ("train", *SMALL_DIT, f"--config.vae={micro_vae}")
    done = run_script(*train, "--config.mesh.fsdp=2", cwd=tmp_path, **on_two_devices(tmp_path))
    assert done.returncode == 0, done.stderr
    longer = ("--resume", "--config.loop.num_steps=3", "--change=loop.num_steps", "--config.mesh.fsdp=1")
    done = run_script(*train, *longer, cwd=tmp_path, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    run = tmp_path / "my runs, 1/é"
    assert (run / "checkpoints/3").is_dir()
    config = json.loads((run / "config.json").read_text())
    assert (config["mesh"]["fsdp"], config["loop"]["num_steps"]) == (1, 3)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_bad_input_gets_one_line(micro_run, micro_vae, tmp_path):
    workdir, _, _ = micro_run
    (tmp_path / "text.jpg").write_text("no image")
    sample = ("sample", f"--checkpoint={workdir}", "--text=a star")
    one_line_error(run_script(*sample, "--image=text.jpg", cwd=tmp_path), "text.jpg", "image")
    empty = ("sample", f"--checkpoint={workdir}", "--text= ")
    one_line_error(run_script(*empty, cwd=tmp_path), "--text", "empty")
    one_line_error(run_script("sample", "--checkpoint=no", "--text=x", cwd=tmp_path), "no", "--checkpoint")
    config = f"--config={LAUNCH.parent}/configs/genmask_tiny.py"
    train = ("train", config, "--workdir=new")
    misspelt = run_script(*train, "--config.model.dpeth=3", cwd=tmp_path)
    one_line_error(misspelt, "--config.model.dpeth", "depth?")
    one_line_error(run_script(*train, "--config.vae=missing", cwd=tmp_path), "missing", "VAE")
    one_line_error(
        run_script("train", "--config=no.py", "--workdir=new", cwd=tmp_path), "no.py", "no such file"
    )
    one_line_error(run_script(*train[:2], "--workdir=run [1]", cwd=tmp_path), "run [1]", "'['")
    below_a_file = ("train", config, f"--config.vae={micro_vae}", "--workdir=text.jpg/run")
    one_line_error(run_script(*below_a_file, cwd=tmp_path), "--workdir", "text.jpg/run")
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_of_another_model_is_refused(micro_run, tmp_path):
    import shutil

    workdir, _, _ = micro_run
    shutil.copytree(workdir, tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    config["model"]["ffn_size"] = 40
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    done = run_script("sample", f"--checkpoint={tmp_path / 'run'}", "--text=a star", cwd=tmp_path)
    one_line_error(done, "another model", "32", "40")
