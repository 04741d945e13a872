"""Import and export of Qwen: layouts, bit-exactness, variants, published sizes, and error messages."""

import json
import shutil
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch
from etils import epath
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Config, Qwen2ForCausalLM

from genmask_jax.commands import export_weights, import_weights
from genmask_jax.instruction.qwen.load import restore_layers
from genmask_jax.parameters import files
from genmask_jax.parameters.layout import complaints
from genmask_jax.parameters.reader import ParameterReader
from genmask_jax.public_weights import qwen, qwen_names
from genmask_jax.utils.errors import UserError
from tests.instruction.qwen import reference
from tests.instruction.qwen.published import SEVEN, TEXT_SEVEN, THREE
from tests.public_weights.reference import leaves, tensors


def run(script, monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["launch/x.py", "qwen", *(f"--{flag}" for flag in flags)])
    script.main()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return reference.save_hub(
        tmp_path_factory.mktemp("qwen") / "hub", reference.reference_vl(), max_shard_size="20KB"
    )


@pytest.fixture
def broken(hub, tmp_path):
    return epath.Path(shutil.copytree(hub, tmp_path / "hub"))


def logits(directory, kind):
    model = kind.from_pretrained(directory).eval()
    with torch.no_grad():
        return model(torch.arange(1, 20)[None]).logits.float().numpy()


def test_import_and_export_are_bit_exact_and_transformers_loads_it(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "MAX_SHARD_BYTES", 40_000)
    first, out, second = tmp_path / "first", tmp_path / "out", tmp_path / "second"
    run(import_weights, monkeypatch, f"from={hub}", f"out={first}")
    output = capsys.readouterr().out
    assert "qwen: loaded" in output
    assert "--text_dim=32" in output
    run(export_weights, monkeypatch, f"from={first}", f"out={out}")
    assert (out / "model.safetensors.index.json").exists()
    original, exported = tensors(hub), tensors(out)
    assert original.keys() == exported.keys()
    assert all(original[key].tobytes() == exported[key].tobytes() for key in original)
    for path in hub.iterdir():
        if "safetensors" not in path.name:
            same = (
                json.loads(path.read_text()) == json.loads((out / path.name).read_text())
                if (path.suffix == ".json")
                else path.read_text() == (out / path.name).read_text()
            )
            assert same, path
    run(import_weights, monkeypatch, f"from={out}", f"out={second}")
    one, two = leaves(first / "qwen/params"), leaves(second / "qwen/params")
    assert all(one[name].tobytes() == two[name].tobytes() for name in one | two)
    np.testing.assert_array_equal(
        logits(hub, Qwen2_5_VLForConditionalGeneration), logits(out, Qwen2_5_VLForConditionalGeneration)
    )


def test_weights_may_be_written_in_bfloat16(hub, tmp_path, monkeypatch):
    run(import_weights, monkeypatch, f"from={hub}", f"out={tmp_path}", "dtype=bfloat16")
    there = tensors(hub)
    ours = leaves(tmp_path / "qwen/params")
    assert {value.dtype for value in ours.values()} == {np.dtype(ml_dtypes.bfloat16)}
    expected = there["model.norm.weight"].astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(ours["text.norm.scale"], expected)
    run(export_weights, monkeypatch, f"from={tmp_path}", f"out={tmp_path / 'out'}")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == torch.bfloat16


def test_names_of_transformers_5_are_the_same_model(hub, tmp_path):
    newer = tmp_path / "newer"
    shutil.copytree(hub, newer, ignore=shutil.ignore_patterns("*.safetensors*"))
    rename = {"visual.": "model.visual.", "model.": "model.language_model."}
    renamed = {
        next((new + key[len(old) :] for old, new in rename.items() if key.startswith(old)), key): value
        for key, value in tensors(hub).items()
    }
    safetensors.numpy.save_file(renamed, newer / "model.safetensors")
    one, two = (qwen.open_qwen(epath.Path(path)) for path in (hub, newer))
    assert len(two.renamed) == len(renamed) - 1  # all but lm_head
    for entry in one.entries:
        np.testing.assert_array_equal(one.stream(entry).whole(), two.stream(entry).whole())


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: reference.reference_vl(tie_word_embeddings=True), Qwen2_5_VLForConditionalGeneration),
        (reference.reference_text, Qwen2ForCausalLM),
        (lambda: reference.reference_text(tie_word_embeddings=True), Qwen2ForCausalLM),
    ],
    ids=["tied, as the 3B", "text only", "text only, tied"],
)
def test_variants_are_recognised_by_their_config(make, kind, tmp_path):
    """Our logits on text equal those of transformers."""
    directory = reference.save_hub(tmp_path, make())
    ours, config = reference.imported(directory)
    expected = logits(directory, kind)
    positions = np.repeat(np.arange(19)[None, :, None], 3, axis=2)
    inputs = {"input_ids": np.arange(1, 20)[None], "attention_mask": np.ones((1, 19), bool)}
    mine = np.asarray(ours(jax.tree.map(jax.numpy.asarray, inputs | {"positions": positions})))
    assert np.abs(mine - expected).max() <= 1e-4 * np.abs(expected).max()
    assert (config.vision.depth == 0) == (kind is Qwen2ForCausalLM)


@pytest.mark.parametrize(
    ("config", "kind", "bytes_published", "tensors_published"),
    [
        (SEVEN, (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration), 16_584_333_312, 729),
        (THREE, (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration), 7_509_245_952, 824),
        (TEXT_SEVEN, (Qwen2Config, Qwen2ForCausalLM), 15_231_233_024, 339),
    ],
    ids=["VL 7B", "VL 3B", "text 7B"],
)
def test_every_published_key_is_accounted_for(config, kind, bytes_published, tensors_published):
    """Shapes only, nothing is allocated; the totals are those of the published index of bfloat16 shards."""
    with torch.device("meta"):
        model = kind[1](kind[0].from_dict(json.loads(json.dumps(config))))
    shapes = {qwen_names.to_hub(key): tuple(value.shape) for key, value in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        del shapes[qwen_names.TIED]
    ours = qwen_names.config_from_public(json.loads(json.dumps(config)), "config.json")
    assert complaints(qwen_names.entries(ours), shapes, ()) == []
    assert len(shapes) == tensors_published
    assert 2 * sum(int(np.prod(shape)) for shape in shapes.values()) == bytes_published


def complaint(directory) -> str:
    with pytest.raises(UserError) as raised:
        qwen.open_qwen(epath.Path(directory))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_error_messages_name_the_problem(broken, tmp_path):
    config = (broken / "config.json").read_text()
    edit(broken / "config.json", model_type="llama")
    assert "model_type is 'llama'; supported are qwen2_5_vl, qwen2" in complaint(broken)
    (broken / "config.json").write_text(config)
    text = json.loads(config)["text_config"]
    edit(broken / "config.json", text_config=text | {"num_hidden_layers": 4})
    assert "`num_hidden_layers` (4) must be equal to the number of `layer_types` (3)" in complaint(broken)
    del text["layer_types"]
    edit(broken / "config.json", text_config=text | {"num_hidden_layers": 4})
    assert "model.layers.3.input_layernorm.weight is missing" in complaint(broken)
    edit(broken / "config.json", text_config=text | {"num_hidden_layers": 2})
    assert "model.layers.2.input_layernorm.weight is left over" in complaint(broken)
    edit(broken / "config.json", text_config=text | {"intermediate_size": 50})
    assert "model.layers.0.mlp.gate_proj.weight has shape (48, 32), not (50, 32)" in complaint(broken)
    (broken / "config.json").write_text(config)
    (broken / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5]}))
    assert "image_mean is [0.5, 0.5, 0.5]" in complaint(broken)
    (broken / "preprocessor_config.json").unlink()
    (broken / "tokenizer.json").rename(broken / "gone.json")
    assert "tokenizer.json: does not exist" in complaint(broken)
    (broken / "gone.json").rename(broken / "tokenizer.json")
    for name in ("tokenizer.json", "chat_template.jinja", "config.json"):
        whole = (broken / name).read_bytes()
        for damage in (whole[: len(whole) // 2], b"[]", b"\xff\xfe"):
            (broken / name).write_bytes(damage)
            assert name.partition(".")[0].replace("_", " ") in complaint(broken).replace("_", " ")
        (broken / name).write_bytes(whole)
    for path in broken.glob("*.safetensors*"):
        path.unlink()
    assert "no *.safetensors here" in complaint(broken)
    (broken / "pytorch_model.bin").write_bytes(b"pickle")
    assert "refused" in complaint(broken)
    assert "no such directory" in complaint(tmp_path / "nowhere")


def test_existing_imports_are_not_overwritten(hub, tmp_path, monkeypatch, capsys):
    run(import_weights, monkeypatch, f"from={hub}", f"out={tmp_path}")
    for flags, words in (
        ((f"from={hub}", f"out={tmp_path}"), "add --overwrite"),
        ((f"from={hub}", f"out={tmp_path / 'new'}", "text_dim=3"), "--text_dim is only for wan"),
        ((f"from={hub}", f"out={hub / 'config.json'}"), "cannot be created"),
    ):
        with pytest.raises(SystemExit):
            run(import_weights, monkeypatch, *flags)
        assert words in capsys.readouterr().err
    run(import_weights, monkeypatch, f"from={hub}", f"out={tmp_path}", "overwrite")


def test_damaged_imports_are_named(hub, tmp_path, monkeypatch, capsys):
    run(import_weights, monkeypatch, f"from={hub}", f"out={tmp_path / 'ours'}")
    folder = epath.Path(tmp_path / "ours" / "qwen")

    def error_of(*flags, source=tmp_path / "ours") -> str:
        with pytest.raises(SystemExit):
            run(export_weights, monkeypatch, f"from={source}", f"out={tmp_path / 'out'}", *flags)
        error = capsys.readouterr().err
        assert error.count("error:") == 1
        return error

    assert "--only is only for wan" in error_of("only=vae")
    assert "--step is only for training runs" in error_of("step=best")
    assert "no Qwen here; make it with launch/import_weights.py qwen" in error_of(source=tmp_path)
    config = (folder / "config.json").read_text()
    edit(folder / "config.json", text=json.loads(config)["text"] | {"depth": 4})
    assert "import the weights again" in error_of()
    (folder / "config.json").write_text(config)
    (folder / "hub/config.json").rename(folder / "hub/gone")
    assert "hub/config.json: this file is missing" in error_of()
    (folder / "hub/gone").rename(folder / "hub/config.json")
    shutil.move(folder / "params", folder / "elsewhere")
    assert "params: no parameters here" in error_of()
    (folder / "params").mkdir()
    assert "params is incomplete or damaged" in error_of()


def test_an_encoder_restores_its_layers(hub, tmp_path, monkeypatch):
    """Layers 1 to 3 with the last one in `top_blocks`, and layers 1 and 2."""
    run(import_weights, monkeypatch, f"from={hub}", f"out={tmp_path}")
    reader = ParameterReader(epath.Path(tmp_path) / "qwen/params")
    whole = reader.read("text.blocks.q_proj.kernel")
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def restore(layer, train_layers, **shapes):
        dtypes = {name: np.float32 if "top" in name else ml_dtypes.bfloat16 for name in shapes}
        targets = {
            f"text.{name}.q_proj.kernel": jax.ShapeDtypeStruct(shape, dtypes[name], sharding=device)
            for name, shape in shapes.items()
        }
        return list(restore_layers(reader, targets, layer, train_layers).values())

    below, above = restore(3, 1, blocks=(2, 32, 32), top_blocks=(1, 32, 32))
    np.testing.assert_array_equal(below, whole[:2].astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(above, whole[2:])
    assert above.dtype == np.float32
    (second,) = restore(2, 0, blocks=(2, 32, 32))
    np.testing.assert_array_equal(second, whole[:2].astype(ml_dtypes.bfloat16))
