"""A small two-stream model and objectives that read it, with the interfaces of the real ones."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.objectives import Objective
from mmjax.parallel.mesh import AXES, make_mesh
from mmjax.training.optimizer import make_optimizer, trainable
from mmjax.training.state import TrainState, abstract_params, abstract_state, shardings_of
from mmjax.training.step import make_train_step

WIDTH = 16
BATCH = 16


class Block(nn.Module):
    dropout: float = 0.0
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x, train):
        y = nn.LayerNorm(name="norm")(x)
        y = nn.gelu(nn.Dense(4 * WIDTH, name="up")(y))
        y = nn.with_logical_constraint(y, ("batch", "mlp"))
        if self.batch_norm:
            y = nn.BatchNorm(use_running_average=not train, name="batch_norm")(y)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return x + nn.Dense(WIDTH, name="down")(y)


class Encoder(nn.Module):
    dropout: float = 0.0
    batch_norm: bool = False

    def setup(self):
        self.patch = nn.Dense(WIDTH)
        self.position_embedding = self.param("position", nn.initializers.normal(0.02), (1, WIDTH))
        self.blocks = [Block(self.dropout, self.batch_norm)]
        self.norm = nn.LayerNorm()

    def __call__(self, x, train):
        x = self.patch(x) + self.position_embedding
        for block in self.blocks:
            x = block(x, train)
        return self.norm(x)


class Model(nn.Module):
    dropout: float = 0.0
    batch_norm: bool = False

    def setup(self):
        self.image_encoder = Encoder(self.dropout, self.batch_norm)
        self.text_encoder = Encoder(self.dropout, self.batch_norm)
        self.label_head = nn.Dense(4)
        self.log_scale = self.param("log_scale", nn.initializers.constant(1.0), ())

    def __call__(self, batch, *, train=False):
        outputs = {"scale": jnp.exp(self.log_scale)}
        for stream, encoder in (("image", self.image_encoder), ("text", self.text_encoder)):
            pooled = encoder(batch[stream], train)
            outputs[f"{stream}/pooled"] = pooled
            outputs[f"{stream}/mask"] = jnp.isfinite(pooled)
            outputs[f"{stream}_embedding"] = pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)
        outputs["label"] = self.label_head(outputs["image/pooled"])
        return outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrastive(Objective):
    def reads(self):
        return ("image_embedding", "text_embedding", "scale", "image/mask")

    def targets(self):
        return ("example_mask",)

    def __call__(self, outputs, batch):
        valid = batch["example_mask"]
        logits = outputs["scale"] * outputs["image_embedding"] @ outputs["text_embedding"].T
        logits = jnp.where(valid[None, :], logits, -1e9)
        losses = -jnp.diagonal(jax.nn.log_softmax(logits)) * valid
        correct = (logits.argmax(1) == jnp.arange(len(valid))) & valid
        count = valid.sum(dtype=jnp.float32)
        return losses.sum() / count, {"accuracy": (correct.sum(dtype=jnp.float32), count)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Objective):
    def reads(self):
        return ("label",)

    def targets(self):
        return ("label", "example_mask")

    def __call__(self, outputs, batch):
        valid = batch["example_mask"]
        losses = -jax.nn.log_softmax(outputs["label"])[jnp.arange(len(valid)), batch["label"]] * valid
        return losses.sum() / valid.sum(dtype=jnp.float32), {}


OBJECTIVES = {"contrastive": Contrastive(), "classification": Classification(weight=0.5)}


def make_batch(seed=0, size=BATCH):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.normal(size=(size, 8)).astype(np.float32),
        "text": rng.normal(size=(size, 12)).astype(np.float32),
        "label": rng.integers(0, 4, size).astype(np.int32),
        "example_mask": np.arange(size) != 3,
    }


_COMMON = {"clip_norm": None, "frozen": [], "multipliers": [], "layer_decay": 1.0}
OPTIMIZERS = {
    "adamw": {"method": {"type": "adamw", "weight_decay": 0.1}} | _COMMON | {"clip_norm": 1.0},
    "sgd": {"method": {"type": "sgd", "momentum": 0.9}} | _COMMON,
}

# Meshes, as (axis, size) pairs.
DATA = (("data", 8),)
FSDP = (("data", 4), ("fsdp", 2))
TENSOR = (("data", 2), ("fsdp", 2), ("tensor", 2))
MESHES = {"data": DATA, "fsdp": FSDP, "tensor": TENSOR}


def schedule(step):
    return 0.01 / (1.0 + step)


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything between a model and its first step, on a mesh."""

    model: nn.Module
    mesh: jax.sharding.Mesh
    abstract: TrainState
    initial: TrainState  # on the host
    step: Callable

    @property
    def shardings(self):
        return shardings_of(self.abstract)

    @property
    def state(self):
        """A fresh state, to be donated."""
        return jax.device_put(self.initial, self.shardings, may_alias=False)


@functools.cache
def initial_variables(model):
    """Compiled once a model, where `create_state` would be once a mesh."""
    batch = make_batch()
    variables = dict(jax.jit(lambda: model.init(jax.random.key(0), batch))())
    return variables.pop("params"), variables


def set_up(mesh=(), model=None, *, optimizer="adamw", frozen=(), ema=0.0, offload=False, **step_settings):
    """`mesh`: (axis, size) pairs; none is one device."""
    sizes = dict.fromkeys(AXES, 1) | dict(mesh)
    mesh = make_mesh(sizes, jax.devices()[: math.prod(sizes.values())])
    model = model or Model()
    section = OPTIMIZERS[optimizer] | {"frozen": list(frozen)}
    shapes = abstract_params(model, make_batch())
    tx = make_optimizer(section, shapes, schedule)
    abstract = abstract_state(model, make_batch(), tx, mesh, ema=ema > 0, offload=offload, fsdp_min_size=64)
    params, model_state = initial_variables(model)
    initial = TrainState(
        step=jnp.int32(0),
        params=params,
        model_state=model_state,
        opt_state=tx.init(params),
        ema=params if ema else None,
        key=jax.random.key_data(jax.random.key(0)),
    )
    step = make_train_step(
        model,
        step_settings.pop("objectives", OBJECTIVES),
        tx,
        mesh=mesh,
        shardings=shardings_of(abstract),
        learning_rate=schedule,
        ema=ema,
        trainable=trainable(section, shapes),
        **step_settings,
    )
    return Setup(model, mesh, abstract, jax.tree.map(np.array, initial), step)


# Compiling is what takes time here: tests that do not count compilations share.
shared_set_up = functools.cache(set_up)


def host(tree):
    """Copies of the arrays as NumPy's."""
    return jax.tree.map(np.array, tree)


def assert_equal(one, other):
    """The same bits."""
    jax.tree.map(np.testing.assert_array_equal, one, other)
