"""States to save, and ways to damage what was saved."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax.parallel.mesh import AXES, make_mesh
from mmjax.parallel.placement import state_shardings
from mmjax.training.state import TrainState

# A state with all that is hard to save: frozen parameters, empty states, bfloat16, scalars.
TX = optax.partition(
    {
        "moves": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1, mu_dtype=jnp.bfloat16)),
        "frozen": optax.set_to_zero(),
    },
    {"encoder": "moves", "head": "frozen", "log_scale": "moves"},
)


def host_state(step, *, ema=True, batch_norm=True):
    rng = np.random.default_rng(step)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    params = {
        "encoder": {
            "mlp": {"up": {"kernel": draw(8, 16), "bias": draw(16)}, "down": {"kernel": draw(16, 8)}}
        },
        "head": {"kernel": draw(8, 4)},
        "log_scale": draw(),
    }
    state = TrainState(
        step=np.int32(step),
        params=params,
        model_state={"batch_stats": {"mean": draw(8)}} if batch_norm else {},
        opt_state=TX.init(params),
        ema=jax.tree.map(lambda x: x + 1, params) if ema else None,
        key=np.array([step, 7], np.uint32),
    )
    return jax.tree.map(np.asarray, state)


def on_mesh(state, sizes=(("data", 2), ("fsdp", 2), ("tensor", 2))):
    """(abstract state, state) on a mesh."""
    sizes = dict.fromkeys(AXES, 1) | dict(sizes)
    mesh = make_mesh(sizes, jax.devices()[: math.prod(sizes.values())])
    shardings = state_shardings(state, state.params, mesh, min_size=64)
    place = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)  # noqa: E731
    return jax.tree.map(place, state, shardings), jax.device_put(state, shardings)


def assert_same_bits(one, other):
    def same(a, b):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()

    jax.tree.map(same, one, other)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def data_file(step_directory, item="params"):
    """The file that holds most of an item's numbers."""
    files = [p for p in (step_directory / item).rglob("*") if p.is_file() and p.parent.name == "d"]
    return max(files, key=lambda path: path.stat().st_size)
