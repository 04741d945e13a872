"""The size of what a reader meets: files to read first, modules, functions, scripts."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "genmask_jax").rglob("*.py"))
SCRIPTS = [path for folder in ("docs", "configs", "baselines") for path in (ROOT / folder).rglob("*.py")]
MODULES = [*PACKAGE, *SCRIPTS]


def lines_of(path: pathlib.Path) -> int:
    return len(path.read_text().splitlines())


def test_the_files_to_read_first_are_few_and_short():
    page = (ROOT / "docs" / "reading.md").read_text()
    files = [
        ROOT / "genmask_jax" / name for name in re.findall(r"^\d+\. \*\*`([\w/.]+)`\*\*", page, flags=re.M)
    ]
    assert 5 <= len(files) <= 10
    assert sum(map(lines_of, files)) <= 1500


def test_the_folders_on_that_page_are_all_that_there_are():
    page = (ROOT / "docs" / "reading.md").read_text()
    named = set(re.findall(r"^  (\w+)/", page, flags=re.M))
    there = {path.parent.name for path in PACKAGE if path.parent.parent == ROOT / "genmask_jax"}
    assert named == there


def test_modules_and_functions_are_short():
    for path in MODULES:
        assert lines_of(path) <= 400, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"
    assert all(lines_of(path) < 120 for path in (ROOT / "launch").glob("*.py"))
