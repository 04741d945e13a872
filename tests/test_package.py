"""The package as a wheel and as an editable install of a checkout, used from another folder."""

import ast
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv

import pytest
from PIL import Image

from genmask_jax.inference.segmentation import VIEWS
from genmask_jax.models.layers import REMAT
from genmask_jax.public_weights.packing import DTYPES
from genmask_jax.public_weights.wan import PARTS
from genmask_jax.tools.estimates.programs import PROGRAMS

ROOT = pathlib.Path(__file__).parent.parent
COMMANDS = sorted(path for path in (ROOT / "genmask_jax/commands").glob("*.py") if path.stem != "__init__")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HOOKS = {"wheel": "build_wheel", "editable": "build_editable"}
OUTSIDE = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
"""The environment of processes that are not to see the checkout."""


@pytest.fixture(scope="module", params=HOOKS)
def installed(request, tmp_path_factory) -> pathlib.Path:
    """The folder of an environment in which the package is installed, from a copy of the checkout.

    Its requirements are those of the tests' own environment.
    """
    place = tmp_path_factory.mktemp(request.param)
    checkout, environment = place / "checkout", place / "environment"
    for name in ("genmask_jax", "configs", "launch"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    hook = f"import setuptools.build_meta as hooks; hooks.{HOOKS[request.param]}({str(place)!r})"
    subprocess.run([sys.executable, "-c", hook], cwd=checkout, check=True, capture_output=True)
    (wheel,) = place.glob("genmask_jax-*.whl")
    venv.create(environment, symlinks=True)
    options = ("install", "--quiet", "--no-deps", "--no-index", str(wheel))
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), *options]
    subprocess.run(pip, check=True, cwd=place, env=OUTSIDE)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "requirements.pth").write_text(sysconfig.get_path("purelib"))
    return environment


def run(installed, cwd, name, *arguments) -> subprocess.CompletedProcess:
    """Runs a command, or "python"."""
    command = [installed / "bin" / name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=OUTSIDE)


def test_every_command_answers_help_in_one_form_and_at_once(installed, tmp_path):
    names = sorted(f"genmask-{path.stem.replace('_', '-')}" for path in COMMANDS)
    assert sorted(path.name for path in (installed / "bin").glob("genmask-*")) == names
    for name in names:
        script = installed / "bin" / name
        done = run(installed, tmp_path, "python", "-X", "importtime", script, "--help")
        assert done.returncode == 0, done.stderr
        said = " ".join(done.stdout.split())
        assert said.startswith(f"usage: {name} [-h]")
        assert said.count(f" {name} ") >= 2  # examples, as they are typed here
        assert "launch/" not in said
        assert "show this help message and exit" in said
        lines = done.stderr.splitlines()
        assert [line for line in lines if not line.startswith("import time:")] == []
        imported = {line.split("|")[-1].strip() for line in lines}
        assert imported.isdisjoint({"jax", "flax", "tensorflow", "transformers", "genmask_jax.config"})


def test_the_model_in_the_package_is_found_and_used(installed, tmp_path):
    (tmp_path / "scene.png").write_bytes((ROOT / "docs" / "scene.png").read_bytes())
    asked = ("--image=scene.png", "--text=the star at the top", "--save=mask", "--out=out")
    done = run(installed, tmp_path, "genmask-sample", *asked)
    assert done.returncode == 0, done.stderr
    assert 0.01 < (Image.open(tmp_path / "out/scene_mask.png").histogram()[255] / 64**2) < 0.1


def test_configs_are_found_by_name_where_no_file_has_it(installed, tmp_path):
    given = ("--config=genmask_tiny", "--config.model.depht=3", "--workdir=run")
    assert "did you mean depth?" in run(installed, tmp_path, "genmask-train", *given).stderr
    done = run(installed, tmp_path, "genmask-train", "--config=nope", "--workdir=run")
    assert done.stderr.startswith("error: --config=nope: there is no such file. Shipped configs: evaluate_")
    for path in (ROOT / "configs").rglob("*.py"):
        assert path.relative_to(ROOT / "configs").with_suffix("").as_posix() in done.stderr
    sweep = ("genmask-sweep", "--config=ablations/passes", "--workdir=sweep", "--variants=3")
    done = run(installed, tmp_path, *sweep)
    assert done.stderr == "error: --variants: '3' is not one of 1_pass, 2_passes, 4_passes, 8_passes\n"
    done = run(installed, tmp_path, "genmask-train", "--config=ablations/passes", "--workdir=run")
    assert "is a config for launch/sweep.py, not for" in done.stderr.replace(
        "genmask-sweep", "launch/sweep.py"
    )
    done = run(installed, tmp_path, "genmask-train", "--workdir=run")
    assert done.stderr == (
        "error: --config is missing: a training config: a file, or a name such as genmask_tiny\n"
    )


def test_a_config_of_ones_own_builds_on_ours(installed, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from genmask_jax.utils.config_files import base_config\n\n\n"
        "def get_config(variant=''):\n"
        "    config = base_config(f'genmask_l_8xh100:{variant}', __file__)\n"
        "    config.vae = f'vae of {config.name}'\n"
        "    return config\n"
    )
    train = ("genmask-train", "--workdir=run")
    done = run(installed, tmp_path, *train, "--config=mine.py:paper")
    assert done.stderr.startswith("error: vae of genmask_l_paper_8xh100: no trained VAE here")
    done = run(installed, tmp_path, *train, "--config=mine.py:papper")
    assert "genmask_l.py:papper: there is no such variant; use :paper" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_command_starts_others_that_are_installed_with_it(installed, tmp_path):
    code = (
        f"import sys; sys.argv[0] = {str(installed / 'bin' / 'genmask-finetune')!r}\n"
        "from genmask_jax.commands import finetune; finetune.run_step('train_vae', '--workdir=a b')"
    )
    done = run(installed, tmp_path, "python", "-c", code)
    assert "$ genmask-train-vae '--workdir=a b'" in done.stdout
    assert "error: --config is missing: a VAE's config" in done.stderr
    assert done.returncode == 1


def test_files_that_are_no_modules_are_there(installed, tmp_path):
    code = "import genmask_jax; print(genmask_jax.__path__[0])"
    package = pathlib.Path(run(installed, tmp_path, "python", "-c", code).stdout.strip())
    assert ROOT not in package.parents
    for name in ("py.typed", "tools/report/page.html", "pretrained/refershapes/config.json"):
        assert (package / name).exists()


@pytest.mark.parametrize("script", COMMANDS, ids=lambda path: path.stem)
def test_help_begins_with_what_a_script_does_and_examples(script):
    said = ast.get_docstring(ast.parse(script.read_text())) or ""
    first, _, rest = said.partition("\n")
    assert first.endswith((".", "?"))
    assert rest.count(f"python launch/{script.name} ") >= 2


def test_every_command_has_a_script_in_a_checkout():
    """Two lines, which call the same function as the installed command."""
    entries = {}
    for name, target in PROJECT["scripts"].items():
        module, _, function = target.partition(":")
        entries[f"{module.rpartition('.')[2]}.py"] = (name, module, function)
    assert entries.keys() == {path.name for path in COMMANDS}
    assert entries.keys() == {path.name for path in (ROOT / "launch").glob("*.py")}
    for file, (name, module, function) in entries.items():
        assert name == f"genmask-{file.removesuffix('.py').replace('_', '-')}"
        expected = f'from {module} import {function}\n\nif __name__ == "__main__":\n    {function}()\n'
        assert (ROOT / "launch" / file).read_text() == expected


@pytest.mark.parametrize(
    ("command", "choices"),
    [
        ("benchmark train_step", REMAT),
        ("compile", PROGRAMS),
        ("export_weights", [*DTYPES, *PARTS]),
        ("import_weights", PARTS),
        ("sample", VIEWS),
    ],
)
def test_choices_are_those_of_the_library(command, choices):
    """They are repeated in the commands, whose help must not wait for the library's imports."""
    script, *words = command.split()
    done = subprocess.run(
        [sys.executable, ROOT / "launch" / f"{script}.py", *words, "--help"], capture_output=True, text=True
    )
    said = done.stdout.replace("\n", " ")
    for name in choices:
        assert name in said
