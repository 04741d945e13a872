"""Several processes on localhost do what one does: training, stopping, resuming, evaluation."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest
from test_end_to_end import one_line_error, rows, run_script

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


def begin(script, arguments, cwd, *, processes=1, devices=1, said=by_flags):
    """Starts a script on so many processes, of so many devices each."""
    port, started = free_port(), []
    for process in range(processes):
        flags, environment = said(process, processes, port)
        flag = f"--xla_force_host_platform_device_count={devices}"
        # Only XLA's default code generator gives the same numbers, bit for bit, on any mesh.
        shared = os.environ["XLA_FLAGS"].replace("--xla_cpu_use_fusion_emitters=false", "")
        environment |= {"XLA_FLAGS": f"{shared} {flag}"}
        with (cwd / f"{script}_{process}.log").open("w") as log:
            command = [sys.executable, SMALL, LAUNCH / f"{script}.py", *arguments, *flags]
            options = {"cwd": cwd, "env": os.environ | environment, "stdout": log, "stderr": log}
            started.append(subprocess.Popen(command, **options))
    return started


def finish(started) -> list[int]:
    return [process.wait(timeout=300) for process in started]


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
    logs = "\n".join(path.read_text()[-1500:] for path in workdir.parent.glob("train_*.log"))
    assert codes == [1] * len(started), logs
    assert logs.count("continue with --resume") == len(started), logs
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


@pytest.mark.slow
def test_two_processes_stop_together_in_a_validation_which_one_makes_up(micro_vae, tmp_path):
    run = tmp_path / "run"
    last = ["--config.loop.num_steps=2", "--config.mesh.fsdp=2"]
    saved = (run / "checkpoints/2").exists
    arguments = training(micro_vae, run, *last, "--config.loop.num_eval_examples=100000")
    logs = train_and_stop(arguments, run, saved, processes=2)
    assert logs.count("stopped at step 2, in its validation") == 2
    assert "stopping the validation of step 2, after its checkpoint" in logs
    assert (2, True) not in rows(run)
    shorter = training(micro_vae, run, *last, "--config.loop.num_eval_examples=8", "--resume")
    assert finish(begin("train", shorter, tmp_path, devices=2)) == [0]
    assert (2, True) in rows(run)
    assert json.loads((run / "checkpoints/2/metrics/metrics").read_text())["score"] >= 0


def on_a_benchmark(run, data, folder, **options):
    """Metrics and rows of ReasonSeg's 7 val images, which no number of processes divides."""
    arguments = [f"--checkpoint={run}", "--benchmark=reasonseg:val", f"--data={data}", "--batch_size=2"]
    (folder / "logs").mkdir(parents=True)
    began = begin("evaluate", [*arguments, f"--workdir={folder}/out"], folder / "logs", **options)
    codes = finish(began)
    assert set(codes) == {0}, (folder / "logs/evaluate_0.log").read_text()[-3000:]
    record = json.loads((folder / "out/metrics.json").read_text())["reasonseg:val"]["metrics"]
    return record, (folder / "out/reasonseg_val.jsonl").read_text().splitlines()


@pytest.mark.multidevice
def test_two_processes_share_a_benchmark(micro_run, benchmark_data, tmp_path):
    one = on_a_benchmark(micro_run[0], benchmark_data.out, tmp_path / "1")
    assert on_a_benchmark(micro_run[0], benchmark_data.out, tmp_path / "2", processes=2) == one
    assert one[0]["count"] == len(one[1]) == 7


@pytest.mark.slow
def test_four_processes_share_a_benchmark(micro_run, benchmark_data, tmp_path):
    one = on_a_benchmark(micro_run[0], benchmark_data.out, tmp_path / "1")
    assert on_a_benchmark(micro_run[0], benchmark_data.out, tmp_path / "4", processes=4) == one


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
