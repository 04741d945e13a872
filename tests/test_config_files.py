"""Config files: variants, and configs that build on others."""

import pytest

from genmask_jax import cli
from genmask_jax.config import TrainConfig
from genmask_jax.config.checks import from_config_dict
from genmask_jax.utils.config_files import folder, load_config
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import differences


def train_config(value):
    return from_config_dict(TrainConfig, load_config(value))


def write(path, base, *lines):
    path.parent.mkdir(exist_ok=True)
    body = "".join(f"    {line}\n" for line in lines)
    path.write_text(
        "from genmask_jax.utils.config_files import base_config\n\n\n"
        f"def get_config():\n    config = base_config({base!r}, __file__)\n{body}    return config\n"
    )
    return str(path)


@pytest.mark.parametrize("name", ["genmask_l", "genmask_l_8xh100"])
def test_the_papers_variant_differs_in_the_law_of_masks_alone(name):
    ours, papers = train_config(name), train_config(f"{name}:paper")
    found = {field: new for field, _, new in differences(ours, papers)}
    assert found == {
        "name": name.replace("genmask_l", "genmask_l_paper"),
        "timesteps.segment.name": "long_tail",
    }


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (
            "genmask_l:papper",
            r"^--config=\S+genmask_l.py:papper: there is no such variant; use :paper, or none$",
        ),
        ("genmask_l_8xh100:x", r"genmask_l.py:x: there is no such variant"),
        ("genmask_tiny:paper", r"^--config=\S+genmask_tiny.py:paper: this config takes no argument"),
    ],
)
def test_an_unknown_argument_is_named(value, says):
    for read in (load_config, lambda value: cli.read_config([f"--config={value}"])):
        with pytest.raises(UserError, match=says):
            read(value)


def test_a_config_of_ones_own_states_what_differs(tmp_path):
    mine = write(tmp_path / "mine.py", "genmask_l", "config.loop.num_steps = 7")
    changed = [field for field, _, _ in differences(train_config("genmask_l"), train_config(mine))]
    assert changed == ["loop.num_steps"]


def test_a_config_beside_ones_own_is_preferred_to_ours(tmp_path):
    """As when the folder of configs is copied and changed."""
    copied = tmp_path / "copied" / "genmask_l_8xh100.py"
    write(tmp_path / "copied" / "genmask_l.py", "genmask_l", "config.seed = 7")  # ours has the same name
    copied.write_text((folder() / copied.name).read_text().replace(":{variant}", ""))
    assert train_config(str(copied)).seed == 7
    assert train_config(str(copied)).model.remat == "matrices"


def test_a_folder_does_not_hide_a_shipped_config(tmp_path, monkeypatch):
    (tmp_path / "genmask_tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert train_config("genmask_tiny").name == "genmask_tiny"


@pytest.mark.parametrize(
    ("base", "line", "says"),
    [
        ("genmask_m", "", r"mine.py: there is no config genmask_m.py next to it. Shipped configs: "),
        ("genmask_l", "config.loop.num_stpes = 7", r"config.loop.num_stpes: no such field; fields: "),
        ("genmask_l", "config.loop.num_steps = 'many'", r"mine.py: line 6: TypeError"),
    ],
)
def test_mistakes_in_a_config_of_ones_own_are_named(tmp_path, base, line, says):
    with pytest.raises(UserError, match=says):
        train_config(write(tmp_path / "mine.py", base, line))


def test_a_file_without_get_config_is_named(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match=r"empty.py: it does not define get_config\(\)"):
        load_config(str(tmp_path / "empty.py"))
