"""What pyproject.toml declares: all that is imported, in ranges that hold the pins of constraints.txt."""

import ast
import importlib.metadata
import pathlib
import re
import sys
import tomllib

import numpy as np
import pytest
import tokenizers
from etils import epath
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from genmask_jax.commands import demo
from genmask_jax.instruction.qwen.config import QwenInstructionConfig, QwenVisionConfig
from genmask_jax.instruction.qwen.prompts import PromptMaker
from genmask_jax.public_weights import qwen_names
from genmask_jax.training import charts
from genmask_jax.utils import extras
from genmask_jax.utils.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {
    name: [Requirement(line) for line in lines if not line.startswith("genmask-jax[")]
    for name, lines in PROJECT["optional-dependencies"].items()
}
KNOWN = importlib.metadata.packages_distributions()
ELSEWHERE = {"apache-beam", "pandas", "pillow-heif"}
"""Of requirements-beam.txt, of Gradio, and for those who have it."""


def names(requirements) -> set[str]:
    return {canonicalize_name(one.name) for one in requirements}


def imported(path: pathlib.Path, *, anywhere: bool) -> set[str]:
    """The packages of others that a module imports when it is imported, or anywhere in it."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if anywhere else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found - sys.stdlib_module_names - {"genmask_jax"}


def distributions(modules: set[str]) -> set[str]:
    return {canonicalize_name(KNOWN.get(name, [name.replace("_", "-")])[0]) for name in modules}


def test_everything_that_is_imported_is_declared():
    modules = list((ROOT / "genmask_jax").rglob("*.py"))
    assert len(modules) > 100
    optional = set().union(*map(names, EXTRAS.values()), ELSEWHERE)
    for path in modules:
        assert distributions(imported(path, anywhere=True)) <= names(CORE) | optional, path
        if path.parent.name != "demo":  # of the web page, most of which is imported when Gradio is there
            assert distributions(imported(path, anywhere=False)) <= names(CORE), path
    assert not names(CORE) & {"tensorflow", "tensorflow-cpu", "transformers", "torch", "gradio"}


def test_the_pins_are_in_the_ranges_and_complete():
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = dict(line.split("==") for line in lines if line)
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    for requirement in [*CORE, *(one for some in EXTRAS.values() for one in some)]:
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_ranges_begin_somewhere_and_have_no_end():
    for requirement in CORE:
        assert re.fullmatch(r">=[\d.]+", str(requirement.specifier)), requirement


def test_a_missing_extra_is_one_line_that_installs_it(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=re.escape('the page needs nowhere: pip install "genmask-jax[demo]"')):
        extras.need("nowhere", "demo", "the page")
    extras.need("numpy", "demo", "the page")
    monkeypatch.setattr(extras, "installed", lambda package: False)
    with pytest.raises(
        UserError, match=re.escape('Qwen needs transformers: pip install "genmask-jax[qwen]"')
    ):
        qwen_names.config_from_public({"model_type": "qwen2"}, "config.json")
    with pytest.raises(UserError, match=re.escape("genmask-jax[qwen]")):
        PromptMaker(
            tokenizers.Tokenizer(tokenizers.models.BPE()), "", QwenVisionConfig(), QwenInstructionConfig()
        )
    monkeypatch.setattr(sys, "argv", ["demo.py"])
    with pytest.raises(SystemExit):
        demo.main()


def test_without_tensorboard_a_run_says_so_and_goes_on(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(charts, "installed", lambda package: False)
    with caplog.at_level("INFO"):
        writer = charts.Charts(epath.Path(tmp_path), 0)
    assert 'pip install "genmask-jax[tensorboard]"' in caplog.text
    writer.scalars(1, {"loss": 2.0})
    writer.flush()
    assert list(tmp_path.iterdir()) == []


def test_charts_hold_scalars_and_images(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    picture = tmp_path / "masks.png"
    Image.fromarray(np.full((4, 6, 3), 90, np.uint8)).save(picture)
    writer = charts.Charts(epath.Path(tmp_path), 0)
    writer.scalars(3, {"loss": 0.5})
    writer.image(3, "masks", picture.read_bytes())
    writer.flush()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    (scalar,) = events.Scalars("loss")
    assert (scalar.step, scalar.value) == (3, 0.5)
    (image,) = events.Images("masks")
    assert (image.width, image.height, image.encoded_image_string) == (6, 4, picture.read_bytes())


def test_charts_of_a_resumed_run_show_each_step_once(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    # Killed after step 2, before a checkpoint; then after step 5, with a checkpoint of step 3.
    for first, last, value in ((0, 2, 0.0), (0, 5, 1.0), (3, 6, 2.0)):
        writer = charts.Charts(epath.Path(tmp_path), first)
        for step in range(first + 1, last + 1):
            writer.scalars(step, {"loss": value})
        writer.flush()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    shown = [(scalar.step, scalar.value) for scalar in events.Scalars("loss")]
    assert shown == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 2.0)]
