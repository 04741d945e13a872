"""Paths in buckets for files that only local folders can hold: one line before any work."""

import pytest
from etils import epath

from genmask_jax.checkpoints.packed import read_step
from genmask_jax.commands import export_weights, prepare_data
from genmask_jax.config import DataConfig
from genmask_jax.data.latents.store import read_identity
from genmask_jax.data.sources import segment_source
from genmask_jax.parameters.files import TensorFiles
from genmask_jax.utils.errors import UserError

BUCKET = "gs://b/folder"


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command; returns the lines it prints as errors."""

    def run(module, *flags: str) -> list[str]:
        monkeypatch.setattr("sys.argv", [module.__name__, *flags])
        with pytest.raises(SystemExit) as caught:
            module.main()
        assert caught.value.code == 1
        return capsys.readouterr().err.splitlines()

    return run


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        (prepare_data, ("image_folder", "--raw=missing")),
        (prepare_data, ("stamps",)),
        (export_weights, ("genmask", "--from=missing")),
    ],
)
def test_outputs_in_a_bucket_are_refused(command, module, flags):
    (line,) = command(module, *flags, f"--out={BUCKET}")
    assert line.startswith(
        f"error: --out={BUCKET}: records and safetensors cannot be in a bucket; use a local"
    )


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda: read_identity(BUCKET), f"config.data.latents={BUCKET}"),
        (lambda: read_step(BUCKET), f"{BUCKET}/model.safetensors"),
        (lambda: TensorFiles([epath.Path(f"{BUCKET}/a.safetensors")]), f"{BUCKET}/a.safetensors"),
        (
            lambda: segment_source(DataConfig(name="reasonseg", path=BUCKET), "train"),
            f"config.data.path={BUCKET}",
        ),
    ],
)
def test_inputs_in_a_bucket_are_refused_not_called_damaged(read, name):
    with pytest.raises(UserError, match="cannot be in a bucket") as caught:
        read()
    assert type(caught.value) is UserError
    assert str(caught.value).startswith(f"{name}: ")
