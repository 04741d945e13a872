"""Several processes on localhost do what one does: training, stopping, resuming, evaluation."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import raw_trees
from etils import epath
from PIL import Image
from test_end_to_end import one_line_error, rows, run_script

from genmask_jax.data.prepared.prepare import prepare

MAX_SECONDS_TO_NOTICE = 150
"""JAX's coordination service notices a process that hangs after 100 s."""
LAUNCH = pathlib.Path(__file__).parent.parent / "launch"
SMALL = pathlib.Path(__file__).parent / "fsdp_everything.py"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def by_flags(process: int, count: int, port: int) -> tuple[list[str], dict[str, str]]:
    if count == 1:
        return [], {}
    return [f"--coordinator=localhost:{port}", f"--num_processes={count}", f"--process_id={process}"], {}


def by_slurm(process: int, count: int, port: int) -> tuple[list[str], dict[str, str]]:
    """What SLURM tells the tasks of a job."""
    values = {
        "JOB_ID": port,
        "STEP_NODELIST": "localhost",
        "NTASKS": count,
        "PROCID": process,
        "LOCALID": process,
    }
    values |= {"STEP_NUM_TASKS": count, "STEP_LOCAL_TASKS": count}
    return [], {f"SLURM_{name}": str(value) for name, value in values.items()}


def begin(script, arguments, cwd, *, processes=1, devices=1, said=by_flags, folder=LAUNCH):
    """Starts a script of a folder on so many processes, of so many devices each."""
    port, started = free_port(), []
    for process in range(processes):
        flags, environment = said(process, processes, port)
        flag = f"--xla_force_host_platform_device_count={devices}"
        # Only XLA's default code generator gives the same numbers, bit for bit, on any mesh.
        shared = os.environ["XLA_FLAGS"].replace("--xla_cpu_use_fusion_emitters=false", "")
        environment |= {"XLA_FLAGS": f"{shared} {flag}"}
        with (cwd / f"{script}_{process}.log").open("w") as log:
            command = [sys.executable, SMALL, folder / f"{script}.py", *arguments, *flags]
            options = {"cwd": cwd, "env": os.environ | environment, "stdout": log, "stderr": log}
            started.append(subprocess.Popen(command, **options))
    return started


def finish(started) -> list[int]:
    return [process.wait(timeout=600) for process in started]


def training(vae, workdir, *more):
    fields = {
        "vae": vae, "data.size": 32, "model.depth": 1, "optimizer.warmup_steps": 1, "optimizer.name": "adamw",
        "loop.global_batch_size": 16, "loop.num_steps": 100_000, "loop.log_every_steps": 1,
        "loop.eval_every_steps": 100_000, "loop.checkpoint_every_steps": 100_000,
    }  # fmt: skip
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    return [f"--config={LAUNCH.parent}/configs/genmask_tiny.py", f"--workdir={workdir}", *overrides, *more]


def logged(workdir, count):
    """A function that returns whether so many steps are logged."""
    metrics = workdir / "metrics.jsonl"
    return lambda: metrics.exists() and len(rows(workdir)) >= count


def train_and_stop(arguments, workdir, until, **options):
    """Trains until `until()` is true, and then asks the last process alone to stop; returns the logs."""
    started = begin("train", arguments, workdir.parent, **options)
    deadline = time.monotonic() + 300
    while all(process.poll() is None for process in started):
        if time.monotonic() > deadline:  # processes that wait for each other
            for process in started:
                process.kill()
        elif until():
            started[-1].send_signal(signal.SIGTERM)
            break
        time.sleep(0.2)
    codes = finish(started)
    paths = (workdir.parent / f"train_{i}.log" for i in range(len(started)))  # not of earlier processes
    logs = "\n".join(path.read_text()[-1500:] for path in paths)
    assert codes == [1] * len(started), logs
    assert logs.count("the same command with --resume continues") == len(started), logs
    assert logs.count("SIGTERM: stopping") == 1, logs
    return logs


def same_losses(workdir, other, *, rel=1e-5, steps=None):
    """Compares the (first) steps that both have logged, of which there are some; returns the last."""
    ours, theirs = rows(workdir), rows(other)
    common = sorted(set(ours) & set(theirs))[:steps]
    for key in common:
        for name in ("loss", "loss_segment", "loss_generate", "grad_norm"):
            assert ours[key][name] == pytest.approx(theirs[key][name], rel=rel), (key, name)
    return common[-1][0]


@pytest.fixture(scope="module")
def alone(micro_vae, tmp_path_factory):
    """The work directory of a run on one device, stopped after some 50 steps."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    train_and_stop(training(micro_vae, workdir), workdir, logged(workdir, 50))
    return workdir


@pytest.mark.slow
def test_two_processes_train_as_one_does(micro_vae, alone, tmp_path):
    """Data 2 x fsdp 2 on two processes, stopped by one of them, resumed by a single process."""
    arguments = training(micro_vae, tmp_path / "run", "--config.mesh.fsdp=2")
    train_and_stop(arguments, tmp_path / "run", logged(tmp_path / "run", 3), processes=2, devices=2)
    assert same_losses(tmp_path / "run", alone) >= 3
    before = len(rows(tmp_path / "run"))
    train_and_stop(
        [*arguments, "--resume"], tmp_path / "run", logged(tmp_path / "run", before + 3), devices=2
    )
    assert same_losses(tmp_path / "run", alone) > before


@pytest.mark.slow
def test_four_processes_go_on_where_one_stopped(micro_vae, alone, tmp_path):
    """Tensor and fsdp axes that span the processes, and then the checkpoint on two processes again."""
    arguments = training(micro_vae, tmp_path / "run", "--config.mesh.fsdp=2", "--config.mesh.tensor=2")
    train_and_stop(arguments, tmp_path / "run", logged(tmp_path / "run", 2), devices=4)
    for processes, devices in ((4, 1), (2, 2)):
        before = len(rows(tmp_path / "run"))
        options = {"processes": processes, "devices": devices}
        train_and_stop(
            [*arguments, "--resume"], tmp_path / "run", logged(tmp_path / "run", before + 2), **options
        )
        assert same_losses(tmp_path / "run", alone) > before


@pytest.fixture(scope="module")
def seventeen(tmp_path_factory):
    """A dataset of classes, of which every fifth image shows none, and ReasonSeg, each with 17 val images."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("out")
    for split, count in (("train", 2), ("val", 17)):
        for i in range(count):
            rng, folder = np.random.default_rng(i), raw / "classes" / split
            folder.mkdir(parents=True, exist_ok=True)
            labels = rng.integers(0, 3, (8, 7)).repeat(6, 0).repeat(6, 1).astype(np.uint8)
            Image.fromarray(rng.integers(0, 256, (48, 42, 3), np.uint8)).save(folder / f"{i}.png")
            Image.fromarray(labels if i % 5 else 0 * labels + 2).save(folder / f"{i}_label.png")
    (raw / "classes" / "classes.txt").write_text("sky\nroad\nbackground\n")
    raw_trees.reasonseg_tree(raw / "reasonseg", {"val": 17})
    for name, folder in (("image_folder", "classes"), ("reasonseg", "reasonseg")):
        prepare(name, epath.Path(raw / folder), epath.Path(out), num_workers=1)
    return out


def all_scores(folder, arguments, processes):
    """What the command and `evaluation/shared_scores.py` wrote, by the file's name."""
    (folder / "out").mkdir()
    arguments = [*arguments, f"--workdir={folder}/out", f"--fsdp={processes}"]
    tests = pathlib.Path(__file__).parent
    codes = finish(
        begin("shared_scores", arguments, folder, processes=processes, folder=tests / "evaluation")
    )
    assert codes == [0] * processes, (folder / "shared_scores_0.log").read_text()[-3000:]
    found = {}
    for path in (folder / "out").iterdir():
        if path.suffix in (".json", ".jsonl"):
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else []
            found[path.name] = [json.loads(line) for line in lines] or json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def scoring(micro_run, benchmark_data, seventeen) -> list[str]:
    """What `evaluation/shared_scores.py` is given on any number of processes."""
    fields = {
        "data.name": "image_folder",
        "data.path": seventeen,
        "data.generate": "classes",
        "data.size": 32,
    }
    fields |= {"sampler.image_steps": 2, "sampler.mask_samples": 2}
    config = [f"--config={LAUNCH.parent}/configs/genmask_tiny.py"]
    config += [f"--config.{name}={value}" for name, value in fields.items()]
    counts = ["--split=val", "--count=9", "--num_images=9", "--batch_size=4"]
    data = [f"--data={seventeen}", f"--grefcoco={benchmark_data.out}"]
    return [f"--checkpoint={micro_run[0]}", *config, *counts, *data]


@pytest.fixture(scope="module")
def scores_of_one(scoring, tmp_path_factory):
    return all_scores(tmp_path_factory.mktemp("one"), scoring, 1)


@pytest.mark.slow
def test_two_processes_stop_together_in_a_validation_which_one_makes_up(micro_vae, tmp_path):
    run = tmp_path / "run"
    last = ["--config.loop.num_steps=2", "--config.mesh.fsdp=2"]
    saved = (run / "checkpoints/2").exists
    arguments = training(micro_vae, run, *last, "--config.loop.num_eval_examples=100000")
    logs = train_and_stop(arguments, run, saved, processes=2)
    assert logs.count("stopped during the validation of step 2") == 2
    assert "stopping the validation of step 2, after its checkpoint" in logs
    assert (2, True) not in rows(run)
    shorter = training(micro_vae, run, *last, "--config.loop.num_eval_examples=8", "--resume")
    assert finish(begin("train", shorter, tmp_path, devices=2)) == [0]
    assert (2, True) in rows(run)
    assert json.loads((run / "checkpoints/2/metrics/metrics").read_text())["score"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "lost", "processes", "restarts"),
    [
        (signal.SIGKILL, 1, 2, [1]),
        (signal.SIGKILL, 0, 2, [2]),
        (signal.SIGSTOP, 1, 2, [1]),
        (signal.SIGKILL, 2, 4, [4, 2, 1]),
    ],
)
def test_the_others_end_if_a_process_dies_or_hangs(micro_vae, tmp_path, number, lost, processes, restarts):
    """They end in time with a reason, and the run continues on as many processes, or fewer."""
    run = tmp_path / "run"
    options = ["--config.loop.checkpoint_every_steps=2", "--config.loop.num_eval_examples=8"]
    arguments = training(micro_vae, run, *options)
    started = begin("train", arguments, tmp_path, processes=processes)
    deadline = time.monotonic() + 400
    while not logged(run, 3)():
        assert all(process.poll() is None for process in started)
        assert time.monotonic() < deadline
        time.sleep(0.2)
    started[lost].send_signal(number)
    others = [i for i in range(processes) if i != lost]
    try:
        codes = [started[i].wait(MAX_SECONDS_TO_NOTICE) for i in others]
    finally:
        for process in started:
            process.kill()
    logs = [(tmp_path / f"train_{i}.log").read_text() for i in others]
    assert 0 not in codes
    for text in logs:
        assert (
            "another host ended or does not answer" in text or "Terminating process because the JAX" in text
        ), text[-3000:]
    for count in restarts:
        steps = max(rows(run))[0]
        last = ["--resume", f"--config.loop.num_steps={steps + 1}", "--change=loop.num_steps"]
        assert finish(begin("train", [*arguments, *last], tmp_path, processes=count)) == [0] * count
        assert max(rows(run))[0] == steps + 1


@pytest.mark.multidevice
@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_many_processes_find_the_scores_of_one(scoring, scores_of_one, tmp_path, processes):
    """Every kind of score, of 1, 9 and 17 examples, which the processes do not divide."""
    one, many = scores_of_one, all_scores(tmp_path, scoring, processes)
    for process in range(1, processes):
        assert many.pop(f"scores_{process}.json") == many["scores_0.json"]
    assert one.keys() == many.keys() >= {"scores_0.json", "metrics.json", "reasonseg_val.jsonl"}
    levels = [[scores.pop("levels") for scores in found["scores_0.json"].values()] for found in (one, many)]
    for ours, theirs in zip(*levels, strict=True):  # a level may be rounded to either side
        assert ours == pytest.approx(theirs, abs=3)
    for found in (one, many):
        found["metrics.json"].pop("seconds_per_image", None)
    assert one == many


def test_every_example_is_scored_once(scores_of_one):
    for count, scores in scores_of_one["scores_0.json"].items():
        for kind in ("reasonseg", "grefcoco", "scenes"):
            assert scores[kind][0]["count"] == len(scores[kind][1]) == int(count)
    last = scores_of_one["scores_0.json"]["17"]
    assert any(row["no_target"] for row in last["grefcoco"][1])
    assert last["scenes"][0]["swapped"]["count"] > 0
    for count, scores in scores_of_one["scores_0.json"].items():
        assert scores["scenes"][0]["absent"]["count"] == int(count)
    assert last["label maps"]["mIoU_with_none"] != last["label maps"]["mIoU"]
    assert scores_of_one["metrics.json"]["label_maps"]["IoU"].keys() == {"sky", "road"}
    assert len(scores_of_one["examples.jsonl"]) == 9


@pytest.mark.slow
def test_two_processes_share_an_evaluation(micro_run, tmp_path):
    """Seven scenes, which two processes of two devices do not divide; SLURM's variables say who they are."""
    arguments = [f"--checkpoint={micro_run[0]}", "--count=7", "--num_images=3", "--batch_size=2"]
    here = begin("evaluate", [*arguments, "--workdir=one"], tmp_path)
    assert finish(here) == [0], (tmp_path / "evaluate_0.log").read_text()
    divided, options = ["--workdir=two", "--fsdp=2"], {"processes": 2, "devices": 2, "said": by_slurm}
    here = begin("evaluate", [*arguments, *divided], tmp_path, **options)
    assert finish(here) == [0, 0], (tmp_path / "evaluate_1.log").read_text()
    assert "wrote" not in (tmp_path / "evaluate_1.log").read_text()
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert one["count"] == two["count"] == 7
    for name in ("mIoU", "oIoU"):
        assert one[name] == pytest.approx(two[name], rel=1e-5)
    examples = [(tmp_path / name / "examples.jsonl").read_text().splitlines() for name in ("one", "two")]
    ids = [[json.loads(line)["id"] for line in lines] for lines in examples]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 7


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_made(micro_vae, tmp_path):
    arguments = training(micro_vae, tmp_path / "run", "--config.loop.grad_accumulation_steps=8")
    done = run_script("train", *arguments, cwd=tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    one_line_error(done, "config.loop.global_batch_size", "data x fsdp = 2")
    assert not (tmp_path / "run").exists()


def test_flags_of_processes_go_together(micro_vae, tmp_path):
    arguments = training(micro_vae, tmp_path / "run", "--coordinator=localhost:1", "--process_id=0")
    one_line_error(run_script("train", *arguments, cwd=tmp_path), "--num_processes", "missing")
