"""Running sweeps, with fake commands: sharing, skipping, resuming, splitting, failing and stopping."""

import collections
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
from etils import epath

from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.tools.sweep.plan import make_plan, part_of
from genmask_jax.tools.sweep.processes import divide_cores
from genmask_jax.tools.sweep.results import find_metric, read_lines
from genmask_jax.tools.sweep.runner import Runner
from genmask_jax.utils.errors import UserError

FAKE = pathlib.Path(__file__).with_name("fake_command.py")
CONFIG = SweepConfig(
    name="short",
    base="genmask_tiny",
    variants={
        "short": VariantConfig(train={"loop.num_steps": 10}),
        "short_2": VariantConfig(train={"loop.num_steps": 10}, evaluate={"mask_steps": 2}),
        "long": VariantConfig(train={"loop.num_steps": 20}),
    },
    reference="short",
    metrics=("mIoU", "P@0.9", "groups.kind.mIoU", "absent.absent_reported"),
    evaluate={"mask_steps": 1},
)
NAMES = {f"{variant}_seed{seed}" for variant in CONFIG.variants for seed in CONFIG.seeds}


class Sweep:
    """A sweep with fake commands in a directory."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.workdir = folder, epath.Path(folder / "sweep")
        shutil.copy(FAKE, folder)

    def run(self, config=CONFIG, job=(0, 1), processes=1) -> Runner:
        start = [sys.executable, str(self.folder / FAKE.name)]
        runner = Runner(config, self.workdir, "command", lambda name, folder: [*start, name, folder])
        runner.run(part_of(make_plan(config, self.workdir), *job), processes)
        return runner

    def start(self) -> subprocess.Popen:
        """Runs the sweep in a process of its own."""
        code = "import sys; import test_sweep_runner as t; t.run_in_process(sys.argv[1])"
        path = os.pathsep.join([str(FAKE.parent), *sys.path])
        return subprocess.Popen(
            [sys.executable, "-c", code, str(self.folder)], env={**os.environ, "PYTHONPATH": path}
        )

    def calls(self, name: str) -> list[dict]:
        lines = (self.folder / "calls.jsonl").read_text().splitlines()
        return [call for call in map(json.loads, lines) if call["name"] == name]

    def lines(self) -> list[dict]:
        return read_lines(self.workdir / "results.jsonl")

    def set(self, file: str, *runs: str) -> None:
        (self.folder / file).write_text(json.dumps(runs))

    def wait_for(self, run: str) -> int:
        """Waits until the training of a run waits; returns its process's id."""
        path = self.workdir / "runs" / run / "model" / "waiting"
        for _ in range(600):
            if path.exists() and path.read_text():
                return int(path.read_text())
            time.sleep(0.05)
        raise AssertionError(f"{run} does not run")


def run_in_process(folder: str) -> None:
    sys.exit(3 if Sweep(pathlib.Path(folder)).run().stopped else 0)


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path)


def names(lines) -> list[str]:
    return [f"{line['variant']}_seed{line['seed']}" for line in lines]


def test_every_run_has_one_line_and_equal_trainings_are_shared(sweep):
    assert sweep.run().failures == []
    assert sorted(names(sweep.lines())) == sorted(NAMES)
    trained = [call["run"] for call in sweep.calls("train")]
    assert trained == [f"{name}_seed{seed}" for seed in CONFIG.seeds for name in ("short", "long")]
    (line,) = [line for line in sweep.lines() if (line["variant"], line["seed"]) == ("short_2", 1)]
    assert line["scores"] == {
        "mIoU": 0.101,
        "P@0.9": 0.0505,
        "groups.kind.mIoU": 2,
        "absent.absent_reported": None,
    }
    assert (line["train"], line["evaluate"]) == ({"loop.num_steps": 10}, {"mask_steps": 2})
    assert (line["sweep"], line["version"], line["processor"]) == ("short", "1", "A")
    model = sweep.workdir / "runs/short_seed1/model"
    assert line["commands"] == [
        f"python launch/train.py --config=genmask_tiny --config.loop.num_steps=10 --config.seed=1 "
        f"--workdir={model}",
        f"python launch/evaluate.py --checkpoint={model} --mask_steps=2 --seed=1 "
        f"--workdir={sweep.workdir}/runs/short_2_seed1/evaluation",
    ]


def test_a_variant_may_have_its_own_config_and_scripts(sweep):
    other = VariantConfig(train=CONFIG.variants["short"].train, base="baselines/unet.py", scripts="baselines")
    config = dataclasses.replace(CONFIG, variants=CONFIG.variants | {"unet": other}, seeds=(0,))
    assert sweep.run(config).failures == []
    assert [call["scripts"] for call in sweep.calls("train")] == ["launch", "launch", "baselines"]
    (line,) = [line for line in sweep.lines() if line["variant"] == "unet"]
    train, evaluate = line["commands"]
    assert train.startswith("python baselines/train.py --config=baselines/unet.py ")
    assert evaluate.startswith("python baselines/evaluate.py --checkpoint=")


def test_finished_runs_are_skipped(sweep, capsys):
    sweep.run()
    calls = (sweep.folder / "calls.jsonl").read_text()
    sweep.run()
    assert (sweep.folder / "calls.jsonl").read_text() == calls
    assert capsys.readouterr().out.count("finished before") == 6
    assert len(sweep.lines()) == len(NAMES)


def test_a_finished_run_with_other_options_is_refused(sweep):
    sweep.run()
    other = SweepConfig(**{**vars(CONFIG), "evaluate": {"mask_steps": 1, "count": 8}})
    with pytest.raises(UserError, match=r"result.json: this run had evaluate count = None, not 8; give"):
        sweep.run(other)


def test_a_model_of_other_fields_is_not_evaluated(sweep):
    sweep.run()
    for path in (sweep.workdir / "runs").glob("*/result.json"):
        path.unlink()
    other = SweepConfig(**{**vars(CONFIG), "train": {"loop.log_every_steps": 5}})
    with pytest.raises(
        UserError, match=r"training.json: this run had train loop.log_every_steps = None, not 5"
    ):
        sweep.run(other)


def test_a_failed_run_is_named_and_the_others_go_on(sweep, capsys):
    sweep.set("fail.json", "short_seed1")
    log = sweep.workdir / "runs/short_seed1/train.log"
    assert sweep.run().failures == [f"short_seed1: train failed with status 1; log: {log}"]
    assert "error: the disk is full" in capsys.readouterr().out
    assert sorted(names(sweep.lines())) == sorted(NAMES - {"short_seed1", "short_2_seed1"})
    sweep.set("fail.json")
    assert sweep.run().failures == []
    assert len(sweep.lines()) == len(NAMES)


def test_jobs_divide_the_trainings_and_share_the_results(sweep):
    plan = make_plan(CONFIG, sweep.workdir)
    parts = [part_of(plan, i, 4) for i in range(4)]
    folders = [str(training.folder) for part in parts for training in part]
    assert sorted(folders) == sorted(str(training.folder) for training in plan)
    for i in (2, 0, 3):
        sweep.run(job=(i, 4))
    assert len(sweep.lines()) < len(NAMES)
    sweep.run(job=(1, 4))
    assert collections.Counter(names(sweep.lines())) == dict.fromkeys(NAMES, 1)


def test_a_killed_sweep_is_continued(sweep, capsys):
    sweep.set("wait.json", "long_seed1")
    process = sweep.start()
    training = sweep.wait_for("long_seed1")
    process.kill()
    process.wait()
    sweep.set("wait.json")
    finished = names(sweep.lines())
    sweep.run()
    assert "long_seed1: another process is running this; skipped" in capsys.readouterr().out
    assert names(sweep.lines())[:1] == finished[:1]
    assert len(sweep.lines()) == len(NAMES) - 1
    os.kill(training, signal.SIGKILL)
    time.sleep(0.2)
    sweep.run()
    last = sweep.calls("train")[-1]
    assert (last["run"], "resume" in last["flags"]) == ("long_seed1", True)
    assert collections.Counter(names(sweep.lines())) == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_training_which_saves(sweep, number):
    sweep.set("wait.json", "long_seed0")
    process = sweep.start()
    sweep.wait_for("long_seed0")
    process.send_signal(number)
    assert process.wait(20) == 3
    assert (sweep.workdir / "runs/long_seed0/model/saved").exists()
    assert [call["run"] for call in sweep.calls("train")] == ["short_seed0", "long_seed0"]
    assert names(sweep.lines()) == ["short_2_seed0", "short_seed0"]
    folders = {path.name for path in (sweep.workdir / "runs").iterdir()}
    assert folders == {"short_seed0", "short_2_seed0", "long_seed0"}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_each_of_several_processes_has_its_own_cores(sweep):
    sweep.run(processes=2)
    assert sorted(names(sweep.lines())) == sorted(NAMES)
    used = {tuple(call["cores"]) for call in sweep.calls("train")}
    assert used <= {tuple(part) for part in divide_cores(2)}


def test_cores_are_divided(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 1, 2, 7, 8})
    assert divide_cores(1) == [[1, 2, 3, 7, 8]]
    assert divide_cores(2) == [[1, 2], [3, 7, 8]]
    with pytest.raises(UserError, match="--processes=6: this process may use only 5 cores"):
        divide_cores(6)


def test_metrics_are_found_by_dotted_names():
    scores = {"mIoU": 0.5, "P@0.5": 0.25, "groups": {"colour+kind": {"P@0.5": 1}}, "split": "test"}
    assert find_metric(scores, "P@0.5") == 0.25
    assert find_metric(scores, "groups.colour+kind.P@0.5") == 1
    assert find_metric(scores, "groups.colour.mIoU") is None
    assert find_metric(scores, "split") is None
