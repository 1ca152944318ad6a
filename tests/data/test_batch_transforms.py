"""MixUp and CutMix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import components
from mmjax.errors import ConfigError
from mmjax.parallel.mesh import batch_sharding, make_mesh

B, N = 6, 4


def make(name, **fields):
    spec = components.normalise(
        {"type": name, "labels": {"label": N}, **fields}, components.component("batch_transforms"), "t"
    )
    return components.build("batch_transforms", spec)


def batch(**changes):
    """Images whose every pixel is the number of the row."""
    rows = jnp.arange(B, dtype=jnp.float32)
    return {
        "image": jnp.broadcast_to(rows[:, None, None, None], (B, 8, 10, 3)),
        "image_present": jnp.ones(B, bool),
        "example_mask": jnp.ones(B, bool),
        "label": jnp.array([0, 1, 2, 3, 0, 1]),
        "text": jnp.zeros((B, 2), jnp.int32),
    } | changes


@functools.cache
def jitted(transform_name, **fields):
    return jax.jit(make(transform_name, **fields).__call__)


def hot(*labels):
    return np.eye(N)[list(labels)]


def test_mixup_mixes_inputs_and_labels_alike():
    mixup = jitted("mixup", alpha=1.0)
    lams = []
    for seed in range(30):
        made = mixup(batch(), jax.random.key(seed))
        pixels = np.asarray(made["image"])
        assert (pixels == pixels[:, :1, :1, :1]).all()
        lam = pixels[1, 0, 0, 0]  # row 1 with row 0: lam * 1 + (1 - lam) * 0
        rows = np.arange(B)
        np.testing.assert_allclose(pixels[:, 0, 0, 0], lam * rows + (1 - lam) * np.roll(rows, 1), rtol=1e-5)
        labels = hot(0, 1, 2, 3, 0, 1)
        expected = lam * labels + (1 - lam) * np.roll(labels, 1, axis=0)
        np.testing.assert_allclose(made["label"], expected, atol=1e-6)
        assert made["label"].dtype == jnp.float32
        np.testing.assert_array_equal(made["text"], batch()["text"])
        lams.append(lam)
    assert min(lams) < 0.2 and max(lams) > 0.8 and abs(np.mean(lams) - 0.5) < 0.2  # Beta(1, 1) is uniform


def test_mixup_of_several_streams_has_one_weight():
    sound = jnp.arange(B, dtype=jnp.float32)[:, None] * 10
    heard = jnp.array([True] * 4 + [False, True])
    given = batch(audio=sound, audio_present=heard)
    made = make("mixup", alpha=1.0, also=["audio"])(given, jax.random.key(0))
    np.testing.assert_allclose(made["audio"][:, 0], 10 * made["image"][:, 0, 0, 0], rtol=1e-5)
    assert not np.array_equal(made["audio"][:4], sound[:4])
    for alone in (4, 5):  # row 4 lacks sound, and is the partner of row 5
        np.testing.assert_array_equal(made["image"][alone], given["image"][alone])
    with pytest.raises(ConfigError, match="mixup.stream: the batch has no 'sound'"):
        make("mixup", also=["sound"])(batch(), jax.random.key(0))


def test_cutmix_pastes_one_rectangle_and_weights_labels_by_its_area():
    cutmix = jitted("cutmix")
    areas = []
    for seed in range(20):
        made = cutmix(batch(), jax.random.key(seed))
        pixels = np.asarray(made["image"])[..., 0]
        own = np.arange(B)[:, None, None]
        pasted = pixels != own
        np.testing.assert_array_equal(pixels, np.where(pasted, np.roll(own, 1, axis=0), own))
        assert (pasted == pasted[:1]).all()
        rows, columns = pasted[0].any(axis=1), pasted[0].any(axis=0)
        np.testing.assert_array_equal(pasted[0], rows[:, None] & columns[None])
        assert (np.diff(np.flatnonzero(rows)) == 1).all() and (np.diff(np.flatnonzero(columns)) == 1).all()
        kept = 1 - pasted[0].mean()
        labels = hot(0, 1, 2, 3, 0, 1)
        expected = kept * labels + (1 - kept) * np.roll(labels, 1, axis=0)
        np.testing.assert_allclose(made["label"], expected, atol=1e-6)
        areas.append(1 - kept)
    assert min(areas) < 0.15 and max(areas) > 0.5


def test_cutmix_of_video_is_the_same_in_every_frame():
    video = jnp.broadcast_to(jnp.arange(B, dtype=jnp.float32)[:, None, None, None, None], (B, 3, 8, 8, 1))
    given = batch(clip=video, clip_present=jnp.ones(B, bool))
    made = make("cutmix", stream="clip")(given, jax.random.key(3))["clip"]
    changed = np.asarray(made != video)
    assert changed.any() and (changed == changed[:, :1]).all()


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_rows_that_lack_something_stay_as_they_are(name):
    given = batch(
        image_present=jnp.array([True, False, True, True, True, True]),
        label=jnp.array([0, 1, 2, 3, -1, 1]),
        example_mask=jnp.array([True] * 5 + [False]),
    )
    made = jitted(name)(given, jax.random.key(2))
    # Row 1 has no image, row 4 no label, row 5 is padding; so 0, 2 and 5 have such partners.
    alone = [0, 1, 2, 4, 5]
    np.testing.assert_array_equal(made["image"][np.array(alone)], given["image"][np.array(alone)])
    np.testing.assert_array_equal(made["label"][np.array([0, 1, 2, 5])], hot(0, 1, 2, 1))
    np.testing.assert_array_equal(made["label"][4], [-1] * N)
    assert not np.array_equal(made["image"][3], given["image"][3])
    assert 0 < made["label"][3].max() < 1


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_probability_says_how_often_and_labels_are_soft_in_any_case(name):
    never = jitted(name, probability=0.0)(batch(), jax.random.key(0))
    np.testing.assert_array_equal(never["image"], batch()["image"])
    np.testing.assert_array_equal(never["label"], hot(0, 1, 2, 3, 0, 1))
    half = jitted(name, probability=0.5, alpha=5.0)
    mixed = [(half(batch(), jax.random.key(s))["image"] != batch()["image"]).any() for s in range(60)]
    assert 15 < sum(mixed) < 45


def test_one_after_the_other_keeps_labels_a_distribution():
    made = jitted("cutmix")(jitted("mixup", alpha=1.0)(batch(), jax.random.key(0)), jax.random.key(1))
    np.testing.assert_allclose(made["label"].sum(axis=1), 1.0, rtol=1e-6)
    assert (np.asarray(made["label"]) >= 0).all()


def test_several_labels_get_the_same_weights():
    given = batch(group=jnp.array([0, 1, 0, 1, 0, 1]))
    made = make("mixup", labels={"label": N, "group": 2}, alpha=1.0)(given, jax.random.key(0))
    np.testing.assert_allclose(made["label"][1, 1], made["group"][1, 1], rtol=1e-6)


def test_a_sharded_batch_gives_the_same():
    mesh = make_mesh({"data": 2, "fsdp": 1, "tensor": 1, "sequence": 1}, jax.devices()[:2])
    sharding = batch_sharding(mesh)
    for name in ("mixup", "cutmix"):
        alone = jitted(name)(batch(), jax.random.key(5))
        sharded = jitted(name)(jax.device_put(batch(), sharding), jax.random.key(5))
        for entry in alone:
            np.testing.assert_allclose(alone[entry], sharded[entry], rtol=1e-6, err_msg=entry)


@pytest.mark.parametrize(
    ("name", "fields", "given", "message"),
    [
        ("mixup", {"stream": "sound"}, {}, "mixup.stream: the batch has no 'sound'"),
        ("mixup", {}, {"image": jnp.zeros((B, 8, 8, 3), jnp.uint8)}, "'image' is uint8, expected float"),
        ("cutmix", {}, {"image": jnp.zeros((B, 8))}, r"cutmix.stream: 'image' is \(6, 8\), expected images"),
        ("mixup", {"labels": {"lable": 3}}, {}, "mixup.labels.lable: the batch has no such label"),
        ("mixup", {}, {"label": jnp.zeros((B, 3))}, r"mixup.labels.label: is \[6, 3\] .* expected 4 classes"),
    ],
)
def test_batches_that_do_not_fit_are_refused(name, fields, given, message):
    with pytest.raises(ConfigError, match=message):
        make(name, **fields)(batch(**given), jax.random.key(0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": 0.0}, "mixup.alpha: got 0.0, expected more than 0"),
        ({"probability": 2.0}, "mixup.probability"),
        ({"labels": {"label": 0}}, "mixup.labels.label: got 0, expected its number of classes"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        make("mixup", **fields)
