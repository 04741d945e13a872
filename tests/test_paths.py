"""Paths as they are typed, what systems leave in folders, and errors in configs that name their place."""

import numpy as np
import pytest
from etils import epath
from PIL import Image
from rich.table import Table

from genmask_jax import cli, console, paths
from genmask_jax.config import DataConfig
from genmask_jax.data.prepared.raw.layout import images_by_stem
from genmask_jax.data.prepared.raw.problems import Problems
from genmask_jax.errors import UserError
from genmask_jax.evaluation.predictions import read_predictions
from genmask_jax.fields import from_dict, to_config_dict
from genmask_jax.training.workdir import check_workdir
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
    assert "x.png: another image has that name, x.jpg" in line


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
        cli.load_config(str(path))


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--config.modle.depth=3", "--config.modle: no such field; did you mean model"),
        ("--config.model.dpeth=3", "--config.model.dpeth: no such field; did you mean depth"),
        ("--config.model.depth.x=3", "--config.model.depth.x: no such field; config.model.depth has none"),
        (
            "--config.model=3",
            "--config.model: a group of fields; set --config.model.FIELD; there are channels, ",
        ),
        ("--config.zzz=1", "--config.zzz: no such field; there are compute_dtype, "),
    ],
)
def test_a_misspelt_field_is_named_with_what_was_meant(flag, says):
    with pytest.raises(UserError, match=says):
        cli._need_fields(["train.py", flag], to_config_dict(micro_config("vae")))
