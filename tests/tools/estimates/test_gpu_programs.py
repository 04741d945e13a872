"""Work of small GPU programs, compiled without a GPU, against arithmetic."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.gpu_compiler

COMMON = """
import dataclasses, json
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
jax.config.update("jax_platforms", "cpu")
from genmask_jax.tools.estimates.work import read_work
from genmask_jax.tools.estimates.topology import describe_devices
from genmask_jax.parameters.rules import make_plan
from genmask_jax.sharding import MeshConfig, gather_layer, make_mesh, tracing_context
found = {}
def read(name, function, *arguments, options=None, **jit):
    program = jax.jit(function, **jit).lower(*arguments).compile(compiler_options=options)
    work, memory = read_work(program.as_text()), program.memory_analysis()
    found[name] = {
        "flops": work.flops,
        "bytes": work.nbytes,
        "arguments": memory.argument_size_in_bytes,
        "results": memory.output_size_in_bytes,
        "collectives": [dataclasses.asdict(c) for c in work.collectives],
        "cublas": "__cublas$" in program.as_text(),
    }
"""

ONE_CARD = """
mesh = make_mesh(MeshConfig(), describe_devices("h100", "1x1", 1))
def shape(*dims, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(dims, dtype, sharding=NamedSharding(mesh, P()))
def convolve(x, kernel, stride, padding):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=numbers)
def gradients(x, kernel):
    return jax.grad(lambda *a: convolve(*a, 2, "VALID").astype(jnp.float32).sum() ** 2, (0, 1))(x, kernel)
def product(x, w):
    return x @ w
def layers(x, w):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]
def total(c, x):
    return jax.lax.scan(lambda c, x: (c + x, None), c, x)[0]
x, w = shape(2048, 1024), shape(1024, 512)
read("product", product, x, w)
read("cublas", product, x, w, options={"xla_gpu_enable_triton_gemm": False})
read("loop", layers, shape(64, 128), shape(7, 128, 128))
read("convolution", lambda x, k: convolve(x, k, 1, "SAME"), shape(2, 32, 40, 64), shape(3, 3, 64, 96))
read("gradients", gradients, shape(2, 33, 41, 64), shape(3, 3, 64, 96))
for depth in (10, 20):
    stacked = shape(depth, 1024, 1024, dtype=jnp.float32)
    read(f"total {depth}", total, shape(1024, 1024, dtype=jnp.float32), stacked)
print(json.dumps(found))
"""

MESHES = """
def loss(w, x):
    def layer(x, one):
        one = gather_layer(one, w)
        return jnp.tanh(x @ one["up"]["kernel"]) @ one["down"]["kernel"], None
    with tracing_context(plan):
        return jax.lax.scan(jax.checkpoint(layer, prevent_cse=False), x, w)[0].astype(jnp.float32).sum()
for topology, data, fsdp in (("1x4", 1, 4), ("2x4", 2, 4), ("2x4", 1, 8)):
    mesh = make_mesh(MeshConfig(data=data, fsdp=fsdp), describe_devices("h100", topology, 1))
    def shape(spec, *dims, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(dims, dtype, sharding=NamedSharding(mesh, spec))
    batch = P(("data", "fsdp"))
    for depth in (6, 12):
        up, down = (shape(P(None, None, "fsdp"), depth, 512, 2048), shape(P(None, "fsdp"), depth, 2048, 512))
        w = {"up": {"kernel": up}, "down": {"kernel": down}}
        shapes = {f"blocks.{name}.kernel": w[name]["kernel"] for name in w}
        dtypes = dict.fromkeys(shapes, jnp.bfloat16)
        plan = make_plan(shapes, mesh, trained=("blocks",), compute_dtypes=dtypes)
        rows, shardings = shape(batch, 512, 512, dtype=jnp.bfloat16), jax.tree.map(lambda x: x.sharding, w)
        read(f"{topology} {fsdp} {depth}", jax.grad(loss), w, rows, out_shardings=shardings)
    x, whole = shape(batch, 8, 4096, 1024), NamedSharding(mesh, P())
    read(f"{topology} {fsdp} sum", lambda x: x.sum(0), x, out_shardings=whole)
    read(f"{topology} {fsdp} whole", lambda x: x + 1, x, out_shardings=whole)
print(json.dumps(found))
"""


def compiled(program: str) -> dict:
    done = subprocess.run([sys.executable, "-c", COMMON + program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def one_card() -> dict:
    return compiled(ONE_CARD)


@pytest.fixture(scope="module")
def meshes() -> dict:
    return compiled(MESHES)


@pytest.mark.parametrize("name", ["product", "cublas"])
def test_a_matrix_product_by_a_fusion_or_by_cublas(one_card, name):
    read = one_card[name]
    given, made = 2 * (2048 * 1024 + 1024 * 512), 2 * 2048 * 512
    assert read["cublas"] == (name == "cublas")
    assert read["flops"] == 2 * 2048 * 1024 * 512
    assert read["bytes"] == given + made
    assert (read["arguments"], read["results"]) == (given, made)
    assert read["collectives"] == []


def test_the_body_of_a_loop_is_counted_once_per_iteration(one_card):
    assert one_card["loop"]["flops"] == 7 * 2 * 64 * 128 * 128
    every = [one_card[f"total {depth}"]["bytes"] for depth in (10, 20)]
    array = 4 * 1024 * 1024  # the sum and a slice are read, and the sum is written
    assert every[1] - every[0] == pytest.approx(10 * 3 * array, rel=0.01)


def test_convolutions_and_their_gradients(one_card):
    def inside(size: int) -> int:  # pairs of an output and an input within a kernel's 3 positions
        return 3 * size - 2

    assert one_card["convolution"]["flops"] == 2 * 2 * inside(32) * inside(40) * 64 * 96
    # Forward, and once for each gradient.
    assert one_card["gradients"]["flops"] == 3 * 2 * 2 * 16 * 20 * 9 * 64 * 96


MESHES_READ = [("1x4", 1, 4), ("2x4", 2, 4), ("2x4", 1, 8)]


@pytest.mark.parametrize(("topology", "data", "fsdp"), MESHES_READ)
@pytest.mark.parametrize("depth", [6, 12])
def test_weights_are_gathered_and_gradients_reduced_in_every_layer(meshes, topology, data, fsdp, depth):
    read = meshes[f"{topology} {fsdp} {depth}"]
    weights, rows = depth * 2 * 512 * 2048, 512 // (data * fsdp)
    totals = {}
    for c in read["collectives"]:
        assert c["count"] == depth
        key = c["kind"], c["group"], c["span"]
        totals[key] = totals.get(key, 0) + c["nbytes"]
    expected = {("all-gather", fsdp, fsdp): 2 * 2 * weights, ("reduce-scatter", fsdp, fsdp): 2 * weights}
    if data > 1:  # shards of gradients are summed between the hosts
        expected["all-reduce", data, fsdp + 1] = 2 * weights // fsdp
    assert totals == expected
    assert read["arguments"] == 4 * weights // fsdp + 2 * rows * 512
    assert read["results"] == pytest.approx(4 * weights // fsdp, rel=1e-4)  # and the tuple's pointers
    # Forward, two gradients, and what of the forward pass the last matrix's gradient does not need again.
    assert read["flops"] == (2 + 4 + 1) * rows * weights


@pytest.mark.parametrize(("topology", "data", "fsdp"), MESHES_READ)
def test_a_layer_reads_only_its_slice_of_stacked_weights(meshes, topology, data, fsdp):
    short, long = (meshes[f"{topology} {fsdp} {depth}"]["bytes"] for depth in (6, 12))
    assert long == pytest.approx(2 * short, rel=0.02)


@pytest.mark.parametrize(("topology", "data", "fsdp"), MESHES_READ)
def test_a_sum_and_a_gather_over_all_cards(meshes, topology, data, fsdp):
    count, array = data * fsdp, 4 * 4096 * 1024
    common = {"group": count, "span": count, "count": 1, "channel": ""}
    (one,) = meshes[f"{topology} {fsdp} sum"]["collectives"]
    assert one == {"kind": "all-reduce", "nbytes": array} | common
    (one,) = meshes[f"{topology} {fsdp} whole"]["collectives"]
    assert one == {"kind": "all-gather", "nbytes": 8 * array} | common
    assert meshes[f"{topology} {fsdp} sum"]["arguments"] == 8 // count * array
