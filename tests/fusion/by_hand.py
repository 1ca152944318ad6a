"""The layers of a transformer in plain numpy, from the papers' formulas, over a module's parameters."""

import math

import numpy as np


def norm(p, x):
    """Layer normalisation (Ba et al. 2016)."""
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def attention(p, x, context, visible):
    """Multi-head attention (Vaswani et al. 2017), zeros where no key is `visible` [B, Lk]."""

    def heads(name, value):
        return np.einsum("bld,dhk->bhlk", value, p[name]["kernel"]) + p[name]["bias"][None, :, None]

    query, key, value = heads("query", x), heads("key", context), heads("value", context)
    scores = np.einsum("bhqk,bhsk->bhqs", query, key) / math.sqrt(query.shape[-1])
    weights = np.exp(scores) * visible[:, None, None, :]
    weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-30)
    return np.einsum("bhqs,bhsk,hkd->bqd", weights, value, p["out"]["kernel"]) + p["out"]["bias"]


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0)


def mlp(p, x):
    hidden = dense(p["up"], x)
    hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    return dense(p["down"], hidden)


def block(p, x, visible, context=None, context_visible=None):
    """A transformer block that normalises first, with cross-attention where a context is given."""
    normed = norm(p["attention_norm"], x)
    x = x + attention(p["attention"], normed, normed, visible)
    if context is not None:
        x = x + attention(p["cross_attention"], norm(p["cross_norm"], x), context, context_visible)
    return x + mlp(p["mlp"], norm(p["mlp_norm"], x))


def disturb(params, rng=None):
    """`params` as numpy, with noise: biases and scales that start at 0 and 1 would hide a mistake."""
    rng = rng or np.random.default_rng(0)
    if isinstance(params, dict):
        return {key: disturb(value, rng) for key, value in sorted(params.items())}
    return np.asarray(params) + rng.normal(0, 0.2, np.shape(params)).astype(np.float32)


def typed(p, features):
    """The projected tokens of each stream with its vector added, and zeros where they are masked."""
    return {
        name: np.where(f.mask[:, :, None], f.tokens, 0) @ p[f"{name}_projection"]["kernel"]
        + p[f"{name}_type"]
        for name, f in features.items()
    }
