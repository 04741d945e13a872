"""Import and export of Wan: layouts, shards, bit-exactness, and error messages."""

import json
import re
import shutil
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.loaders.single_file_utils import (
    convert_wan_transformer_to_diffusers,
    convert_wan_vae_to_diffusers,
)
from etils import epath
from flax import nnx

from genmask_jax.checkpoints.runs import load_vae
from genmask_jax.commands import export_weights, import_weights
from genmask_jax.parameters import files, streaming
from genmask_jax.public_weights import wan, wan_dit, wan_vae
from genmask_jax.utils.errors import UserError
from tests.public_weights.reference import (
    import_dit,
    in_memory,
    leaves,
    normal,
    reference_dit,
    reference_vae,
    save,
    tensors,
    to_numpy,
    to_torch,
)

VAE_SHAPE = {"base_dim": 4, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A folder in the layout of the hub, with a sharded DiT."""
    directory = tmp_path_factory.mktemp("hub")
    save(directory, reference_dit(), reference_vae(**VAE_SHAPE), max_shard_size="40KB")
    assert len(list((directory / "transformer").glob("*.safetensors"))) > 3
    return directory


@pytest.fixture
def broken(hub, tmp_path):
    """A copy of the hub's folder, to be damaged."""
    return epath.Path(shutil.copytree(hub, tmp_path / "hub"))


def run(script, monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["launch/x.py", "wan", *(f"--{flag}" for flag in flags)])
    script.main()


@pytest.mark.parametrize("by_layer", [pytest.param(False, marks=pytest.mark.slow), True])
def test_import_export_import_is_bit_exact_and_diffusers_loads_it(
    hub, tmp_path, monkeypatch, capsys, by_layer
):
    if by_layer:  # as for parameters of 32 MiB and more
        monkeypatch.setattr(streaming, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(files, "MAX_SHARD_BYTES", 50_000)
    first, out, second = tmp_path / "first", tmp_path / "out", tmp_path / "second"
    run(import_weights, monkeypatch, f"from={hub}", f"out={first}")
    output = capsys.readouterr().out
    assert "dit: loaded 69 tensors" in output
    assert re.search(r"vae: dropped 8: .*decoder.up_blocks.0.upsamplers.0.time_conv.bias", output)
    run(export_weights, monkeypatch, f"from={first}", f"out={out}")
    assert len(list((out / "transformer").glob("*.safetensors"))) > 3
    run(import_weights, monkeypatch, f"from={out}", f"out={second}")
    for part in wan.PARTS:
        assert (first / part / "config.json").read_text() == (second / part / "config.json").read_text()
        one, two = leaves(first / part / "params"), leaves(second / part / "params")
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert value.tobytes() == two[name].tobytes(), name
    original, exported = tensors(hub / "transformer"), tensors(out / "transformer")
    assert all(original[key].tobytes() == exported[key].tobytes() for key in original | exported)
    # diffusers itself: the same model, and the same VAE for single frames.
    for folder in ("transformer", "vae"):
        one, two = (json.loads((place / folder / "config.json").read_text()) for place in (hub, out))
        assert {key: (two[key], one[key]) for key in one if one[key] != two[key] and key[0] != "_"} in (
            {},
            {"decoder_base_dim": (4, None)},  # None stands for base_dim
        )
    latents, text = to_torch(normal(1, 1, 2, 4, 6, 4)), torch.from_numpy(normal(2, 1, 5, 20))
    image = torch.from_numpy(normal(3, 1, 3, 1, 16, 24))
    with torch.no_grad():
        for kind, folder, call in (
            (WanTransformer3DModel, "transformer", lambda m: m(latents, torch.tensor([300.0]), text).sample),
            (AutoencoderKLWan, "vae", lambda m: m.encode(image).latent_dist.parameters),
            (AutoencoderKLWan, "vae", lambda m: m(image).sample),
        ):
            models = [kind.from_pretrained(place / folder).eval() for place in (hub, out)]
            assert torch.equal(*(call(model) for model in models))


def test_training_loads_the_imported_vae(hub, tmp_path, monkeypatch):
    run(import_weights, monkeypatch, f"from={hub}", f"out={tmp_path}", "only=vae")
    config, state = load_vae(tmp_path)
    (part,) = wan.open_wan(epath.Path(hub), ("vae",))
    assert config == part.config
    jax.tree.map(np.testing.assert_array_equal, state, in_memory(part))
    np.testing.assert_array_equal(state["latents_std"][...], np.float32([2.8184, 2.0, 0.5, 1.5]))


def test_bfloat16_stays_bfloat16(tmp_path, monkeypatch):
    save(tmp_path / "hub", reference_dit().to(torch.bfloat16))
    run(import_weights, monkeypatch, f"from={tmp_path / 'hub'}", f"out={tmp_path / 'ours'}", "only=dit")
    stored = leaves(tmp_path / "ours" / "dit" / "params")
    assert stored["blocks.attn1.to_q.kernel"].dtype == ml_dtypes.bfloat16
    run(export_weights, monkeypatch, f"from={tmp_path / 'ours'}", f"out={tmp_path / 'out'}", "only=dit")
    one, two = tensors(tmp_path / "hub" / "transformer"), tensors(tmp_path / "out" / "transformer")
    assert all(one[key].tobytes() == two[key].tobytes() for key in one | two)


def test_the_projection_of_another_text_width_is_left_fresh(hub, tmp_path, monkeypatch, capsys):
    run(import_weights, monkeypatch, f"from={hub}", f"out={tmp_path / 'a'}", "only=dit", "text_dim=48")
    output = capsys.readouterr().out
    assert "left fresh: text_embedder.linear_1.bias (text of 48 channels, not 20)" in output
    assert "dropped 2: condition_embedder.text_embedder.linear_1.bias" in output
    assert "text_embedder.linear_1.kernel" not in leaves(tmp_path / "a" / "dit" / "params")
    with pytest.raises(SystemExit):
        run(export_weights, monkeypatch, f"from={tmp_path / 'a'}", f"out={tmp_path / 'b'}", "only=dit")
    assert "text_embedder.linear_1.kernel is not in it" in capsys.readouterr().err


def original_dit_keys(depth: int) -> list[str]:
    """Wan's own names, as its repository's `WanModel` has them."""
    keys = ["head.modulation"]
    modules = ["patch_embedding", "time_embedding.0", "time_embedding.2", "time_projection.1", "head.head"]
    modules += ["text_embedding.0", "text_embedding.2"]
    for i in range(depth):
        keys.append(f"blocks.{i}.modulation")
        modules += [f"blocks.{i}.norm3", f"blocks.{i}.ffn.0", f"blocks.{i}.ffn.2"]
        for kind in ("self_attn", "cross_attn"):
            keys += [f"blocks.{i}.{kind}.norm_q.weight", f"blocks.{i}.{kind}.norm_k.weight"]
            modules += [f"blocks.{i}.{kind}.{part}" for part in "qkvo"]
    return keys + [f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")]


def original_vae_keys() -> list[str]:
    """Wan's own names, as its repository's `WanVAE_` has them."""

    def residual(place: str, shortcut: bool = False) -> list[str]:
        modules = [f"{place}.residual.2", f"{place}.residual.6"] + [f"{place}.shortcut"] * shortcut
        norms = [f"{place}.residual.0.gamma", f"{place}.residual.3.gamma"]
        return norms + [f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")]

    keys, modules = [], ["conv1", "conv2"]
    for coder in ("encoder", "decoder"):
        keys += residual(f"{coder}.middle.0") + residual(f"{coder}.middle.2")
        keys += [f"{coder}.middle.1.norm.gamma", f"{coder}.head.0.gamma"]
        modules += [f"{coder}.conv1", f"{coder}.middle.1.to_qkv", f"{coder}.middle.1.proj", f"{coder}.head.2"]
    for i in (0, 1, 3, 4, 6, 7, 9, 10):
        keys += residual(f"encoder.downsamples.{i}", shortcut=i in (3, 6))
    for i in (0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14):
        keys += residual(f"decoder.upsamples.{i}", shortcut=i == 4)
    modules += [f"encoder.downsamples.{i}.resample.1" for i in (2, 5, 8)]
    modules += [f"encoder.downsamples.{i}.time_conv" for i in (5, 8)]
    modules += [f"decoder.upsamples.{i}.resample.1" for i in (3, 7, 11)]
    modules += [f"decoder.upsamples.{i}.time_conv" for i in (3, 7)]
    return keys + [f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")]


@pytest.mark.parametrize(
    ("keys", "convert", "ours"),
    [
        (original_dit_keys(2), convert_wan_transformer_to_diffusers, wan_dit.to_diffusers),
        (original_vae_keys(), convert_wan_vae_to_diffusers, wan_vae.to_diffusers),
    ],
    ids=["dit", "vae"],
)
def test_original_names_are_renamed_as_diffusers_does(keys, convert, ours):
    marks = {key: torch.full((2,), float(i)) for i, key in enumerate(keys)}
    expected = {int(value[0]): key for key, value in convert(dict(marks)).items()}
    assert {i: ours(key) for i, key in enumerate(keys)} == expected


def test_original_layout(hub, tmp_path, monkeypatch, capsys):
    """The same weights under Wan's own names, DiT and VAE side by side, give the same import."""
    original = tmp_path / "original"
    original.mkdir()
    for folder, keys, name, to_diffusers in (
        ("transformer", original_dit_keys(2), "diffusion_pytorch_model", wan_dit.to_diffusers),
        ("vae", original_vae_keys(), "Wan2.1_VAE", wan_vae.to_diffusers),
    ):
        there = tensors(hub / folder)
        renamed = {key: there[to_diffusers(key)] for key in keys}
        assert len(renamed) == len(there)
        safetensors.numpy.save_file(renamed, original / f"{name}.safetensors")
    config = {"model_type": "t2v", "dim": 48, "ffn_dim": 96, "freq_dim": 32, "num_heads": 2, "num_layers": 2}
    config |= {"in_dim": 4, "out_dim": 4, "text_len": 512, "eps": 1e-6, "text_dim": 20}
    (original / "config.json").write_text(json.dumps(config))
    run(import_weights, monkeypatch, f"from={original}", f"out={tmp_path / 'ours'}", "only=dit")
    assert "renamed 67 (blocks." in capsys.readouterr().out
    ours = leaves(tmp_path / "ours" / "dit" / "params")
    (part,) = wan.open_wan(epath.Path(hub), ("dit",))
    for name, value in ((e.path, part.stream(e).whole()) for e in part.entries):
        np.testing.assert_array_equal(ours[name], value)
    # The VAE has no config here: it is the published one, of which this is none.
    with pytest.raises(
        UserError, match=r"decoder.conv_in.weight has shape \(16, 4, 3, 3, 3\), not \(384, 16, 3"
    ):
        wan.open_wan(epath.Path(original), ("vae",))


def complaint(directory, parts=wan.PARTS, **kwargs) -> str:
    with pytest.raises(UserError) as raised:
        wan.open_wan(epath.Path(directory), parts, **kwargs)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def edit_config(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_missing_and_unexpected_tensors_and_wrong_shapes_are_listed(broken):
    path = broken / "vae" / "diffusion_pytorch_model.safetensors"
    weights = safetensors.numpy.load_file(path)
    weights["encoder.extra.weight"] = weights.pop("encoder.conv_in.bias")
    weights["quant_conv.bias"] = np.zeros(3, np.float32)
    safetensors.numpy.save_file(weights, path)
    output = complaint(broken)
    assert "encoder.conv_in.bias is missing" in output
    assert "encoder.extra.weight is left over" in output
    assert "quant_conv.bias has shape (3,), not (8,)" in output


@pytest.mark.parametrize(
    ("folder", "change", "expected"),
    [
        ("transformer", {"image_dim": 1280}, "image_dim is 1280; a Wan 2.1 text-to-video model has None"),
        ("transformer", {"patch_size": [2, 2, 2]}, "patch_size is [2, 2, 2]"),
        ("transformer", {"in_channels": 36}, "36 channels in and 4 out"),
        ("transformer", {"_class_name": "WanVACETransformer3DModel"}, "_class_name is 'WanVACE"),
        ("transformer", {"ffn_dim": None}, "ffn_size must be int, not None"),
        ("transformer", {"num_attention_heads": None}, "a field is not a number"),
        ("vae", {"dim_mult": [1, "2"]}, "multipliers[1] must be int, not '2'"),
        ("vae", {"is_residual": True}, "is_residual is True"),
        ("vae", {"latents_mean": [0.0]}, "latents_mean and latents_std must have z_dim = 4 numbers"),
    ],
)
def test_other_models_are_refused(broken, folder, change, expected):
    edit_config(broken / folder / "config.json", **change)
    assert expected in complaint(broken)


def test_damaged_folders(broken, tmp_path):
    assert "no such directory" in complaint(tmp_path / "nowhere")
    shard = sorted((broken / "transformer").glob("*.safetensors"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    assert f"{shard}: not a safetensors file" in complaint(broken)
    shard.unlink()
    assert f"{shard}: " in complaint(broken)
    assert "lists this shard, but it is missing" in complaint(broken)
    (broken / "vae" / "config.json").unlink()
    assert "it is needed next to the weights" in complaint(broken, ("vae",))
    (broken / "vae" / "config.json").write_text("{")
    assert "this is not valid JSON" in complaint(broken, ("vae",))
    shutil.rmtree(broken / "transformer")
    assert "no *.safetensors of the dit here; add --only=vae to skip it" in complaint(broken)


@pytest.mark.parametrize("names", [("transformer", "transformer_2"), ("high_noise_model", "low_noise_model")])
def test_a_model_of_two_experts_is_refused(broken, names):
    shutil.move(broken / "transformer", broken / names[0])
    shutil.copytree(broken / names[0], broken / names[1])
    for source in (broken, broken / names[0], broken / names[1]):
        assert f"this model has two DiTs, {names[0]} and {names[1]}" in complaint(source)


@pytest.mark.parametrize("prefix", ["module.", "model.diffusion_model.", "_orig_mod."])
def test_prefixes_of_other_programs_are_removed(hub, broken, prefix):
    (hub_dit, _), folder = wan.open_wan(epath.Path(hub)), broken / "transformer"
    weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        weights |= safetensors.numpy.load_file(path)
        path.unlink()
    (folder / "diffusion_pytorch_model.safetensors.index.json").unlink()
    safetensors.numpy.save_file({prefix + k: v for k, v in weights.items()}, folder / "other.safetensors")
    dit, _ = wan.open_wan(broken)
    assert dit.renamed == {prefix + key: key for key in weights}
    for entry, same in zip(dit.entries, hub_dit.entries, strict=True):
        assert entry.keys == same.keys
        assert (dit.files.read(entry.keys[0]) == hub_dit.files.read(entry.keys[0])).all()
    del weights["proj_out.bias"]
    safetensors.numpy.save_file({prefix + k: v for k, v in weights.items()}, folder / "other.safetensors")
    assert "proj_out.bias is missing" in complaint(broken)


def test_variants_and_adapters_next_to_the_weights_are_not_read(broken):
    folder = broken / "vae"
    whole = folder / "diffusion_pytorch_model.safetensors"
    for name in ("diffusion_pytorch_model.fp16.safetensors", "adapter_model.safetensors"):
        shutil.copy(whole, folder / name)
    (folder / "._diffusion_pytorch_model.safetensors").write_bytes(b"\0\5\26\7")
    (part,) = wan.open_wan(broken, ("vae",))
    assert set(part.files.files.values()) == {whole}
    assert "not read: adapter_model.safetensors, diffusion_pytorch_model.fp16.safetensors" in part.summary()


def test_incomplete_downloads_are_named(broken, tmp_path):
    folder = broken / "transformer"
    (folder / "diffusion_pytorch_model.safetensors.index.json").unlink()
    shards = sorted(folder.glob("*.safetensors"))
    shards[2].unlink()
    assert f"{shards[2]}: this shard is missing; download it" in complaint(broken)
    shards[2].write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert f"{shards[2]}: this is Git LFS's pointer to the file" in complaint(broken)
    (folder / "config.json").write_bytes((folder / "config.json").read_text().encode("utf-8-sig"))
    shutil.rmtree(broken / "vae")
    bracketed = tmp_path / "Wan [1.3B] ~x"
    shutil.move(broken, bracketed)
    shards = sorted((bracketed / "transformer").iterdir())
    assert "Git LFS" in complaint(epath.Path(bracketed), ("dit",))


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.pth"])
def test_pickles_are_refused_and_never_opened(broken, name):
    for path in (broken / "vae").glob("*.safetensors"):
        path.unlink()
    (broken / "vae" / name).write_bytes(b"\x80\x04cos\nsystem\n")  # would not even unpickle
    output = complaint(broken)
    assert f"{name}: pickled weights can run code when loaded, so they are refused" in output
    assert "weights_only=True" in output


def test_the_original_vae_is_a_pickle(tmp_path):
    """As in Wan's own repository: the DiT in safetensors, VAE and text encoder pickled."""
    original = epath.Path(tmp_path)
    (original / "Wan2.1_VAE.pth").write_bytes(b"")
    (original / "models_t5_umt5-xxl-enc-bf16.pth").write_bytes(b"")
    assert "Wan2.1_VAE.pth: pickled weights" in complaint(original, ("vae",))


def test_existing_files_are_not_overwritten(hub, tmp_path, monkeypatch, capsys):
    flags = (f"from={hub}", f"out={tmp_path}", "only=vae")
    run(import_weights, monkeypatch, *flags)
    with pytest.raises(SystemExit):
        run(import_weights, monkeypatch, *flags)
    assert "holds a vae already; add --overwrite" in capsys.readouterr().err
    run(import_weights, monkeypatch, *flags, "overwrite")
    with pytest.raises(SystemExit):
        run(export_weights, monkeypatch, f"from={tmp_path}", f"out={hub}", "only=vae")
    assert "is not empty; give a new directory" in capsys.readouterr().err


def test_interrupted_imports_and_exports_are_repeated(hub, tmp_path, monkeypatch, capsys):
    imported, out = tmp_path / "imported", tmp_path / "out"
    run(import_weights, monkeypatch, f"from={hub}", f"out={imported}")
    (imported / "vae" / "config.json").unlink()  # written last
    run(import_weights, monkeypatch, f"from={hub}", f"out={imported}", "only=vae")

    def export_half(source, out, *_):
        wan.export_dit(source, out, "last", lambda _: None)
        (out / ".1-2.tmp").touch()
        raise KeyboardInterrupt

    (out / ".git").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(wan, "export_vae", export_half)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(export_weights, monkeypatch, f"from={imported}", f"out={out}")
    assert (out / "transformer" / "config.json").exists()
    run(export_weights, monkeypatch, f"from={imported}", f"out={out}")
    assert sorted(path.name for path in out.iterdir()) == [".git", "transformer", "vae"]
    with pytest.raises(SystemExit):
        run(export_weights, monkeypatch, f"from={tmp_path}", f"out={tmp_path / 'new'}")
    assert not (tmp_path / "new").exists()


def test_import_preserves_the_output_of_the_model(hub, tmp_path, monkeypatch):
    run(import_weights, monkeypatch, f"from={hub}", f"out={tmp_path / 'ours'}", "only=dit")
    ours, _ = import_dit(reference_dit(), tmp_path / "again")
    flat = {path: value[...] for path, value in wan_dit.flat_paths(nnx.state(ours))}
    for name, value in leaves(tmp_path / "ours" / "dit" / "params").items():
        np.testing.assert_array_equal(value, flat[name])
    latents, text = normal(1, 1, 2, 4, 6, 4), normal(2, 1, 5, 20)
    with torch.no_grad():
        theirs = reference_dit()(to_torch(latents), torch.tensor([300.0]), torch.from_numpy(text)).sample
    times = np.full((1, 1), 0.3, np.float32)
    inputs = map(jax.numpy.asarray, (latents, times, text))
    np.testing.assert_allclose(ours(*inputs), to_numpy(theirs), atol=2e-5)
