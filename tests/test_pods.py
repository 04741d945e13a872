"""The launch scripts pass shellcheck, and dry runs print their commands."""

import pathlib
import shlex
import subprocess
import sys

import pytest
import yaml

PODS = pathlib.Path(__file__).parent.parent / "launch" / "pods"
SCRIPTS = sorted(PODS.glob("*.sh"))
TRAIN = "python launch/train.py --config=configs/genmask_l.py --workdir=gs://bucket/run"


def run(name, *arguments):
    return subprocess.run(
        ["bash", PODS / name, *arguments], capture_output=True, text=True, cwd=PODS.parent.parent
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(script):
    shellcheck = pathlib.Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_without_arguments_print_their_usage(script):
    done = run(script.name)
    assert done.returncode == 2
    assert f"launch/pods/{script.name}" in done.stdout
    assert "#" not in done.stdout.splitlines()[0]


@pytest.mark.parametrize(("script", "arguments", "first"), [
    ("tpu_vm.sh", ("run", "pod", "us-west4-a", TRAIN), ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod"]),
    ("tpu_vm.sh", ("install", "pod", "us-west4-a"), ["git", "archive"]),
    ("tpu_vm.sh", ("stop", "pod", "us-west4-a"), ["gcloud"]),
    ("xpk.sh", ("cluster", "work", "v5litepod-256", "2", TRAIN), ["xpk", "workload", "create"]),
    ("slurm.sh", shlex.split(TRAIN), ["srun"]),
])  # fmt: skip
def test_a_dry_run_prints_the_commands_and_runs_none(script, arguments, first):
    done = run(script, "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    commands = [shlex.split(line) for line in done.stdout.replace("$'", "'").splitlines()]
    assert commands[0][: len(first)] == first
    if TRAIN in arguments or script == "slurm.sh":
        assert "launch/train.py" in done.stdout


def test_the_manifest_is_a_job_set_of_a_whole_slice():
    manifest = yaml.safe_load((PODS / "gke.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = manifest["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert spec["parallelism"] == spec["completions"] == int(rows) * int(columns) // chips
    assert container["command"][:2] == ["python", "launch/train.py"]
    assert all((PODS.parent.parent / part).exists() for part in ("launch/train.py", "configs/genmask_l.py"))
