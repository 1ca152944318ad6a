"""Modality dropout: what it hides, what it leaves, and from whom."""

import fusion_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import components
from mmjax.encoders.cnn import CNN
from mmjax.encoders.vit import ViT
from mmjax.errors import ConfigError
from mmjax.fusion.bottleneck import Bottleneck
from mmjax.fusion.concat import Concat
from mmjax.fusion.modality_dropout import ModalityDropout, keep_some
from mmjax.model import Model

PRESENT = jnp.array([[True, True], [True, False], [False, False]])


def test_streams_are_dropped_with_their_rates_and_never_all():
    present = jnp.repeat(PRESENT, 20_000, axis=0)
    kept = np.asarray(keep_some(jax.random.key(0), present, jnp.array([0.5, 0.2]))).reshape(3, -1, 2)
    both, first, nothing = kept
    assert both.any(axis=1).all()
    np.testing.assert_array_equal(first, np.broadcast_to(PRESENT[1], first.shape))
    assert not nothing.any()
    # Dropped alone 0.5 * 0.8 and 0.5 * 0.2; both with 0.1, of which either stays with a half.
    np.testing.assert_allclose(1 - both.mean(axis=0), [0.5 * 0.8 + 0.05, 0.5 * 0.2 + 0.05], atol=0.015)


def test_with_a_rate_of_one_a_single_stream_stays():
    kept = keep_some(jax.random.key(0), jnp.ones((3000, 3), bool), jnp.ones(3))
    assert (kept.sum(axis=1) == 1).all()
    np.testing.assert_allclose(kept.mean(axis=0), [1 / 3] * 3, atol=0.04)


def test_in_training_the_fusion_sees_what_is_left():
    given, inner = cases.features(missing=False), cases.small("concat")
    wrapped = ModalityDropout(inner, rate=0.5, rates={"text": 0.0})
    variables = cases.variables("concat")
    apply = jax.jit(wrapped.apply, static_argnames="train")
    noisy = apply(variables, given, train=True, rngs={"dropout": jax.random.key(3)})
    starts = np.cumsum([0] + [cases.SIZES[name][0] for name in cases.ALL])[:-1]
    kept = dict(zip(cases.ALL, np.asarray(noisy.mask)[:, starts].T, strict=True))
    assert kept["text"].all() and not (kept["audio"].all() or kept["image"].all())
    left = {n: f.replace(mask=f.mask & kept[n][:, None]) for n, f in given.items()}
    np.testing.assert_allclose(noisy.pooled, cases.apply("concat", left).pooled, rtol=1e-5, atol=1e-6)
    quiet = apply(variables, given, train=False)
    np.testing.assert_allclose(quiet.pooled, cases.apply("concat", given).pooled, rtol=1e-5, atol=1e-6)


def test_parameters_are_those_of_the_fusion():
    given = cases.features()
    plain, wrapped = (
        jax.eval_shape(f.init, jax.random.key(0), given)
        for f in (cases.small("concat"), ModalityDropout(cases.small("concat")))
    )
    assert plain == wrapped


def test_embeddings_before_the_fusion_keep_all_their_rows():
    size = {"variant": "custom", "width": 8, "depth": 2, "heads": 2, "mlp_width": 8}
    image = jax.random.normal(jax.random.key(0), (16, 8, 8, 3))

    def outputs(encoder, fusion):
        encoders = {name: encoder(f"{name}_encoder") for name in "ab"}
        fusion = ModalityDropout(fusion, rate=0.9).clone(name="fusion")
        model = Model({"a": "a", "b": "b"}, encoders, fusion, {})
        rngs = {"params": jax.random.key(1), "dropout": jax.random.key(2)}
        return jax.jit(lambda x: model.init_with_output(rngs, {"a": x, "b": x}, train=True)[0])(image)

    before = outputs(lambda name: CNN([4], name=name), Concat(width=4))
    assert before["a/mask"].all() and before["b/mask"].all() and not before["fused/mask"].all()

    def vit(name):
        return ViT(**size, patch_size=4, name=name)

    inside = outputs(vit, Bottleneck(bottlenecks=1, fusion_layer=0))
    kept = jnp.stack([inside["a/mask"].any(axis=1), inside["b/mask"].any(axis=1)], axis=1)
    assert kept.any(axis=1).all() and not kept.all(axis=0).any()
    np.testing.assert_array_equal((inside["a/pooled"] != 0).any(axis=1), kept[:, 0])


def test_it_is_a_part_that_a_config_names():
    spec = {"type": "modality_dropout", "rate": 0.25, "rates": {"text": 0}, "fusion": {"type": "concat"}}
    spec = components.normalise(spec, components.component("fusions"), "model.fusion")
    built = components.build("fusions", spec, dtype=jnp.bfloat16)
    assert built.rates == {"text": 0.0} and built.fusion.dtype == jnp.bfloat16 and not built.inside
    with pytest.raises(ConfigError, match="model.fusion.fusion: is missing"):
        components.normalise({"type": "modality_dropout"}, components.component("fusions"), "model.fusion")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 1.5}, "rate: got 1.5 for stream 'audio', expected 0 to 1"),
        ({"rates": {"text": -0.1}}, "rate: got -0.1 for stream 'text', expected 0 to 1"),
        ({"rates": {"txt": 0.1}}, r"rates: got 'txt' \(did you mean 'text'\?\), expected one of the streams"),
    ],
)
def test_bad_rates_are_refused(settings, message):
    with pytest.raises(ConfigError, match=f"model.fusion.{message}"):
        ModalityDropout(cases.small("concat"), **settings).init(jax.random.key(0), cases.features())
