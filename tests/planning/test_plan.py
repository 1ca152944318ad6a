"""Plans of a tiny config on virtual CPU devices, and without any compiler."""

import json

import jax
import planned
import pytest
from jax.extend.core import Primitive

from mmjax import config as config_lib
from mmjax.errors import ConfigError
from mmjax.planning import stand_in, table, topology
from mmjax.planning.compilation import compile_step, make_setup
from mmjax.planning.plan import FORMAT, Job, make_plan
from mmjax.training.model_flops import count, forward_flops


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return planned.write_config(tmp_path_factory.mktemp("plan"))


def job(reference, chips="cpu:4", **overrides):
    overrides = {key.replace("__", "."): str(value) for key, value in overrides.items()}
    return Job(reference, overrides, topology.parse(chips))


@pytest.fixture(scope="module")
def plan(reference):
    return make_plan(job(reference, mesh__fsdp=2))


def test_a_plan_is_json_with_its_keys(plan):
    assert json.loads(json.dumps(plan)) == plan
    assert plan["format"] == FORMAT
    keys = {"fits", "chips", "temp_bytes", "argument_bytes", "flops", "model_flops", "collective_bytes"}
    assert keys | {"estimated_cycles", "estimated_seconds", "largest_batch"} <= set(plan)
    assert (plan["fits"], plan["chips"], plan["batch_size"]) == (True, 4, 8)
    assert plan["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1, "sequence": 1}
    # A CPU has no figures to estimate a time by.
    assert (plan["estimated_cycles"], plan["estimated_seconds"], plan["roofline"]) == (None, None, None)
    assert plan["compile_seconds"] > 0


def test_memory_by_kind_adds_up_to_what_the_compiler_is_given(plan):
    kinds = dict(plan["memory"])
    assert kinds.pop("temporaries") == plan["temp_bytes"] > 0
    # Besides these: the step's number and the random key; the compiler drops what the step does not read.
    assert sum(kinds.values()) == pytest.approx(plan["argument_bytes"], abs=64)
    assert kinds["moving_average"] == kinds["parameters"]
    assert kinds["optimizer_state"] == pytest.approx(2 * kinds["parameters"], abs=16)


def test_offloaded_state_is_counted_for_the_host(reference, plan):
    large = {"model__streams__text__encoder__vocab_size": 2**14}  # smaller arrays stay on the chips
    found = make_plan(job(reference, mesh__fsdp=2, optimizer__offload="true", **large))
    both = found["memory"]["optimizer_state"] + found["host_bytes"]
    assert both == pytest.approx(2 * found["memory"]["parameters"], abs=16)
    assert found["host_bytes"] > found["memory"]["optimizer_state"] and plan["host_bytes"] == 0
    assert "in the host's memory for each chip" in table.one(found)
    assert "in the host's memory" not in table.one(plan)


def test_the_step_is_the_one_that_trains(reference, plan):
    """The compiled step takes the state that training makes, and the batch that its pipeline gives."""
    config = config_lib.resolve(reference, {"mesh.fsdp": "2"})
    setup = make_setup(config, stand_in.load(config), jax.devices()[:4])
    compilation = compile_step(setup)
    state = jax.tree.map(
        lambda x: jax.device_put(jax.numpy.zeros(x.shape, x.dtype), x.sharding), setup.abstract
    )
    batch = {name: jax.numpy.zeros(x.shape, x.dtype) for name, x in setup.batch.items()}
    _, metrics = compilation.compiled(
        state, jax.device_put(batch, compilation.compiled.input_shardings[0][1])
    )
    assert {"loss", "contrastive/loss", "grad_norm"} <= set(metrics)
    assert plan["argument_bytes"] == compilation.compiled.memory_analysis().argument_size_in_bytes


def test_gradients_are_summed_over_the_batch_axes(plan):
    """Each chip sends its part of the sum of all gradients, and further sums of losses and statistics."""
    sums = sum(
        c["payload_bytes"] for c in plan["collectives"] if c["kind"] in ("all-reduce", "reduce-scatter")
    )
    assert sums >= 4 * plan["parameters"]
    assert sum(plan["collective_bytes"]["all-reduce"].values()) > 0


def test_one_chip_exchanges_nothing(reference):
    plan = make_plan(job(reference, "cpu:1", dtype="bfloat16"))
    assert plan["collectives"] == [] and plan["collective_bytes"] == {}
    assert "chips exchange nothing" in table.one(plan)


def test_model_flops_are_three_forward_passes_of_the_whole_batch(reference, plan):
    config = config_lib.resolve(reference)
    setups = [
        make_setup(config_lib.resolve(reference, changes), stand_in.load(config), jax.devices()[:1])
        for changes in ({}, {"batch_size": "16"}, {"scan": "true", "remat": "true"})
    ]
    one, two, scanned = map(forward_flops, setups)
    assert plan["model_flops"] == 3 * one == 3 * scanned
    assert 2 * one <= two < 2.2 * one  # the contrastive loss compares all with all
    assert plan["flops"] > plan["model_flops"]  # which leaves out all but the products


def test_products_of_a_traced_function():
    def run(x, w, image, kernel):
        y = jax.lax.scan(lambda c, _: (jax.nn.relu(c @ w), None), x, None, length=7)[0]
        y = jax.checkpoint(lambda y: jax.lax.cond(y[0, 0] > 0, lambda y: y @ w, lambda y: y, y))(y)
        strided = jax.lax.conv_general_dilated(
            image, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y.sum() + strided.sum()

    shapes = [(4, 8), (8, 8), (2, 8, 8, 3), (2, 2, 3, 5)]
    jaxpr = jax.make_jaxpr(run)(*(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes)).jaxpr
    assert count(jaxpr) == 8 * 2 * 4 * 8 * 8 + 2 * (2 * 4 * 4 * 5) * (2 * 2 * 3)


def test_a_kernel_of_cudnn_counts_as_its_two_products():
    kernel = Primitive("dot_product_attention_fwd_wrapper")
    kernel.def_abstract_eval(lambda query, key, value: query)
    query, key = (jax.ShapeDtypeStruct(shape, "bfloat16") for shape in ((2, 64, 4, 32), (2, 48, 4, 32)))
    jaxpr = jax.make_jaxpr(kernel.bind)(query, key, key).jaxpr
    assert count(jaxpr) == 2 * (2 * 4 * 64 * 48 * 32) * 2


def test_losses_that_want_transformed_labels_are_counted(reference):
    """MixUp makes soft labels, on which each class may be a yes or no."""
    mixed = '[{"type": "mixup", "labels": {"colour": 4}, "stream": "image"}]'
    changes = {"data.batch_transforms": mixed, "objectives.colour.multi_label": "true"}
    config = config_lib.resolve(reference, changes)
    assert forward_flops(make_setup(config, stand_in.load(config), jax.devices()[:1])) > 0


def test_without_a_compiler_only_what_the_shapes_say(reference):
    plan = make_plan(job(reference, "h100:4", mesh__fsdp=2))
    assert plan["fits"] is None and plan["temp_bytes"] is None and plan["flops"] is None
    assert plan["argument_bytes"] == sum(plan["memory"].values())
    assert plan["roofline"]["seconds"] == {
        "compute": pytest.approx(plan["model_flops"] / 4 / 989.4e12), "memory": None, "links": None,
    }  # fmt: skip
    assert plan["roofline"]["mfu"] == pytest.approx(1, rel=0.01)
    text = table.one(plan)
    assert "whether it fits is not known" in text and "no compiler for h100 here" in text


def test_batch_per_chip(reference):
    found = Job(reference, {}, topology.parse("cpu:4"), batch_per_chip=6)
    assert found.resolve().batch_size == 24
    assert found.changed({"batch_size": "8"}).resolve().batch_size == 8
    assert found.changed({"remat": "true"}).resolve().batch_size == 24


def test_the_text(plan):
    lines = table.one(plan).splitlines()
    assert "on cpu:4: 4 chips, mesh data=2 fsdp=2" in lines[0]
    assert any(line.startswith("fits: ") for line in lines)
    assert any(line.strip().startswith("parameters") for line in lines)
    assert any("x the model's" in line for line in lines)
    assert any("all-reduce" in line and "along data" in line for line in lines)
    assert len(lines) < 30 and max(map(len, lines)) < 160


def test_several_side_by_side(reference, plan):
    lines = table.several([plan, make_plan(job(reference, "h100:2"))]).splitlines()
    head, of_cpu, of_gpu = (line.split(" | ") for line in (lines[2], lines[4], lines[5]))
    assert [cell.strip() for cell in head[:3]] == ["chips", "mesh", "changed"]  # the rest is the same in both
    assert lines[0].endswith("batch 8")
    assert [cell.strip() for cell in of_cpu[:4]] == ["cpu:4", "data=2 fsdp=2", "mesh.fsdp=2", "yes"]
    assert [cell.strip() for cell in of_gpu[:4]] == ["h100:2", "data=2", "-", "?"]
    assert any("no compiler for h100 here" in line for line in lines)


@pytest.mark.parametrize(
    "text", ["v5e", "v5e:16", "v5e:4x", "tpu:4x4", "cpu:0", "cpu:2x2", "a100:8", "v5e:0x4"]
)
def test_what_is_no_topology(text):
    with pytest.raises(ConfigError, match=f"--topology={text}: expected chips and their arrangement"):
        topology.parse(text)


def test_more_virtual_devices_than_there_are():
    with pytest.raises(ConfigError, match="JAX has started with 8 virtual devices; set XLA_FLAGS"):
        topology.devices(topology.parse("cpu:16"))


def test_what_the_config_gets_wrong_is_told_for_the_chips_that_are_planned_for(reference):
    with pytest.raises(ConfigError, match="mesh: got data=3 .* for 4 devices"):
        make_plan(job(reference, mesh__data=3))
    with pytest.raises(ConfigError, match="batch_size: got 6, expected a multiple of 4"):
        make_plan(job(reference, batch_size=6))
