"""The kernels for TPUs: interpreted here, and compiled for a TPU that is not here."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers import attention
from mmjax.layers.attention import dot_product_attention, token_mask
from mmjax.parallel import tpu_attention
from mmjax.parallel.mesh import AXES, activation_rules, make_mesh, replicated
from mmjax.planning import topology

BATCH = 2
ROOT = pathlib.Path(__file__).parents[2]


def heads(seed, length, count=2, width=64, dtype=jnp.float32):
    values = np.random.default_rng(seed).normal(size=(BATCH, length, count, width))
    return jnp.asarray(values, dtype)


def run(arrays, mask, causal, mesh=None):
    """Attention and the gradients of a sum of it, compiled for a mesh, or for one device."""

    def total(arrays):
        attended = dot_product_attention(*arrays, mask, causal=causal)
        weights = jnp.arange(attended.size).reshape(attended.shape) / attended.size
        return (attended.astype(jnp.float32) * weights).sum(), attended

    def both(arrays):
        (_, attended), gradients = jax.value_and_grad(total, has_aux=True)(arrays)
        return attended, gradients

    if mesh is None:
        return jax.jit(both)(arrays)

    def on_mesh(arrays):
        with activation_rules(mesh):
            return both(arrays)

    return jax.jit(on_mesh, in_shardings=replicated(mesh))(arrays)


@pytest.fixture
def kernel(monkeypatch):
    """The kernels are used on any device, and take few queries at a time."""
    used = []
    fits = lambda *arrays: used.append(arrays) is None  # noqa: E731
    monkeypatch.setattr(attention, "fits_tpu_kernel", fits)
    return used


# Lengths of queries and keys, heads and their width, real keys of each example, causal, devices
CASES = {
    "short": ((5, 5), (2, 64), None, False, {}),
    "masked": ((9, 11), (4, 32), (3, 11), False, {}),
    "causal": ((10, 10), (4, 64), (10, 4), True, {}),
    "one query": ((1, 9), (2, 64), (9, 2), False, {}),
    "on a mesh": ((9, 9), (4, 64), (9, 2), True, {"data": 2, "tensor": 2}),
    "batch and heads stay whole": ((9, 9), (3, 128), (9, 2), False, {"fsdp": 4, "tensor": 2}),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_plain_path(name, kernel, monkeypatch):
    (queries, keys), shape, real, causal, sizes = CASES[name]
    arrays = (heads(0, queries, *shape), heads(1, keys, *shape), heads(2, keys, *shape))
    mask = None if real is None else token_mask(jnp.arange(keys) < jnp.array(real)[:, None])
    sizes = dict.fromkeys(AXES, 1) | sizes
    mesh = make_mesh(sizes, jax.devices()[: int(np.prod(list(sizes.values())))])
    found = run(arrays, mask, causal, mesh)
    assert len(kernel) == 1
    monkeypatch.undo()
    expected = run(arrays, mask, causal)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


@pytest.mark.parametrize("causal", [False, True])
def test_queries_in_tiles(kernel, monkeypatch, causal):
    """300 queries and keys are too many for one tile here: three of 128, the last filled up."""
    monkeypatch.setattr(tpu_attention, "_TILE", 2**16)
    arrays = tuple(heads(i, 300) for i in range(3))
    mask = token_mask(jnp.arange(300) < jnp.array([[300], [170]]))
    mesh = make_mesh(dict.fromkeys(AXES, 1), jax.devices()[:1])
    assert tpu_attention._tile(300, 300) == 128
    found = run(arrays, mask, causal, mesh)
    monkeypatch.undo()
    expected = run(arrays, mask, causal)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


def test_queries_without_keys_are_zero_and_pass_no_gradient(kernel):
    mesh = make_mesh(dict.fromkeys(AXES, 1), jax.devices()[:1])
    mask = token_mask(jnp.array([[True, True, False, True], [False] * 4]))
    attended, gradients = run(tuple(heads(i, 4) for i in range(3)), mask, False, mesh)
    np.testing.assert_array_equal(attended[1], 0.0)
    for gradient in gradients:
        assert np.isfinite(gradient).all() and np.abs(gradient[0]).max() > 0
        np.testing.assert_array_equal(gradient[1], 0.0)


def test_bfloat16(kernel, monkeypatch):
    arrays = tuple(heads(i, 24, dtype=jnp.bfloat16) for i in range(3))
    mesh = make_mesh(dict.fromkeys(AXES, 1), jax.devices()[:1])
    attended, gradients = run(arrays, None, False, mesh)
    monkeypatch.undo()
    exact = run(tuple(x.astype(jnp.float32) for x in arrays), None, False)
    assert attended.dtype == gradients[0].dtype == jnp.bfloat16
    for a, b in zip((attended, *gradients), (exact[0], *exact[1]), strict=True):
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=2**-6, atol=2**-7 * np.abs(b).max())


@pytest.mark.parametrize(
    ("queries", "keys"), [(196, 196), (64, 64), (1, 196), (577, 577), (2048, 2048), (4096, 77)]
)
def test_tiles_fit(queries, keys):
    tile = tpu_attention._tile(queries, keys)
    assert tile == max(queries, 8) or tile % 128 == 0
    assert tile * keys <= 2**18


@pytest.mark.parametrize(
    ("count", "width", "together"),
    [(12, 64, 2), (3, 64, None), (8, 32, 4), (3, 128, 1), (16, 72, None), (2, 256, 1)],
)
def test_heads_that_fill_a_vector(count, width, together):
    assert tpu_attention._together(count, width) == together


def test_which_arrays_it_takes(monkeypatch):
    """On a CPU none; for a TPU those without a bias and with masks of keys alone."""
    query, mask = heads(0, 8), token_mask(jnp.ones((BATCH, 8), bool))
    cpu = make_mesh(dict.fromkeys(AXES, 1), jax.devices()[:1])
    fits = tpu_attention.fits_tpu_kernel
    assert not fits(query, query, None, None)
    with activation_rules(cpu):
        assert not fits(query, query, None, None)
    device = jax.sharding.AbstractDevice("TPU v5 lite", num_cores=1, platform="tpu")
    tpu = cpu.abstract_mesh.update(abstract_device=device)
    with jax.sharding.use_abstract_mesh(tpu):
        assert fits(query, query, None, None) and fits(query, query, mask, None)
        assert not fits(query, query, mask, jnp.zeros((1, 1, 8, 8)))
        assert not fits(query, query, jnp.ones((1, 1, 8, 8), bool), None)
        assert not fits(query[..., :48], query[..., :48], None, None)
        assert not fits(query[:, :, :1], query[:, :, :1], None, None)
        assert not fits(query, jnp.zeros((BATCH, 2049, 2, 64)), None, None)
        assert not fits(query, jnp.zeros((BATCH, 7, 2, 64)), None, None)
        wide = jnp.zeros((BATCH, 2048, 2, 256), jnp.bfloat16)  # 1 MiB of a head's keys
        assert fits(wide, wide, None, None)
        assert not fits(wide.astype(jnp.float32), wide.astype(jnp.float32), None, None)


COMPILE = """
from mmjax.planning import topology
chips = topology.parse("v5e:2x2")
topology.prepare_process([chips])
import jax, jax.numpy as jnp
from mmjax.layers.attention import dot_product_attention, token_mask
from mmjax.parallel.mesh import activation_rules, batch_sharding, make_mesh
from mmjax.planning import costs, hlo
mesh = make_mesh({"data": 2, "fsdp": 1, "tensor": 2, "sequence": 1}, topology.devices(chips))
for queries, keys, causal in ((196, 196, False), (64, 64, True), (1, 196, False), (1024, 1024, True)):
    def total(query, key, value, mask):
        with activation_rules(mesh):
            attended = dot_product_attention(query, key, value, token_mask(mask), causal=causal)
        return attended.astype(jnp.float32).sum()
    shape = lambda *shape, dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))
    query, key = (shape(8, length, 4, 64, dtype=jnp.bfloat16) for length in (queries, keys))
    mask = shape(8, keys, dtype=jnp.bool_)
    step = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    compiled = step.lower(query, key, key, mask).compile()
    cycles, stated, silent = costs.kernel_cycles(hlo.parse(compiled.as_text()), chips.chip)
    scores = 4 * 2 * queries * keys * 4
    assert cycles > 0 and (stated, silent) == (2, 0), (queries, cycles, stated, silent)
    assert compiled.cost_analysis()["flops"] >= 14 * 64 * scores / 4, queries
    if queries == 1024:
        assert compiled.memory_analysis().temp_size_in_bytes < scores / 4
# Tokens over devices: keys and values go around, in the forward and in the backward pass.
mesh = make_mesh({"data": 1, "fsdp": 1, "tensor": 2, "sequence": 2}, topology.devices(chips))
query, mask = (jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(mesh)) for x in (query, mask))
text = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(query, query, query, mask).compile().as_text()
assert "collective-permute" in text and "all-gather" not in text and "tpu_custom_call" not in text
print("compiled")
"""


@pytest.mark.skipif(
    not topology.has_tpu_compiler(),
    reason=f"the TPU compiler is not installed; {topology.COMPILER} may name it",
)
@pytest.mark.slow
def test_it_compiles_for_a_tpu():
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    environment["JAX_ENABLE_COMPILATION_CACHE"] = (
        "false"  # it cannot hold programs for devices that are not here
    )
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
        env=environment,
    )
    assert done.stdout.strip() == "compiled", done.stderr[-2000:]
