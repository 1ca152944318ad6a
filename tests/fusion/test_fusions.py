"""What holds for every fusion of the table."""

import itertools

import fusion_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import ConfigError
from mmjax.fusion import FUSIONS
from mmjax.fusion.common import stream_tokens
from mmjax.parallel import placement
from mmjax.types import Features

SUBSETS = [s for n in (1, 2, 3) for s in itertools.combinations(cases.ALL, n)]
# One stream alone, and all of them; the rest takes its time.
QUICK = (("text",), cases.ALL)

every_fusion = pytest.mark.parametrize("name", FUSIONS)


def assert_close(a, b, **tolerances):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerances), a, b)


@every_fusion
@pytest.mark.parametrize(
    "streams", [s if s in QUICK else pytest.param(s, marks=pytest.mark.slow) for s in SUBSETS], ids="+".join
)
def test_shapes_for_any_number_of_streams(name, streams):
    given = cases.features(streams)
    fused = jax.eval_shape(cases.small(name, streams).init_with_output, jax.random.key(0), given)[0]
    length = cases.OWN_TOKENS.get(name, 0) + sum(cases.SIZES[s][0] for s in streams)
    assert fused.tokens.shape == (8, length, 8)
    assert fused.mask.shape == (8, length)
    assert fused.pooled.shape == (8, 8)


@every_fusion
def test_the_mask_is_that_of_the_streams_and_what_it_hides_is_zeros(name):
    given = cases.features()
    fused = cases.apply(name, given)
    theirs = np.concatenate([f.mask for f in given.values()], axis=1)
    own = np.repeat(theirs.any(axis=1, keepdims=True), cases.OWN_TOKENS.get(name, 0), axis=1)
    np.testing.assert_array_equal(fused.mask, np.concatenate([own, theirs], axis=1))
    tokens, mask = np.asarray(fused.tokens), np.asarray(fused.mask)
    assert not tokens[~mask].any()
    assert np.abs(tokens[mask]).max(axis=1).min() > 0
    nothing = 4
    assert not fused.pooled[nothing].any()
    assert np.abs(np.delete(fused.pooled, nothing, axis=0)).max(axis=1).min() > 0


@every_fusion
def test_what_is_masked_changes_nothing_even_nan(name):
    given, variables = cases.features(), cases.variables(name)
    spoilt = {
        stream: Features(
            tokens=jnp.where(f.mask[:, :, None], f.tokens, jnp.nan),
            mask=f.mask,
            pooled=jnp.where(f.present[:, None], f.pooled, jnp.nan),
        )
        for stream, f in given.items()
    }
    with_nan = cases.step(name)(variables, spoilt)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(with_nan))
    assert_close(with_nan, cases.step(name)(variables, given), rtol=0)


@every_fusion
def test_more_padding_changes_nothing(name):
    given = cases.features()
    text = given["text"]
    longer = Features(
        tokens=jnp.pad(text.tokens, ((0, 0), (0, 2), (0, 0)), constant_values=7.0),
        mask=jnp.pad(text.mask, ((0, 0), (0, 2))),
        pooled=text.pooled,
    )
    expected = cases.apply(name, given)
    fused = cases.apply(name, given | {"text": longer})
    np.testing.assert_allclose(fused.pooled, expected.pooled, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fused.tokens[:, :-2], expected.tokens, rtol=1e-5, atol=1e-6)


@every_fusion
def test_a_row_with_one_stream_depends_on_it_alone(name):
    given, other = cases.features(), cases.features(seed=5)
    fused, changed = cases.apply(name, given), cases.apply(name, other | {"text": given["text"]})
    text_only, image_only, full = 2, 3, 5
    np.testing.assert_array_equal(changed.pooled[text_only], fused.pooled[text_only])
    np.testing.assert_array_equal(changed.tokens[text_only], fused.tokens[text_only])
    for row in (image_only, full):
        assert np.abs(changed.pooled[row] - fused.pooled[row]).max() > 1e-3


@every_fusion
def test_the_fused_vector_trains_every_parameter(name):  # but see `cases.TOKENS_TOO`
    gradient = cases.step(name)(cases.variables(name), cases.features())[1]
    for path, leaf in placement.named_leaves(gradient):
        assert np.abs(leaf).max() > 0, path


def rename(tree, old, new):
    """A dictionary of dictionaries in whose keys `old` is `new`."""
    is_dict = isinstance(tree, dict)
    return {k.replace(old, new): rename(v, old, new) for k, v in tree.items()} if is_dict else tree


# The others have one matrix over the streams in order.
@pytest.mark.parametrize("name", [name for name in FUSIONS if name not in ("gated", "tensor")])
def test_the_order_of_the_streams_does_not_matter(name):
    given = cases.features()
    renamed = {key.replace("audio", "zebra"): value for key, value in given.items()}
    variables = rename(cases.variables(name), "audio", "zebra")
    fused, expected = jax.jit(cases.small(name).apply)(variables, renamed), cases.apply(name, given)
    np.testing.assert_allclose(fused.pooled, expected.pooled, rtol=1e-4, atol=1e-5)
    for stream in ("image", "text"):
        turned = stream_tokens(renamed | {"fused": fused}, stream)
        tokens = stream_tokens(given | {"fused": expected}, stream)
        np.testing.assert_allclose(turned, tokens, rtol=1e-4, atol=1e-5)


# `concat` has a vector for what is missing, and the others have one matrix over all streams.
@pytest.mark.parametrize("name", [name for name in FUSIONS if name not in ("concat", "gated", "tensor")])
def test_a_stream_that_is_missing_everywhere_is_as_if_it_were_not_there(name):
    def without_audio(tree):
        is_dict = isinstance(tree, dict)
        return {k: without_audio(v) for k, v in tree.items() if "audio" not in k} if is_dict else tree

    given = cases.features()
    hidden = given["audio"].replace(mask=jnp.zeros_like(given["audio"].mask))
    fused = cases.apply(name, given | {"audio": hidden})
    variables, rest = without_audio(cases.variables(name)), {s: given[s] for s in ("image", "text")}
    expected = jax.jit(cases.small(name).apply)(variables, rest)
    np.testing.assert_allclose(fused.pooled, expected.pooled, rtol=1e-5, atol=1e-6)
    for stream in rest:
        tokens = stream_tokens(rest | {"fused": expected}, stream)
        shown = stream_tokens(given | {"fused": fused}, stream)
        np.testing.assert_allclose(shown, tokens, rtol=1e-5, atol=1e-6)


@every_fusion
def test_the_order_of_the_dictionary_does_not_matter(name):
    fusion, given, variables = cases.small(name), cases.features(), cases.variables(name)

    @jax.jit  # would sort a dictionary, so it is made inside
    def apply_turned(variables, *values):
        return fusion.apply(variables, dict(reversed(dict(zip(given, values, strict=True)).items())))

    assert_close(apply_turned(variables, *given.values()), cases.apply(name, given), rtol=1e-5, atol=1e-6)


@every_fusion
def test_sharded_over_eight_devices_equals_one(name):
    given, variables = cases.features(), cases.variables(name)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    placed = jax.device_put(given, NamedSharding(mesh, PartitionSpec("data")))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    assert len(placed["text"].tokens.sharding.device_set) == 8
    on_eight, on_one = cases.step(name)(replicated, placed), cases.step(name)(variables, given)
    assert_close(on_eight, on_one, rtol=2e-5, atol=2e-5)


@every_fusion
def test_bfloat16_computes_with_float32_parameters(name):
    fusion, given = cases.small(name, dtype=jnp.bfloat16), cases.features()
    made = jax.eval_shape(fusion.init, jax.random.key(1), given)
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}
    fused = jax.jit(fusion.apply)(cases.variables(name), given)
    assert fused.tokens.dtype == fused.pooled.dtype == jnp.bfloat16
    np.testing.assert_allclose(fused.pooled.astype(jnp.float32), cases.apply(name, given).pooled, atol=0.05)


@every_fusion
def test_no_stream_is_an_error(name):
    with pytest.raises(ConfigError, match="model.fusion: got no streams"):
        cases.small(name).init(jax.random.key(0), {})
