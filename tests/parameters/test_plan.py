"""The plan of a model's parameters: what it says of each, and what is read from it."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from etils import epath
from jax.sharding import PartitionSpec

from genmask_jax.config import LoopConfig, ObjectiveConfig
from genmask_jax.instruction import factory
from genmask_jax.models.vae import VAEConfig
from genmask_jax.parameters.names import is_adapter, shapes_of
from genmask_jax.parameters.plan import ParameterPlan, Role, Source
from genmask_jax.parameters.rules import TEXT_PROJECTION, Sources, Weights, make_plan
from genmask_jax.parameters.table import format_plan
from genmask_jax.sharding import one_device
from genmask_jax.system import abstract_networks
from genmask_jax.training.optimizer import make_optimizer
from genmask_jax.training.state import make_init
from genmask_jax.utils.errors import UserError
from tests.conftest import micro_config
from tests.instruction.qwen.test_in_the_system import qwen_config

VAE = VAEConfig(8, 8, 4, (1,), 1, 4)


def networks_of(config, **sources):
    encoder = factory.build(config.instruction, "", ["the red star on the left"])
    return abstract_networks(config, VAE, encoder, sources=Sources(**sources))


def with_adapters(config, rank=2):
    return dataclasses.replace(config, init="/base", model=dataclasses.replace(config.model, lora_rank=rank))


def weights_of(networks, source, but="-"):
    """What a run of these networks, or an import, holds."""
    shapes = shapes_of(networks.abstract_params())
    kept = {n: s for n, s in shapes.items() if but not in n and not is_adapter(n)}
    if source is Source.IMPORT:
        kept = {n: s for n, s in kept.items() if n.startswith("dit.")}
    return Weights(path=epath.Path("/weights"), source=source, shapes=kept)


def said(plan: ParameterPlan, *parts):
    """The different (role, source, origin, optimiser) of the parameters whose names hold one of the parts."""
    found = [one for one in plan if any(part in one.name for part in parts)]
    assert found, parts
    return {(str(one.role), str(one.source), one.origin, one.optimizer) for one in found}


def test_a_fresh_run_trains_all_but_the_vae():
    plan = networks_of(micro_config("")).plan
    assert said(plan, "vae.") == {("frozen", "run", "vae", "")}
    assert said(plan, "attn1.to_q.kernel", "mlp.linear_1.kernel") == {("trained", "fresh", "", "muon")}
    assert said(plan, "to_q.bias", "dit.proj_out.", "instruction.embedding") == {
        ("trained", "fresh", "", "adam")
    }
    assert {one.lr_scale for one in plan if one.name.startswith("instruction.")} == {0.1}
    assert {one.decayed for one in plan if one.name.endswith("proj_out.kernel")} == {True}
    assert not any(one.decayed for one in plan if one.name.endswith(("bias", "scale", "embedding")))


def test_imported_weights_give_the_dit_and_a_run_its_encoder_too():
    config = micro_config("")
    base = networks_of(config)
    plan = networks_of(config, init=weights_of(base, Source.IMPORT), vae=Source.IMPORT).plan
    assert said(plan, "dit.blocks.") >= {("trained", "import", "init", "muon")}
    assert {source for _, source, _, _ in said(plan, "instruction.")} == {"fresh"}
    plan = networks_of(config, init=weights_of(base, Source.RUN)).plan
    assert {source for _, source, _, _ in said(plan, "dit.", "instruction.")} == {"run"}
    other = weights_of(base, Source.IMPORT, but="attn2.to_q")
    with pytest.raises(UserError, match=r"/weights: .* another model: dit.blocks.attn2.to_q.bias is absent"):
        networks_of(config, init=other)


def test_beside_adapters_what_the_weights_hold_is_frozen():
    config = micro_config("")
    base = weights_of(networks_of(config), Source.IMPORT, but=TEXT_PROJECTION)
    plan = networks_of(with_adapters(config), init=base).plan
    assert said(plan, "dit.blocks.attn1.to_q.kernel") == {("adapted", "base", "init", "")}
    assert said(plan, "dit.blocks.attn1.to_q.bias", "dit.proj_out") == {("frozen", "base", "init", "")}
    assert said(plan, ".lora.", TEXT_PROJECTION) == {("trained", "fresh", "", "adam")}
    assert said(plan, "instruction.embedding") == {("trained", "fresh", "", "adam")}


def test_of_qwen_the_last_layers_or_the_adapters_are_trained():
    plan = networks_of(qwen_config("", train_layers=1)).plan
    assert said(plan, "instruction.text.blocks.q_proj") == {("frozen", "fresh", "instruction", "")}
    assert {role for role, *_ in said(plan, "instruction.text.top_blocks.")} == {"trained"}
    plan = networks_of(qwen_config("", lora_rank=2)).plan
    assert {role for role, *_ in said(plan, "q_proj.kernel")} == {"adapted"}
    assert {role for role, *_ in said(plan, "q_proj.lora.")} == {"trained"}


def test_a_resumed_run_takes_what_it_trains_from_its_checkpoint():
    config = micro_config("")
    base = weights_of(networks_of(config), Source.RUN)
    plan = networks_of(with_adapters(config), init=base, restored=True).plan
    assert {one.source for one in plan if one.role is Role.TRAINED} == {Source.RUN}
    assert {one.source for one in plan if one.role is Role.ADAPTED} == {Source.BASE}


def test_plans_of_one_shape_are_equal_wherever_the_weights_come_from():
    """So that they share compiled programs."""
    config = micro_config("")
    one = networks_of(config)
    other = networks_of(config, init=weights_of(one, Source.RUN), vae=Source.IMPORT)
    assert one.plan == other.plan
    assert hash(one.plan) == hash(other.plan)
    assert one.plan != networks_of(with_adapters(config), init=weights_of(one, Source.RUN)).plan


def test_the_dtypes_are_the_models():
    config = dataclasses.replace(micro_config(""), compute_dtype="bfloat16")
    plan = networks_of(with_adapters(config), init=weights_of(networks_of(config), Source.RUN)).plan
    dtypes = {one.name: (str(one.dtype), str(one.compute_dtype)) for one in plan}
    assert dtypes["dit.blocks.attn1.to_q.kernel"] == ("bfloat16", "bfloat16")
    assert dtypes["dit.blocks.attn1.to_q.lora.lora_a"] == ("float32", "bfloat16")
    assert dtypes["dit.blocks.attn1.norm_q.scale"] == ("float32", "float32")
    assert dtypes["dit.time_proj.kernel"] == ("float32", "float32")
    assert dtypes["vae.post_quant_conv.kernel"] == ("float32", "bfloat16")


def test_what_belongs_to_a_parameter_lies_where_it_does_and_all_else_everywhere():
    params = {"dit": {"blocks": {"to_q": {"kernel": jnp.ones((2, 4, 8))}}}}
    plan = make_plan(
        {"dit.blocks.to_q.kernel": params["dit"]["blocks"]["to_q"]["kernel"]},
        one_device(),
        trained=("dit",),
        optimizer="muon",
    )
    spec = PartitionSpec(None, "fsdp", "tensor")
    plan = dataclasses.replace(plan, parameters=(dataclasses.replace(plan.parameters[0], spec=spec),))
    tx = make_optimizer(micro_config("").optimizer, LoopConfig(), plan)
    state = jax.eval_shape(make_init(lambda key: params, tx, ("loss",)), jax.random.key(0))
    specs = jax.tree.map(lambda x: x.spec, plan.shardings(state))
    assert specs.params == specs.ema_params == {"dit": {"blocks": {"to_q": {"kernel": spec}}}}
    assert specs.step == specs.metrics["loss"] == PartitionSpec()
    shapes = [x.shape for x in jax.tree.leaves(state.opt_state)]
    expected = [spec if shape == (2, 4, 8) else PartitionSpec() for shape in shapes]
    assert expected.count(spec) == 1  # Muon's momentum
    assert jax.tree.leaves(specs.opt_state, is_leaf=lambda x: isinstance(x, PartitionSpec)) == expected


def test_the_table_has_a_line_for_what_is_treated_alike_and_the_totals():
    config = micro_config("")
    networks = networks_of(with_adapters(config), init=weights_of(networks_of(config), Source.RUN))
    lines = format_plan(networks.plan).splitlines()
    (line,) = (line for line in lines if "attn1,attn2" in line and "kernel" in line)
    assert line.split("  ")[0] == "dit.blocks.{attn1,attn2}.{to_k,to_out,to_q,to_v}.kernel"
    assert "8 x [2, 24, 24]" in line
    assert "adapted  base (init)" in line
    assert len(lines) < 30
    sizes = {role: sum(x.size for x in found) for role, found in by_role(networks).items()}
    for role, size in sizes.items():
        assert any(line.startswith(f"{role}: {size / 1e6:,.3f} million") for line in lines), role


def by_role(networks):
    shapes = {one.name: jax.ShapeDtypeStruct(one.shape, one.dtype) for one in networks.plan}
    return {role: [shapes[one.name] for one in networks.plan if one.role is role] for role in Role}


def test_parts_of_an_objective_that_the_weights_lack_start_afresh_and_those_it_lacks_are_left_out():
    usual = micro_config("")
    objective = ObjectiveConfig(clean_frame="learned", mask_loss="linear_cross_entropy")
    other = dataclasses.replace(usual, objective=objective)
    plan = networks_of(other, init=weights_of(networks_of(usual), Source.RUN)).plan
    assert said(plan, "clean_embedding", "mask_readout") == {("trained", "fresh", "", "adam")}
    assert said(plan, "dit.proj_out") == {("trained", "run", "init", "adam")}
    plan = networks_of(usual, init=weights_of(networks_of(other), Source.RUN)).plan
    assert said(plan, "dit.proj_out") == {("trained", "run", "init", "adam")}
