import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

from mmjax.errors import ConfigError
from mmjax.parallel import placement
from mmjax.parallel.mesh import make_mesh


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


PARAMS = {
    "image_encoder": {
        "blocks_0": {
            "attention": {
                "query": {"kernel": array(16, 4, 4), "bias": array(4, 4)},
                "key": {"kernel": array(16, 3, 4)},  # 3 heads do not split over 2
                "out": {"kernel": array(4, 4, 16)},
            },
            "mlp": {
                "up": {"kernel": array(16, 64), "bias": array(64)},
                "down": {"kernel": array(64, 16)},
            },
        },
        "scanned": {"mlp": {"up": {"kernel": array(5, 16, 64)}}},
        "position_embedding": array(1, 9, 33),
        "patch": {"kernel": array(3, 3, 3, 64)},
    },
    "scale": array(),
}


@pytest.fixture(scope="module")
def mesh():
    return make_mesh({"data": 2, "fsdp": 2, "tensor": 2, "sequence": 1})


def specs(shardings):
    return {name: s.spec for name, s in placement.named_leaves(shardings)}


def test_table_and_fsdp_fall_back(mesh):
    found = specs(placement.param_shardings(PARAMS, mesh, min_size=64))
    block = "image_encoder/blocks_0"
    assert found[f"{block}/attention/query/kernel"] == P("fsdp", "tensor", None)
    assert found[f"{block}/attention/query/bias"] == P("tensor", None)  # too small for fsdp
    assert found[f"{block}/attention/key/kernel"] == P("fsdp", None, None)
    assert found[f"{block}/attention/out/kernel"] == P("tensor", None, "fsdp")
    assert found[f"{block}/mlp/up/kernel"] == P("fsdp", "tensor")
    assert found[f"{block}/mlp/down/kernel"] == P("tensor", "fsdp")
    assert found["image_encoder/scanned/mlp/up/kernel"] == P(None, "fsdp", "tensor")
    assert found["image_encoder/position_embedding"] == P(None, None, None)  # nothing divides
    assert found["image_encoder/patch/kernel"] == P(None, None, None, "fsdp")
    assert found["scale"] == P()


def test_small_arrays_stay_whole(mesh):
    found = specs(placement.param_shardings(PARAMS, mesh))
    assert not any("fsdp" in spec for spec in found.values())


def test_one_device_splits_nothing():
    mesh = make_mesh({"data": 1, "fsdp": 1, "tensor": 1, "sequence": 1}, jax.devices()[:1])
    shardings = placement.param_shardings(PARAMS, mesh, min_size=1)
    assert all(s.is_fully_replicated for s in jax.tree.leaves(shardings))


def test_words_are_split_over_tensor_or_else_over_fsdp(mesh):
    tables = {
        "text_encoder": {"embedding": {"embedding": array(40, 6)}},
        "other": {"embedding": array(40, 7)},
    }
    found = specs(placement.param_shardings({"text_encoder": tables["text_encoder"]}, mesh, min_size=64))
    assert found["text_encoder/embedding/embedding"] == P("tensor", "fsdp")
    fsdp = make_mesh({"data": 2, "fsdp": 4, "tensor": 1, "sequence": 1})
    found = specs(placement.param_shardings(tables, fsdp, min_size=64))
    assert found["text_encoder/embedding/embedding"] == P("fsdp", None)  # 6 does not divide
    assert found["other/embedding"] == P("fsdp", None)


def test_optimizer_state_follows_parameters(mesh):
    tx = optax.partition(
        {
            "train": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
            "frozen": optax.set_to_zero(),
        },
        {"image_encoder": "train", "scale": "frozen"},
    )
    state = {"step": array(), "params": PARAMS, "opt_state": jax.eval_shape(tx.init, PARAMS), "ema": PARAMS}
    found = specs(placement.state_shardings(state, PARAMS, mesh, min_size=64))
    of_params = specs(placement.param_shardings(PARAMS, mesh, min_size=64))
    for name, spec in of_params.items():
        copies = {key: value for key, value in found.items() if key.endswith(f"/{name}")}
        assert len(copies) == (2 if name == "scale" else 4)  # params, ema, and two moments unless frozen
        assert set(copies.values()) == {spec}
    assert found["step"] == P()


def test_factored_moments_are_replicated(mesh):
    params = {"mlp": {"up": {"kernel": array(128, 256)}}}
    state = jax.eval_shape(optax.scale_by_factored_rms().init, params)
    found = specs(placement.state_shardings(state, params, mesh, min_size=64))
    assert found["v_row/mlp/up/kernel"] == P()


def test_largest_replicated_names_what_fsdp_left(mesh):
    shardings = placement.param_shardings(PARAMS, mesh, min_size=64)
    report = placement.largest_replicated(PARAMS, shardings, count=2)
    assert report == [("image_encoder/position_embedding", 9 * 33 * 4), ("scale", 4)]


def test_a_large_model_may_not_stay_whole(mesh):
    split = placement.param_shardings(PARAMS, mesh, min_size=64)
    placement.check_replicated(PARAMS, split, 0.2, large_model=0)
    whole = placement.param_shardings(PARAMS, mesh, min_size=2**16)  # but for what `tensor` splits
    with pytest.raises(ConfigError) as error:
        placement.check_replicated(PARAMS, whole, 0.1, large_model=0)
    message = str(error.value)
    total = sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    share = sum(size for _, size in placement.largest_replicated(PARAMS, whole, None)) / (4 * total)
    assert message.startswith(f"mesh: every device holds {share:.0%} of the parameters whole")
    assert "the largest: image_encoder/patch/kernel (0.0 MiB), image_encoder/position_embedding" in message
    placement.check_replicated(PARAMS, whole, share + 1e-6, large_model=0)
    placement.check_replicated(PARAMS, whole, 0.0)  # a small model
    data = make_mesh({"data": 8, "fsdp": 1, "tensor": 1, "sequence": 1})
    everywhere = placement.param_shardings(PARAMS, data)
    placement.check_replicated(PARAMS, everywhere, 0.0, large_model=0)  # nothing was to be split
