"""The gated multimodal unit: the paper's formulas, and its gates."""

import fusion_cases as cases
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.fusion.gated import Gated


def test_two_streams_are_the_bimodal_unit_of_the_paper():
    given, fusion = cases.features(("image", "text"), missing=False), Gated(width=5)
    fused, variables = jax.jit(fusion.init_with_output)(jax.random.key(0), given)
    p = jax.tree.map(np.asarray, variables["params"])
    image, text = given["image"].pooled, given["text"].pooled
    h_image = np.tanh(image @ p["image_projection"]["kernel"] + p["image_projection"]["bias"])
    h_text = np.tanh(text @ p["text_projection"]["kernel"] + p["text_projection"]["bias"])
    # A softmax over two is a sigmoid of their difference, which is linear in [x_v, x_t].
    weights = p["gate"]["kernel"][:, :5] - p["gate"]["kernel"][:, 5:]
    z = 1 / (1 + np.exp(-np.concatenate([image, text], axis=1) @ weights))
    np.testing.assert_allclose(fused.pooled, z * h_image + (1 - z) * h_text, rtol=1e-5, atol=1e-6)


def test_a_stream_alone_passes_whole():
    given, fusion = cases.features(), Gated(width=5)
    fused, variables = jax.jit(fusion.init_with_output)(jax.random.key(0), given)
    projection = variables["params"]["text_projection"]
    text_only = 2
    expected = np.tanh(given["text"].pooled[text_only] @ projection["kernel"] + projection["bias"])
    np.testing.assert_allclose(fused.pooled[text_only], expected, rtol=1e-5, atol=1e-6)


def test_gates_are_sown_and_sum_to_one_over_the_streams_there_are():
    given, fusion = cases.features(), Gated(width=5)
    variables = {"params": fusion.init(jax.random.key(0), given)["params"]}
    _, state = fusion.apply(variables, given, mutable=["intermediates"])
    sown = state["intermediates"]
    assert set(sown) == {"audio_gate", "image_gate", "text_gate"}
    gates = np.stack([sown[f"{name}_gate"][0] for name in cases.ALL], axis=1)  # [B, M, D]
    present = np.stack([given[name].present for name in cases.ALL], axis=1)
    np.testing.assert_array_equal(gates > 0, np.broadcast_to(present[:, :, None], gates.shape))
    np.testing.assert_allclose(gates.sum(axis=1), present.any(axis=1)[:, None] * jnp.ones(5), rtol=1e-6)
