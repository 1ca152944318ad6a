"""Low-rank factors: the formula, what moves, where they live, how a run with them ends and is used."""

import contextlib
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import toy
from flax.traverse_util import flatten_dict, unflatten_dict

import mmjax
from mmjax import config as config_lib
from mmjax import interop
from mmjax.errors import ConfigError
from mmjax.interop.convert import convert
from mmjax.layers.stacking import stack_blocks
from mmjax.model import assemble, init_model
from mmjax.parallel.placement import named_leaves
from mmjax.training import loop, lora
from mmjax.training import optimizer as optimizer_lib
from mmjax.training.checkpoints import restore_params
from mmjax.training.evaluate import evaluate_checkpoint

SECTION = {"rank": 2, "alpha": 6.0, "patterns": [".*"]}
SMALL = {"variant": "custom", "width": 16, "depth": 2, "heads": 2, "max_length": 8}
BERT = {"type": "text_transformer", "norm_position": "post", "segments": 1, **SMALL}
ATTENTION = "text_encoder/.*/(query|value|out)/kernel"


def random_like(tree, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape), np.float32), tree)


@pytest.mark.parametrize(
    ("name", "shape", "matrix"),
    [
        ("head/kernel", (6, 5), (6, 5)),
        ("encoder/attention/query/kernel", (6, 2, 5), (6, 10)),
        ("encoder/attention/out/kernel", (2, 3, 7), (6, 7)),
        ("encoder/attention/pool/query/kernel", (6, 4), (6, 4)),  # without heads
        ("encoder/patch/kernel", (2, 2, 3, 5), (12, 5)),
        ("fusion/image_factors/kernel", (6, 2, 5), (6, 10)),
    ],
)
@pytest.mark.parametrize("layers", [0, 3])
def test_a_kernel_and_its_factors_are_the_matrices_of_the_paper(name, shape, matrix, layers):
    if layers:
        name, shape = f"encoder/blocks/{name}", (layers, *shape)
    kernel = random_like(jnp.zeros(shape))
    base = unflatten_dict({name: kernel, "other/bias": np.ones(3, np.float32)}, sep="/")
    fresh = lora._fresh(jax.random.key(0), name, shape, 2)
    assert not fresh["b"].any() and fresh["a"].all()
    factors = random_like(fresh, 1)
    merged = lora.merge({**base, "lora": unflatten_dict({name: factors}, sep="/")}, SECTION)
    assert merged.keys() == base.keys()
    np.testing.assert_array_equal(merged["other"]["bias"], 1.0)
    found = flatten_dict(merged, sep="/")[name]
    for i in range(layers or 1):
        w, a, b, after = (x[i] if layers else x for x in (kernel, factors["a"], factors["b"], found))
        by_hand = w.reshape(matrix) + 6.0 / 2 * a.reshape(-1, 2) @ b.reshape(2, -1)
        np.testing.assert_allclose(np.reshape(after, matrix), by_hand, rtol=1e-5, atol=1e-5)


def test_the_scale_is_one_without_alpha():
    base = {"head": {"kernel": np.zeros((3, 3), np.float32)}}
    factors = {"head": {"kernel": {"a": np.ones((3, 2), np.float32), "b": np.ones((2, 3), np.float32)}}}
    merged = lora.merge({**base, "lora": factors}, {**SECTION, "alpha": None})
    np.testing.assert_array_equal(merged["head"]["kernel"], 2.0)
    assert lora.merge(base, {**SECTION, "rank": 0}) == base  # a run without factors


@pytest.fixture(scope="module")
def text():
    """(scan -> model of one stream, its batch, variables of the unrolled one)."""
    section = {
        "streams": {"text": {"kind": "text", "encoder": {**BERT, "vocab_size": 11}}},
        "heads": {"text_embedding": {"type": "projection", "reads": "text", "width": 8}},
    }
    section = interop.pretrained.normalise_section(section)
    spec = {"text": ((8,), "int32"), "text_mask": ((8,), "bool")}
    models = {scan: assemble(section, scan=scan) for scan in (False, True)}
    batch = {"text": np.arange(24, dtype=np.int32).reshape(3, 8) % 11, "text_mask": np.ones((3, 8), bool)}
    return models, batch, init_model(models[False], spec, jax.random.key(0))


def test_scanned_layers_compute_what_unrolled_ones_do(text):
    models, batch, variables = text
    base = variables["params"]
    section = SECTION | {
        "patterns": [ATTENTION, "text_encoder/.*/(up|down)/kernel", "text_embedding_head/.*"]
    }
    outputs, start = {}, models[False].apply(variables, batch)["text_embedding"]
    unrolled = lora.adapt(models[False], section, base)
    assert len(unrolled.kernels) == 2 * 5 + 1
    fresh = jax.eval_shape(functools.partial(unrolled.init, {"params": jax.random.key(0)}), batch)["params"]
    params = {**base, "lora": random_like(fresh["lora"])}
    for scan, model in models.items():
        given, plain = (stack_blocks(p) if scan else p for p in (params, base))
        adapted = lora.adapt(model, section, plain)
        same = jax.eval_shape(functools.partial(adapted.init, {"params": jax.random.key(0)}), batch)["params"]
        assert jax.tree.map(jnp.shape, same) == jax.tree.map(jnp.shape, given)
        outputs[scan] = adapted.apply({"params": given}, batch)["text_embedding"]
        merged = model.apply({"params": lora.merge(given, section)}, batch)["text_embedding"]
        np.testing.assert_allclose(outputs[scan], merged, rtol=1e-6)
    np.testing.assert_allclose(outputs[True], outputs[False], atol=1e-6)
    assert np.abs(outputs[False] - start).max() > 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"patterns": ["txt_encoder/.*"]},
            r"lora.patterns: 'txt_encoder/\.\*' matches no kernel; .*near: text_encoder",
        ),
        ({"patterns": [".*/bias"]}, r"lora.patterns: '\.\*/bias' matches no kernel"),
        (
            {"rank": 9},
            "lora.rank: got 9, but text_embedding_head/.*kernel is a matrix of 16 by 8; expected 8 or less",
        ),
    ],
)
def test_what_does_not_fit_the_model(text, changes, message):
    models, _, variables = text
    with pytest.raises(ConfigError, match=message):
        lora.adapt(models[False], SECTION | changes, variables["params"])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"rank": 2}, "lora.patterns: is empty; name the kernels"),
        ({"patterns": [".*"]}, "lora.rank: is 0, but lora.patterns names kernels"),
        ({"rank": -1}, "lora.rank: got -1, expected 0"),
        ({"rank": 2, "patterns": ["("]}, r"'\(' is not a regular expression"),
        ({"rank": 2, "patterns": [".*"], "alpha": 0.0}, "lora.alpha: got 0.0, expected more than 0"),
    ],
)
def test_what_a_config_may_not_say(plain, section, message):
    with pytest.raises(ConfigError, match=message):
        tiny.resolved(plain, lora=section)


def test_factors_learn_at_the_pace_of_their_layer(text):
    models, batch, variables = text
    adapted = lora.adapt(models[False], SECTION | {"patterns": [ATTENTION]}, variables["params"])
    params = jax.eval_shape(functools.partial(adapted.init, {"params": jax.random.key(0)}), batch)["params"]
    kernel = "text_encoder/blocks_0/attention/query/kernel"
    section = toy.OPTIMIZERS["sgd"] | {
        "layer_decay": 0.5,
        "multipliers": [{"pattern": "lora/.*/b", "factor": 16.0}],
    }
    for tree, stacked in ((params, False), (stack_blocks(random_like(params)), True)):
        factors = dict(named_leaves(optimizer_lib.learning_rate_factors(section, tree)))
        path = kernel.replace("blocks_0", "blocks") if stacked else kernel
        a, b = (np.ravel(factors[f"lora/{path}/{name}"])[0] for name in "ab")
        assert (a, b) == (0.25, 0.25 * 16)
    decayed = dict(named_leaves(optimizer_lib.decayed(params)))
    assert decayed[f"lora/{kernel}/a"] and decayed[f"lora/{kernel}/b"]
    with pytest.raises(ConfigError, match=r"nothing would be trained; '\(\?!lora/\)\.\*' leaves out"):
        optimizer_lib.trainable(section | {"frozen": [".*"]}, params)
    moves = optimizer_lib.trainable(section | {"frozen": ["(?!lora/).*"]}, params)
    assert {name.split("/")[0] for name, moving in named_leaves(moves) if moving} == {"lora"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run whose text encoder but for its norms, and whose image encoder, are frozen."""
    root = tmp_path_factory.mktemp("lora")
    plain = tiny.without_fusion(tiny.plain_config(tiny.write_data(root / "images"), root / "data"))
    plain["model"]["streams"]["text"]["encoder"] = {**BERT, "dropout": 0.1}
    plain["optimizer"]["frozen"] = ["text_encoder/(?!.*norm/).*", "image_encoder/.*"]
    plain |= {
        "total_steps": 5,
        "checkpoint": {"every_steps": 2},
        "log": {"every_steps": 5, "tensorboard": False},
    }
    return plain


@pytest.fixture(scope="module")
def config(plain):
    return tiny.resolved(plain, lora={"rank": 2, "alpha": 8.0, "patterns": [ATTENTION]})


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The directory of a run, and the first and last arrays of its state."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    with tiny.on_devices(1):
        first = jax.device_get(loop.initial_state(tiny.make_setup(config)))
        loop.train(config, workdir)
    return workdir, first, tiny.saved(workdir)[1]


def test_only_factors_and_what_is_not_frozen_move_and_have_state(whole):
    workdir, first, last = whole
    before = dict(named_leaves(first.params))
    params = {name.removeprefix("params/"): x for name, x in last.items() if name.startswith("params/")}
    assert params.keys() == before.keys()
    factors = {name for name in params if name.startswith("lora/")}
    assert len(factors) == 2 * 3 * 2 and all(name.startswith("lora/text_encoder/blocks_") for name in factors)
    norms = {name for name in params if name.startswith("text_encoder/") and "norm/" in name}
    heads = {name for name in params if "_head/" in name}
    assert norms and heads
    for name in params:
        moved = params[name].tobytes() != before[name].tobytes()
        assert moved == (name in factors | norms | heads), name
    assert not any(before[name].any() for name in factors if name.endswith("/b"))

    def having(where):
        return {name for name in params if any(x.endswith(f"{where}/{name}") for x in last)}

    moving = factors | norms | heads
    assert {name for name in params if f"ema/{name}" in last} == moving
    assert having("mu") == having("nu") == moving
    result = json.loads((workdir / "result.json").read_text())
    assert result["parameters"] == sum(x.size for x in params.values())
    assert result["trained_parameters"] == sum(params[name].size for name in moving)


def test_training_starts_from_what_the_model_was(plain, config, whole):
    _, first, _ = whole
    with tiny.on_devices(1):
        setup, without = tiny.make_setup(config), tiny.make_setup(tiny.resolved(plain))
    batch = next(setup.pipeline.batches(0))
    params = dict(first.params)
    variables = {"params": params, **first.model_state}
    found = jax.jit(setup.model.apply)(variables, batch)
    params = {name: tree for name, tree in params.items() if name != "lora"}
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, without.abstract.params)
    expected = jax.jit(without.model.apply)({**variables, "params": params}, batch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_run_that_was_killed_ends_in_the_same_bits(config, whole, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill_at_4(self, step, values, add=loop.FiniteCheck.add):
        if step == 4:
            raise Killed
        add(self, step, values)

    with tiny.on_devices(1):
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(loop.FiniteCheck, "add", kill_at_4)
            loop.train(config, tmp_path / "run")
        assert tiny.saved(tmp_path / "run")[0] == 2
        loop.train(config, tmp_path / "run")
    assert tiny.differing(tiny.saved(tmp_path / "run")[1], whole[2]) == []


def test_what_a_run_gives_is_what_its_merged_weights_give(config, whole, tmp_path):
    """`load` (predict, embed, search), `eval`, `convert`, and a run that begins from this one."""
    workdir, *_ = whole
    run = mmjax.load(workdir)
    assert "lora" not in run.variables["params"]
    with tiny.on_devices(1):
        setup = tiny.make_setup(config)
        _, metrics = evaluate_checkpoint(config_lib.resolve(str(workdir / "config.json")), workdir)
    assert metrics == json.loads((workdir / "result.json").read_text())["metrics"]

    _, saved = restore_params(workdir / "checkpoints")
    params = dict(named_leaves(saved["params"])) | dict(named_leaves(saved["ema"]))
    batch = run.first_batch("test")
    trained = {"params": unflatten_dict(params, sep="/"), **saved["model_state"]}
    expected = jax.jit(setup.model.apply)(trained, batch)
    found = jax.jit(run.model.apply)(run.variables, batch)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)

    convert(workdir, tmp_path / "bert", stream="text")
    model, variables, _ = interop.from_pretrained(tmp_path / "bert")
    tokens = model.apply(variables, {name: batch[name] for name in ("text", "text_mask")})["text/tokens"]
    real = batch["text_mask"]
    np.testing.assert_allclose(np.asarray(tokens)[real], np.asarray(expected["text/tokens"])[real], atol=1e-5)

    again = config.copy_and_resolve_references()
    again.init.run = str(workdir)
    with tiny.on_devices(1):
        begun = loop.initial_state(tiny.make_setup(again))
    starts = dict(named_leaves(begun.params))
    for name, value in named_leaves(run.variables["params"]):
        np.testing.assert_array_equal(starts[name], value, err_msg=name)
    assert not any(x.any() for name, x in starts.items() if name.endswith("/b"))


def test_eight_devices_give_the_losses_and_gradients_of_one(plain, config):
    """With factors split over `tensor` where their kernels are, and microbatches."""
    losses, states = [], []
    for mesh, devices in (({}, 1), ({"data": 2, "fsdp": 2, "tensor": 2}, 8)):
        changed = tiny.resolved(tiny.without_chance(plain), lora=config_lib.to_dict(config.lora))
        changed.mesh.update(mesh)
        changed.optimizer.method = {"type": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
        changed.optimizer.accumulate_steps = 2 if devices == 8 else 1
        with tiny.on_devices(devices):
            setup = tiny.make_setup(changed)
            state, step = loop.initial_state(setup), setup.make_train_step()
            for batch, _ in zip(setup.pipeline.batches(0), range(3), strict=False):
                state, metrics = step(state, batch)
                losses.append(float(metrics["loss"][0]))
        if devices == 8:
            spec = {name: x.sharding.spec for name, x in named_leaves(state.params)}
            path = "text_encoder/blocks_0/attention/{}/kernel"
            for layer, factor in (("query", "b"), ("out", "a")):
                kernel, split = path.format(layer), spec[f"lora/{path.format(layer)}/{factor}"]
                assert split.index("tensor") == spec[kernel].index("tensor")
        states.append(jax.device_get(state.params))
    np.testing.assert_allclose(losses[3:], losses[:3], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *states)
