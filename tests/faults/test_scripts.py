"""The fault scripts of docs/reliability.md start: what they share is still there."""

import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent


@pytest.mark.parametrize("name", ["full_disk", "fuzz", "kills", "load_page", "long_run"])
def test_help(name):
    script = FOLDER / f"{name}.py"
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"python tests/faults/{name}.py" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["export_weights", "train"])
def test_a_killed_command_continues(name, tmp_path):
    script = FOLDER / "kills.py"
    command = [sys.executable, script, name, "--kills=2", f"--workdir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "all equal an undisturbed one" in done.stdout
