"""Files of a run and of a packed model are damaged: a model is loaded unchanged, or not at all."""

import json
import pathlib
import shutil

import pytest
from etils import epath

from genmask_jax.checkpoints.runs import load_vae
from genmask_jax.inference.load import load
from genmask_jax.pretrained import directory_of, names
from genmask_jax.public_weights.packing import pack_run
from genmask_jax.utils.digests import DIGESTS, check_digests
from genmask_jax.utils.errors import UserError
from tests.faults.damage import Fault, a_fault_of_each


def needs_whole(model: pathlib.Path, fault: Fault) -> None:
    """Damages a file of a model, tries to load it, and undoes the damage."""
    whole = (model / fault.path).read_bytes()
    fault.apply(model)
    with pytest.raises(UserError, match=str(model)):
        load(model)
    (model / fault.path).write_bytes(whole)


def test_a_damaged_packed_model_is_not_loaded(micro_run, tmp_path):
    model = tmp_path / "packed"
    pack_run(epath.Path(micro_run[0]), epath.Path(model), "last", "float32", lambda nbytes: None)
    faults = [fault for fault in a_fault_of_each(model) if fault.path.name != "README.md"]
    for fault in faults:
        needs_whole(model, fault)
    print(f"\npacked model: {len(faults)} faults, all found")
    load(model)


def test_a_run_with_damaged_frozen_parts_is_not_loaded(micro_run, tmp_path):
    model = pathlib.Path(shutil.copytree(micro_run[0], tmp_path / "run"))
    faults = [f for f in a_fault_of_each(model) if f.path.parts[0] in ("vae", "instruction")]
    for fault in faults:
        needs_whole(model, fault)
    print(f"\nfrozen parts of a run: {len(faults)} faults, all found")
    load(model)


@pytest.mark.parametrize("field", ["base_dim", "decoder_base_dim", "channels", "multipliers", "patch_size"])
def test_a_zero_in_the_config_of_a_vae_is_named(micro_run, tmp_path, field):
    model = pathlib.Path(shutil.copytree(micro_run[0] / "vae", tmp_path / "run" / "vae")).parent
    path = model / "vae" / "config.json"
    values = json.loads(path.read_text())
    for wrong in ([0], []) if field == "multipliers" else (0,):
        path.write_text(json.dumps(values | {field: wrong}))
        with pytest.raises(UserError, match=rf"{path}.*{field} must (be from 1|have from 1)"):
            load_vae(model)


@pytest.mark.parametrize("name", names())
def test_packaged_models_have_digests_that_fit(name):
    for folder in ("", "vae", "instruction"):
        assert (directory_of(name) / folder / DIGESTS).exists()
        check_digests(directory_of(name) / folder)
