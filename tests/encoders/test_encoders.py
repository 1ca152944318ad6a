"""What holds for every encoder."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from encoder_cases import BATCH, CASES, build, built, paths, train_step
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.encoders import ENCODERS
from mmjax.errors import ConfigError

every_encoder = pytest.mark.parametrize("name", CASES)


def assert_trees_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_every_encoder_of_the_table_has_a_case():
    assert {spec["type"] for _, spec in CASES.values()} == set(ENCODERS)


@every_encoder
def test_shapes_types_and_missing_rows(name):
    case = built(name)
    features = case.apply(case.variables, case.x, case.mask)
    batch, length, width = features.tokens.shape
    assert batch == BATCH
    assert features.mask.shape == (BATCH, length) and features.mask.dtype == bool
    assert features.pooled.shape == (BATCH, width)
    assert features.tokens.dtype == features.pooled.dtype == jnp.float32
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(features))
    np.testing.assert_array_equal(features.present, case.mask.any(axis=1))
    np.testing.assert_array_equal(features.pooled[-1], 0.0)
    np.testing.assert_array_equal(features.tokens[~features.mask], 0.0)
    assert (np.abs(features.pooled[:-1]).max(axis=1) > 0).all()


@every_encoder
def test_without_a_mask_everything_is_real(name):
    case = built(name)
    features = jax.eval_shape(case.encoder.apply, case.variables, case.x)
    all_true = case.apply(case.variables, case.x, jnp.ones_like(case.mask))
    assert features.tokens.shape == all_true.tokens.shape
    if case.spec.get("pooling") != "eos":  # which says itself what is real
        assert all_true.mask.all()


@every_encoder
def test_content_of_padding_changes_nothing(name):
    """Neither the loss, nor a gradient, nor batch statistics, to the last bit."""
    case = built(name)
    real = case.mask.any(axis=1) if case.kind == "image" else case.mask
    real = real.reshape(*real.shape, *[1] * (case.x.ndim - real.ndim))
    other = jnp.where(real, case.x, jnp.full_like(case.x, 3) if case.kind == "ids" else 1e3)
    assert (other != case.x).any()
    assert_trees_equal(
        case.step(case.variables, case.x, case.mask), case.step(case.variables, other, case.mask)
    )


@pytest.mark.parametrize("name", [name for name, (kind, _) in CASES.items() if kind != "image"])
def test_length_of_padding_changes_nothing(name):
    case = built(name)
    short = case.mask.shape[1] - 1
    rows = case.mask.sum(axis=1) <= short
    features = case.apply(case.variables, case.x, case.mask)
    cut = case.apply(case.variables, case.x[:, :short], case.mask[:, :short])
    length = cut.tokens.shape[1]
    assert not features.mask[rows, length:].any()
    np.testing.assert_array_equal(features.mask[rows, :length], cut.mask[rows])
    np.testing.assert_allclose(features.tokens[rows, :length], cut.tokens[rows], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features.pooled[rows], cut.pooled[rows], rtol=1e-4, atol=1e-5)


@every_encoder
def test_gradients_reach_every_parameter(name):
    case = built(name)
    _, gradients, _ = case.step(case.variables, case.x, case.mask)
    for path, gradient in paths(gradients).items():
        assert np.isfinite(gradient).all(), path
        # A bias of keys shifts all scores of a query alike, which a softmax does not see.
        assert path.endswith("key/bias") or np.abs(gradient).max() > 1e-6, path


@pytest.mark.parametrize(
    "name", [n if n in ENCODERS else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_sharded_over_the_batch_equals_one_device(name):
    case = built(name)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    by_row, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    sharded = case.step(
        jax.device_put(case.variables, everywhere),
        jax.device_put(case.x, by_row),
        jax.device_put(case.mask, by_row),
    )
    assert_trees_close(
        case.step(case.variables, case.x, case.mask), jax.device_get(sharded), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in CASES if n in ENCODERS and hasattr(ENCODERS[n], "remat")])
def test_remat_equals_no_remat(name):
    case = built(name)
    encoder = build(case.spec, remat=True)
    step = jax.jit(lambda *arguments: train_step(encoder, *arguments))
    lowered = step.lower(case.variables, case.x, case.mask)
    assert "optimization_barrier" in lowered.as_text()
    assert_trees_close(
        case.step(case.variables, case.x, case.mask),
        lowered.compile()(case.variables, case.x, case.mask),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", [n for n, (_, s) in CASES.items() if hasattr(ENCODERS[s["type"]], "embed")])
def test_embed_blocks_and_finish_are_the_whole(name):
    """What a fusion that interleaves the blocks of several encoders relies on."""
    case = built(name)

    @jax.jit
    def by_parts(variables, x, mask):
        encoder = case.encoder.bind(variables)
        tokens, token_mask, attention_mask = encoder.embed(x, mask, False)
        tokens = encoder.run(tokens, attention_mask, False, stop=1)
        tokens = encoder.run(tokens, attention_mask, False, start=1)
        return encoder.finish(tokens, token_mask)

    assert_trees_close(
        by_parts(case.variables, case.x, case.mask),
        case.apply(case.variables, case.x, case.mask),
        rtol=1e-4,
        atol=1e-5,
    )


@every_encoder
def test_batch_statistics_move_in_training_only(name):
    case = built(name)
    statistics = case.variables.get("batch_stats", {})
    norms = (case.spec.get("norm"), case.spec.get("image", {}).get("norm"))
    uses_batch_norm = "batch" in norms or case.spec["type"] == "clap_audio"
    assert bool(statistics) == uses_batch_norm
    _, _, moved = case.step(case.variables, case.x, case.mask)
    for path, before in paths(statistics).items():
        assert np.abs(paths(moved["batch_stats"])[path] - before).max() > 1e-3, path
    # Not mutable in evaluation: an attempt to move them would raise.
    jax.eval_shape(case.encoder.apply, case.variables, case.x, case.mask)


@every_encoder
def test_bfloat16_computes_in_it_and_keeps_parameters_float32(name):
    case = built(name)
    encoder = build(case.spec, dtype=jnp.bfloat16)
    features, variables = jax.eval_shape(encoder.init_with_output, jax.random.key(0), case.x, case.mask)
    assert features.tokens.dtype == features.pooled.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


@every_encoder
def test_everything_is_strongly_typed(name):
    """A weak type in the state would compile the training step again."""
    case = built(name)
    made = jax.eval_shape(case.encoder.init_with_output, jax.random.key(0), case.x, case.mask)
    stepped = jax.eval_shape(case.step, case.variables, case.x, case.mask)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((made, stepped)))


@pytest.fixture
def unchecked_signatures():
    """As outside the tests, where nothing checks shapes before an encoder does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@every_encoder
def test_input_of_the_wrong_rank(name, unchecked_signatures):
    case = built(name)
    given = str(list(case.x[0].shape)).replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(
        ConfigError, match=rf"{case.spec['type']}.*got an input of shape {given}, expected \w+"
    ):
        jax.eval_shape(case.encoder.init, jax.random.key(0), case.x[0])


@pytest.mark.parametrize("name", [n for n, (kind, _) in CASES.items() if kind != "image"])
def test_mask_of_another_length(name, unchecked_signatures):
    case = built(name)
    with pytest.raises(ConfigError, match=r"mask: got shape \[8, 2\], expected"):
        jax.eval_shape(case.encoder.init, jax.random.key(0), case.x, case.mask[:, :2])
