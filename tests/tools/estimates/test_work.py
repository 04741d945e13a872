"""FLOPs, bytes and collectives of compiled programs, against arithmetic."""

import dataclasses
import json
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmask_jax.checkpoints.runs import read_vae_config
from genmask_jax.hardware.chips import CHIPS, find_chip, parse_topology
from genmask_jax.hardware.flops import ModelFlops, count_flops
from genmask_jax.parameters.names import is_adapter, shapes_of
from genmask_jax.sharding import MeshConfig, make_mesh
from genmask_jax.tools.estimates import programs
from genmask_jax.tools.estimates.estimate import (
    communication_seconds,
    compute_seconds,
    estimate,
    sent_bytes,
    used_bytes,
)
from genmask_jax.tools.estimates.hlo import parse_arrays, parse_group, parse_instruction
from genmask_jax.tools.estimates.hlo_flops import instruction_flops
from genmask_jax.tools.estimates.report import print_estimate, summarise_estimate
from genmask_jax.tools.estimates.work import Collective, InstructionWork, Work, read_work
from genmask_jax.training.genmask import GenMaskTask
from genmask_jax.utils.errors import UserError
from tests.conftest import micro_config
from tests.instruction.qwen.test_in_the_system import qwen_config
from tests.test_end_to_end import one_line_error, run_script


def compiled(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*arguments).compile(), arguments


def layers(x, w):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]


def test_the_body_of_a_loop_is_counted_once_per_iteration():
    program, arguments = compiled(layers, (64, 128), (7, 128, 128))
    expected = 7 * 2 * 64 * 128 * 128
    assert read_work(program.as_text()).flops == expected
    assert count_flops(layers, *arguments) == expected
    assert program.cost_analysis()["flops"] < expected / 3  # XLA counts the body once


def test_gradients_of_scanned_layers():
    def loss(x, w):
        return layers(x, w).sum()

    gradient = jax.grad(loss, argnums=(0, 1))
    program, arguments = compiled(gradient, (64, 128), (7, 128, 128))
    expected = 3 * 7 * 2 * 64 * 128 * 128
    assert count_flops(gradient, *arguments) == expected
    assert read_work(program.as_text()).flops == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("options", [
    {"window_strides": (1, 1), "padding": "SAME"},
    {"window_strides": (2, 2), "padding": "VALID"},
    {"window_strides": (1, 1), "padding": ((2, 2), (2, 2)), "lhs_dilation": (2, 2)},
    {"window_strides": (1, 1), "padding": "VALID", "rhs_dilation": (2, 1)},
], ids=str)  # fmt: skip
def test_convolutions_count_as_xla_counts_them(options):
    def convolve(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, **options, dimension_numbers=numbers)

    program, arguments = compiled(convolve, (2, 16, 20, 8), (3, 3, 8, 12))
    counted = program.cost_analysis()["flops"]
    assert read_work(program.as_text()).flops == pytest.approx(counted, rel=0.02)
    assert count_flops(convolve, *arguments) == pytest.approx(counted, rel=0.02)


def test_the_largest_branch_of_a_conditional_is_counted():
    def choose(x, w, flag):
        return jax.lax.cond(flag[0] > 0, lambda: x @ w @ w, lambda: x + 1)

    program, arguments = compiled(choose, (32, 64), (64, 64), (1,))
    expected = 2 * 2 * 32 * 64 * 64
    assert count_flops(choose, *arguments) == expected
    assert read_work(program.as_text()).flops == expected


def test_a_compiled_training_step_has_the_flops_of_its_trace(micro_vae):
    """On one device, XLA removes few FLOPs and adds none."""
    config = micro_config(micro_vae)
    optimizer = dataclasses.replace(config.optimizer, name="adamw")  # Muon has matrix products of its own
    loop = dataclasses.replace(config.loop, global_batch_size=4 * jax.device_count())
    run = programs.describe_run(
        dataclasses.replace(config, loop=loop, optimizer=optimizer), make_mesh(MeshConfig())
    )
    assert run.assumptions == ()
    work = read_work(programs.train_step(run).compile().as_text())
    gradient = jax.grad(GenMaskTask(run.networks, run.config).loss, has_aux=True)
    key, networks = jax.random.key(0), run.networks
    expected = count_flops(
        gradient, networks.abstract_params(), networks.frozen, programs.batch_shapes(run), key
    )
    assert work.flops * jax.device_count() == pytest.approx(expected, rel=0.05)
    assert programs.train_flops(run).every < expected  # attention's gradient computes its weights again
    masks = read_work(programs.mask_sampler(run, 8).compile().as_text())
    assert masks.flops * jax.device_count() == pytest.approx(programs.mask_flops(run, 8).every, rel=0.05)


def test_missing_weights_have_the_shapes_of_published_models(micro_vae):
    config = dataclasses.replace(
        micro_config("/nowhere"), data=dataclasses.replace(micro_config("").data, size=64)
    )
    run = programs.describe_run(config, make_mesh(MeshConfig()))
    assert run.assumptions == ("/nowhere does not exist; using the shape of Wan 2.1's VAE",)
    assert run.networks.latent_shape == (8, 8, 16)


def test_a_packaged_vae_is_found_by_its_name():
    run = programs.describe_run(micro_config("refershapes"), make_mesh(MeshConfig()))
    assert run.assumptions == ()
    assert run.networks.vae_config == read_vae_config("refershapes")


def test_adapters_on_missing_cached_encodings(micro_vae):
    """The step has neither the encoder nor a second copy of the base, and computes fewer gradients."""
    whole = qwen_config(micro_vae)
    model = dataclasses.replace(whole.model, lora_rank=2)
    data = dataclasses.replace(whole.data, latents="/nowhere/latents")
    config = dataclasses.replace(whole, model=model, init="/nowhere/wan", data=data)
    run, full = (programs.describe_run(c, make_mesh(MeshConfig())) for c in (config, whole))
    assert "/nowhere/wan does not exist; using the shape of Wan 2.1's DiT" in run.assumptions
    assert any("the instruction encoder is not on the devices" in line for line in run.assumptions)
    assert "instruction" in full.networks.frozen
    assert "instruction" not in run.networks.frozen
    trained = shapes_of(run.networks.abstract_params())
    # Texts of another width than Wan's need a projection of their own.
    assert {name for name in trained if not is_adapter(name)} == {
        "dit.text_embedder.linear_1.bias",
        "dit.text_embedder.linear_1.kernel",
    }
    assert programs.train_flops(run).every < 0.8 * programs.train_flops(full).every
    arguments = [
        sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(programs.train_step(one).in_avals))
        for one in (run, full)
    ]
    assert arguments[0] < arguments[1] / 2


@pytest.mark.multidevice
def test_collectives_are_found_with_their_sizes():
    """On 8 simulated devices: a gather of weights in every layer, and a sum of gradients."""
    program = """
        import os, json, dataclasses
        os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"
        import jax, jax.numpy as jnp
        from jax.sharding import NamedSharding, PartitionSpec as P
        from genmask_jax.tools.estimates.work import read_work
        from genmask_jax.sharding import MeshConfig, make_mesh
        mesh = make_mesh(MeshConfig(data=2, fsdp=4))
        def loss(w, x):
            return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0].sum()
        w = jax.ShapeDtypeStruct((5, 64, 64), jnp.float32, sharding=NamedSharding(mesh, P(None, "fsdp")))
        x = jax.ShapeDtypeStruct((32, 64), jnp.float32, sharding=NamedSharding(mesh, P(("data", "fsdp"))))
        found = jax.jit(jax.grad(loss), out_shardings=w.sharding).lower(w, x).compile()
        print(json.dumps([dataclasses.asdict(c) for c in read_work(found.as_text()).collectives]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    gathers = [c for c in found if c["kind"] == "all-gather"]
    assert {c["group"] for c in gathers} == {4}
    whole = 5 * 64 * 64 * 4  # bytes of all layers
    assert sum(c["nbytes"] for c in gathers) in (whole, 2 * whole)  # forward, and once more backward
    sums = [c for c in found if c["kind"] in ("all-reduce", "reduce-scatter")]
    assert sum(c["nbytes"] for c in sums) >= whole
    assert {c["count"] for c in gathers} == {5}


def test_a_roofline():
    chip = CHIPS["v5e"]
    work = Work(
        (
            InstructionWork(197e12, 0.0, 2),
            InstructionWork(0.0, 819e9, 3),
            InstructionWork(0.0, 819e9, 1, is_async_copy=True),
        ),
        (Collective("all-gather", 4, 2, 100e9), Collective("all-reduce", 4, 1, 100e9)),
    )
    assert compute_seconds(work, chip) == pytest.approx(5)
    assert chip.ring_bandwidth == 100e9
    assert communication_seconds(work, chip) == pytest.approx(0.75 + 1.5)
    assert sent_bytes(Collective("collective-permute", 2, 1, 7.0)) == 7
    assert sent_bytes(Collective("all-reduce", 1, 1, 7.0)) == 0
    doubled = work.repeated(2)
    assert (doubled.flops, doubled.nbytes) == (2 * work.flops, 2 * work.nbytes)
    assert doubled.collectives[0].count == 4


def test_an_estimate_gives_the_mfu_of_the_trained_networks_and_of_all(capsys):
    lowered = jax.jit(layers).lower(*compiled(layers, (64, 128), (7, 128, 128))[1])
    chip, model = CHIPS["v5e"], 7 * 2 * 64 * 128 * 128
    found = estimate(lowered, chip, model_flops=ModelFlops(0.5 * model, model))
    at_peak = model / chip.peak_flops / found.estimated_step_seconds
    assert found.estimated_mfu.every == pytest.approx(at_peak)
    assert found.estimated_mfu.trained == pytest.approx(at_peak / 2)
    line = f"{50 * at_peak:.0f} % trained, {100 * at_peak:.0f} % all networks"
    assert summarise_estimate(found).endswith(f"MFU {line}")
    print_estimate("a step", found, 1)
    shown = capsys.readouterr().out
    assert line in shown
    assert "model FLOPs of the trained networks" in shown
    assert json.loads(json.dumps(dataclasses.asdict(found)))["model_flops_per_device"]["every"] == model
    sampler = estimate(lowered, chip, model_flops=ModelFlops(None, model))
    assert summarise_estimate(sampler).endswith(f"MFU {100 * at_peak:.0f} % all networks")
    print_estimate("a sampler", sampler, 1)
    assert "trained" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("attributes", "group", "span"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", 4, 4),
        ("replica_groups={{0,8},{1,9}}", 2, 9),
        ("replica_groups=[2,8]<=[16]", 8, 8),
        ("replica_groups=[8,2]<=[2,8]T(1,0)", 2, 9),
        ("replica_groups=mesh['a'=2,'b'=8] {'b'}", 8, 8),
        ("replica_groups=mesh['a'=2,'b'=8] {'a'}", 2, 9),
        ("replica_groups=mesh['a'=2,'b'=8] {'a','b'}", 16, 16),
        ("replica_groups=mesh['a'=8,'b'=2], device_ids=([2,8]T(1,0)) {'b'}", 2, 9),
    ],
)
def test_groups_of_a_collective_and_their_span(attributes, group, span):
    members = parse_group(f"{attributes}, use_global_device_ids=true")
    assert (len(members), max(members) - min(members) + 1) == (group, span)


def test_cards_use_the_network_between_hosts_and_links_within_them():
    card = find_chip("h100", "2x8")
    within, between = Collective("all-gather", 8, 1, 8e9, span=8), Collective("all-gather", 2, 1, 8e9, span=9)
    assert communication_seconds(Work((), (within,)), card) == pytest.approx(7e9 / 450e9)
    assert communication_seconds(Work((), (between,)), card) == pytest.approx(4e9 / 50e9)
    assert card.reserved_bytes(10 * 2**30) == pytest.approx(1.25 * 2**30)


def test_flops_of_cudnn_attention():
    call = "  %a = (bf16[4,12,2048,128]{3,1,2,0}) custom-call(%q, %k, %v), "
    line = call + 'custom_call_target="__cudnn$T"'
    arrays = [parse_arrays(f"bf16[4,{n},12,128]")[0] for n in (2048, 392, 392)]
    one = 2 * 4 * 12 * 2048 * 392 * 128
    for target, products in (("fmhaSoftmax", 2), ("fmhaSoftmaxBackward", 5)):
        assert (
            instruction_flops(parse_instruction(line.replace("$T", f"${target}")), arrays) == products * one
        )


SLICED = """
%slice (stack: f32[4,8,16], i: s32[]) -> f32[16,1,8] {
  %stack = f32[4,8,16]{1,0,2} parameter(0)
  %turned = f32[16,4,8]{2,1,0} bitcast(%stack)
  %zero = s32[] constant(0)
  %i = s32[] parameter(1)
  ROOT %one = f32[16,1,8]{2,1,0} dynamic-slice(%turned, %zero, %i, %zero), dynamic_slice_sizes={16,1,8}
}

%update (stack: f32[4,8,16], one: f32[16,1,8], i: s32[]) -> f32[4,8,16] {
  %stack = f32[4,8,16]{1,0,2} parameter(0)
  %turned = f32[16,4,8]{2,1,0} bitcast(%stack)
  %one = f32[16,1,8]{2,1,0} parameter(1)
  %zero = s32[] constant(0)
  %i = s32[] parameter(2)
  %written = f32[16,4,8]{2,1,0} dynamic-update-slice(%turned, %one, %zero, %i, %zero)
  ROOT %back = f32[4,8,16]{1,0,2} bitcast(%written)
}

ENTRY %main (stack: f32[4,8,16], i: s32[]) -> f32[4,8,16] {
  %stack = f32[4,8,16]{1,0,2} parameter(0)
  %i = s32[] parameter(1)
  %layer = f32[16,1,8]{2,1,0} fusion(%stack, %i), kind=kLoop, calls=%slice
  ROOT %whole = f32[4,8,16]{1,0,2} fusion(%stack, %layer, %i), kind=kLoop, calls=%update
}
"""


def test_a_slice_of_a_transposed_array_counts_as_a_slice():
    index, layer = 4, 4 * 8 * 16
    assert read_work(SLICED).nbytes == 2 * (2 * layer + index)  # one is read and written, twice


GPU_PROGRAM = """
import dataclasses, json, re
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
jax.config.update("jax_platforms", "cpu")
from genmask_jax.models.attention import attend
from genmask_jax.parameters.plan import ParameterPlan
from genmask_jax.tools.estimates.work import read_work
from genmask_jax.tools.estimates.topology import describe_devices
from genmask_jax.sharding import MeshConfig, make_mesh, tracing_context
found = {}
for card in ("h100", "a100-40", "rtx3090"):
    mesh = make_mesh(MeshConfig(fsdp=2), describe_devices(card, "1x4", 1))
    batch = NamedSharding(mesh, P(("data", "fsdp")))
    def shape(*dims, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(dims, dtype, sharding=batch)
    for name, keys, heads, causal in (("texts", 392, 12, False), ("qwen", 1024, 4, True)):
        def loss(q, k, v, mask):
            with tracing_context(ParameterPlan((), mesh)):
                return attend(q, k, v, mask, causal=causal).astype(jnp.float32).sum()
        arguments = (shape(8, 1024, 12, 128), *[shape(8, keys, heads, 128)] * 2, shape(8, keys, dtype=bool))
        text = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*arguments).compile().as_text()
        work = read_work(text)
        kernels = re.findall(r"__cudnn.(\\w+)", text)
        found[f"{card} {name}"] = [sorted(set(kernels)), [c.kind for c in work.collectives], work.flops]
print(json.dumps(found))
"""


@pytest.mark.gpu_compiler
def test_the_gpu_compiler_uses_cudnn_attention_on_a_mesh():
    done = subprocess.run([sys.executable, "-c", GPU_PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, (kernels, collectives, flops) in json.loads(done.stdout.splitlines()[-1]).items():
        assert kernels == ["fmhaSoftmax", "fmhaSoftmaxBackward"], name
        assert collectives == [], name
        keys = 392 if "texts" in name else 1024
        assert flops == (2 + 5) * 2 * 2 * 12 * 1024 * keys * 128, name


def test_the_compilers_out_of_memory_error():
    message = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded"
    assert used_bytes(message) == 20.5 * 2**30
    assert used_bytes("INVALID_ARGUMENT: something else") is None


@pytest.mark.parametrize(
    "text",
    [
        "h100",
        "h100:0",
        "h100:2x",
        "h100:2x2x2",
        "b9000:8",
        "v5e",
        "v5e:4",
        "v5e:4x4x4",
        "v5p:4x4",
        "v9:2x2",
        "v5e:axb",
    ],
)
def test_topologies_are_checked(text):
    with pytest.raises(UserError, match=f"--topology={text}: give a generation"):
        parse_topology(text)
    assert parse_topology("v5p:4x4x4") == ("v5p", "4x4x4", 64)
    assert parse_topology("h100:8") == ("h100", "1x8", 8)
    assert parse_topology("a100-80:4x8") == ("a100-80", "4x8", 32)


def test_a_missing_compiler_gives_the_install_command(tmp_path):
    if np.any([name.startswith("libtpu") for name in installed()]):
        pytest.skip("it is installed")
    from tests.test_end_to_end import LAUNCH

    config = f"--config={LAUNCH.parent}/configs/genmask_tiny.py"
    done = run_script("compile", config, "--topology=v5e:2x2", cwd=tmp_path)
    one_line_error(done, "--topology=v5e:2x2", "genmask-jax[tpu]")


def installed() -> list[str]:
    from importlib.metadata import distributions

    return [d.metadata["Name"] for d in distributions()]
