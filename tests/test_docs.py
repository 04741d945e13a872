"""What README and docs print: commands exist with flags, fields and configs (`test_printed.py` runs them)."""

import ast
import dataclasses
import pathlib
import re
import shlex
import textwrap

import pytest

from genmask_jax.config import EvaluationConfig, TrainConfig, VAETrainConfig
from genmask_jax.config.checks import EVALUATE_FLAGS

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHARED = {"help", "coordinator", "num_processes", "process_id"}
"""Flags of every script, or of all that run on many hosts."""


def code_blocks(page: pathlib.Path) -> list[str]:
    """A page's code, indented or fenced, without its indentation; continued lines are joined."""
    text = page.read_text().replace("\\\n", " ")
    fenced = re.findall(r"(?ms)^```\w+\n(.*?)^```", text)
    indented = re.findall(r"(?m)(?<=\n\n)(?:(?: {4}.*)?\n)+", text)
    return [*(textwrap.dedent(block).strip() for block in indented if block.strip()), *fenced]


def commands() -> list[str]:
    """Every command of a script of launch/."""
    lines = [line for page in PAGES for block in code_blocks(page) for line in block.splitlines()]
    return sorted({line.split("#")[0].strip() for line in lines if "python launch/" in line})


def flags_of(script: pathlib.Path) -> set[str]:
    source = (ROOT / "genmask_jax" / "commands" / script.name).read_text()
    absl = re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", source)
    return SHARED | set(absl) | set(re.findall(r"\(\s*\"--(\w+)\"", source))


def has_field(kind: type, name: str) -> bool:
    for part in name.split("."):
        fields = {field.name: field.type for field in dataclasses.fields(kind)} if kind else {}
        if part not in fields:
            return False
        kind = fields[part] if dataclasses.is_dataclass(fields[part]) else None
    return True


@pytest.mark.parametrize("command", commands())
def test_commands_exist(command):
    words = shlex.split(command.partition("python ")[2])
    script = ROOT / words[0]
    assert script.exists()
    for word in words[1:]:
        if not word.startswith("--"):
            continue
        name, _, value = word[2:].partition("=")
        if name.startswith(("config.", "vae.", "base.")):
            field = name.partition(".")[2]
            assert any(has_field(kind, field) for kind in (TrainConfig, VAETrainConfig, EvaluationConfig))
        elif name.startswith("evaluate."):
            assert name.partition(".")[2] in EVALUATE_FLAGS
        else:
            assert name.strip("[]") in flags_of(script)
        if name == "config" and value.startswith("configs/"):
            assert (ROOT / value.partition(":")[0]).exists()


def test_what_the_examples_write_is_ignored_by_git():
    """Examples leave a checkout clean: they write to folders of .gitignore, or to where the reader says."""
    folders = tuple(re.findall(r"^/(\w+/)$", (ROOT / ".gitignore").read_text(), flags=re.M))
    docstrings = [*(ROOT / "genmask_jax" / "commands").glob("*.py"), *(ROOT / "configs").rglob("*.py")]
    code = [block for page in PAGES for block in code_blocks(page)]
    code += [ast.get_docstring(ast.parse(path.read_text())) or "" for path in docstrings]
    code.append((ROOT / "Makefile").read_text().replace("$(RUNS)", "runs/quickstart"))
    flags = r"--(?:out|workdir|inspect)=([^\s)\"'\]]+)|\.save\(\"([^\"]+)\""
    written = [one or other for block in code for one, other in re.findall(flags, block)]
    assert len(written) > 60
    left = [path for path in written if not f"{path}/".startswith(folders)]
    assert [path for path in left if not re.match(r"[A-Z]+\b|gs:", path)] == []


def test_a_sweep_sets_flags_that_evaluate_has():
    assert set(EVALUATE_FLAGS) <= flags_of(ROOT / "launch" / "evaluate.py")


def test_a_stale_flag_would_be_found():
    assert "workdir" in flags_of(ROOT / "launch" / "train.py")
    assert "work_dir" not in flags_of(ROOT / "launch" / "train.py")
    assert has_field(TrainConfig, "optimizer.learning_rate")
    assert not has_field(TrainConfig, "optimizer.lr")
    assert len(commands()) > 40


@pytest.mark.slow
def test_the_notebook_runs():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", 4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    kinds = [output["output_type"] for cell in notebook.cells for output in cell.get("outputs", [])]
    assert kinds.count("execute_result") >= 8
    assert "error" not in kinds


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            generated = target.startswith("reference/")
            assert generated or (page.parent / target).exists(), f"{page.name}: {target}"
