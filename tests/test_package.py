"""The wheel: built, unpacked away from the checkout, and used there."""

import ast
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> pathlib.Path:
    """A folder with what the wheel installs."""
    built, unpacked = (tmp_path_factory.mktemp(name) for name in ("built", "unpacked"))
    options = ("--no-deps", "--no-build-isolation", "--quiet", f"--wheel-dir={built}")
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, ROOT], check=True)
    (wheel,) = built.glob("genmask_jax-*.whl")
    zipfile.ZipFile(wheel).extractall(unpacked)
    return unpacked


def run(installed, cwd, *arguments) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


def test_the_model_in_the_package_is_found_and_used(installed, tmp_path):
    (tmp_path / "scene.png").write_bytes((ROOT / "docs" / "scene.png").read_bytes())
    asked = ("--image=scene.png", "--text=the star at the top", "--save=mask", "--out=out")
    done = run(installed, tmp_path, "-m", "genmask_jax.commands.sample", *asked)
    assert done.returncode == 0, done.stderr
    assert 0.01 < (Image.open(tmp_path / "out/scene_mask.png").histogram()[255] / 64**2) < 0.1


def test_configs_are_found_by_name_where_no_file_has_it(installed, tmp_path):
    code = "from genmask_jax import cli; print(cli.config_path('genmask_tiny'), cli.config_path('mine.py'))"
    done = run(installed, tmp_path, "-c", code)
    shipped, mine = done.stdout.split()
    assert shipped == str(installed / "genmask_jax" / "configs" / "genmask_tiny.py")
    assert mine == "mine.py"
    done = run(
        installed, tmp_path, "-m", "genmask_jax.commands.train", "--config=genmask_tiny",
        "--config.model.depht=3", "--workdir=run",
    )  # fmt: skip
    assert "did you mean depth?" in done.stderr


COMMANDS = sorted(path for path in (ROOT / "genmask_jax/commands").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("script", COMMANDS, ids=lambda path: path.stem)
def test_help_begins_with_what_a_script_does_and_examples(script):
    said = ast.get_docstring(ast.parse(script.read_text())) or ""
    first, _, rest = said.partition("\n")
    assert first.endswith((".", "?"))
    assert rest.count(f"python launch/{script.name} ") >= 2


def test_every_command_is_in_the_wheel(installed):
    (entries,) = installed.glob("*.dist-info/entry_points.txt")
    lines = [line for line in entries.read_text().splitlines() if "=" in line]
    scripts = {path.stem for path in (ROOT / "launch").glob("*.py")}
    assert {line.split(" = ")[1].split(":")[0].rpartition(".")[2] for line in lines} == scripts
    for line in lines:
        module, _, function = line.split(" = ")[1].partition(":")
        source = (installed / f"{module.replace('.', '/')}.py").read_text()
        assert f"def {function}() -> None" in source
    for name in ("py.typed", "report/page.html"):
        assert (installed / "genmask_jax" / name).exists()
