"""Paths as they are typed, what systems leave in folders, and errors in configs that name their place."""

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest
from etils import epath
from PIL import Image
from rich.table import Table

from genmask_jax import cli
from genmask_jax.config import DataConfig
from genmask_jax.data.raw_formats.layout import images_by_stem
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.evaluation.predictions import read_predictions
from genmask_jax.training.reporting import Reporter
from genmask_jax.training.sessions import add_session
from genmask_jax.training.workdir import check_workdir, make_workdir
from genmask_jax.utils import config_files, console, paths
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import from_dict, to_config_dict
from tests.conftest import micro_config


def test_a_home_directory_is_expanded_in_flags_and_fields(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    given = ["x", "--out=~/a [1]", "--text=~5 stars", "~/b", "--flag", "--config.vae=~"]
    assert paths.expand_flags(given) == [
        "x", "--out=/home/me/a [1]", "--text=~5 stars", "~/b", "--flag", "--config.vae=/home/me",
    ]  # fmt: skip
    assert from_dict(DataConfig, {"path": "~/data"}, "config").path == "/home/me/data"


def test_leftovers_are_no_predictions_and_no_run(tmp_path):
    folder = epath.Path(tmp_path / "pngs [1]")
    folder.mkdir()
    for name in ("._7.png", ".DS_Store", "Thumbs.db"):
        (folder / name).write_bytes(b"\0\5\26\7")
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "pngs [1]" / "7.PNG")
    assert list(read_predictions(folder)) == ["7"]
    run = tmp_path / "run"
    run.mkdir()
    (run / ".DS_Store").write_bytes(b"\0")
    assert not check_workdir(str(run), micro_config("vae")).resumed
    with pytest.raises(UserError, match="Orbax cannot keep arrays in a path"):
        check_workdir(str(tmp_path / "run [2]"), micro_config("vae"))


def test_of_two_images_of_one_name_the_second_is_named(tmp_path):
    for name in ("x.jpg", "x.png", "y.JPG"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    problems = Problems()
    found = images_by_stem(epath.Path(tmp_path), problems)
    assert {stem: path.name for stem, path in found.items()} == {"x": "x.jpg", "y": "y.JPG"}
    (line,) = problems.left_out
    assert "x.png: another image has the same name, x.jpg" in line


def test_brackets_in_tables_are_printed_as_they_are(capsys):
    table = Table(title="data/my images [red] [/x]")
    table.add_column("[bold]a")
    console.console().print(table)
    printed = capsys.readouterr().out
    assert "[red] [/x]" in printed
    assert "[bold]a" in printed


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = = 1", "line 1: SyntaxError"),
        ("def get_config():\n  return {}[7]", "line 2: KeyError: 7"),
        ("import nothing_of_that_name", "line 1: ModuleNotFoundError"),
    ],
)
def test_an_error_in_a_config_file_names_its_line(tmp_path, source, says):
    path = tmp_path / "config.py"
    path.write_text(source)
    with pytest.raises(UserError, match=says):
        config_files.load_config(str(path))


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--config.modle.depth=3", "--config.modle: no such field; did you mean model"),
        ("--config.model.dpeth=3", "--config.model.dpeth: no such field; did you mean depth"),
        (
            "--config.model.depth.x=3",
            "--config.model.depth.x: no such field; config.model.depth has no fields",
        ),
        (
            "--config.model=3",
            "--config.model is a group of fields; set --config.model.FIELD. Fields: channels, ",
        ),
        ("--config.zzz=1", "--config.zzz: no such field; fields: compute_dtype, "),
    ],
)
def test_a_misspelt_field_is_named_with_what_was_meant(flag, says):
    with pytest.raises(UserError, match=says):
        cli._need_fields(["train.py", flag], to_config_dict(micro_config("vae")))


class Killed(BaseException):
    """Stands for a kill between the writing of a file and its taking the place of the old one."""


@pytest.fixture
def killed(monkeypatch):
    def replace(self, target):
        raise Killed

    monkeypatch.setattr(type(epath.Path()), "replace", replace)


def test_a_kill_leaves_the_old_file_and_nothing_else(tmp_path, killed):
    (tmp_path / "config.json").write_text("old")
    for path in (tmp_path / "config.json", tmp_path / "new.json"):
        with pytest.raises(Killed):
            paths.write_text(path, "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"config.json": "old"}


def test_a_kill_at_the_start_of_a_resume_leaves_a_run_that_resumes(tmp_path, killed):
    """config.json, the log and the sessions are each written anew at every start."""
    config = micro_config("vae")
    resumed = dataclasses.replace(config, vae="elsewhere")
    files = {
        "config.json": json.dumps(dataclasses.asdict(config)),
        "metrics.jsonl": '{"step": 2}\n{"step": 5}\n',
        "sessions.jsonl": '{"step": 0}\n',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    run = epath.Path(tmp_path)
    for begin in (
        lambda: make_workdir(check_workdir(str(tmp_path), resumed, resume=True), resumed),
        lambda: Reporter(run, config, 2, validated=False),
        lambda: add_session(run, 2),
    ):
        with pytest.raises(Killed):
            begin()
    assert {name: (tmp_path / name).read_text() for name in files} == files
    assert check_workdir(str(tmp_path), resumed, resume=True).resumed


def test_a_file_is_replaced_whatever_wrote_it_and_one_in_a_bucket_is_written_directly(tmp_path):
    (tmp_path / "a").write_text("a longer text")
    paths.write_text(tmp_path / "a", "é")
    with paths.replacing(tmp_path / ("b" * 250)) as temporary:
        temporary.write_bytes(b"b")
    assert (tmp_path / "a").read_bytes() == "é".encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b" * 250]
    with paths.replacing("gs://bucket/file") as temporary:
        assert str(temporary) == "gs://bucket/file"


def test_everything_is_written_by_the_helpers():
    """But lines that are appended, and what is made in a temporary directory."""
    root = pathlib.Path(paths.__file__).parents[1]
    temporary = {"paths.py", "stamps/prepare.py", "benchmarks/input_pipeline.py"}
    found = []
    for path in root.rglob("*.py"):
        if any(str(path).endswith(name) for name in temporary):
            continue
        for line in path.read_text().splitlines():
            written = re.search(r"\.write_(text|bytes)\(|\bopen\([^)]*\"[wx]|numpy\.save_file\(", line)
            if written and not re.search(r"\b(beside|temporary)\b", line):
                found.append(f"{path.name}: {line.strip()}")
    assert not found
