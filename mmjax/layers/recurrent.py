"""Recurrent layers over sequences with padding."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Recurrent(nn.Module):
    """One recurrent layer in one direction.

    'lstm' is that of Gers et al. 2000 (Neural Computation 12(10)), its forget gate's bias starting at
    1 (Jozefowicz et al. 2015); 'gru' that of Cho et al. 2014 (arXiv:1406.1078), with the reset gate
    applied after the recurrent product, as cuDNN has it. At a padding step the state stays as it is.

    Attributes:
      width: D, of the state.
      cell: which kind.
      reverse: reads from the end to the start.
      second_biases: whether each gate has a bias with the recurrent product too, as in cuDNN and
        PyTorch. Only their sum counts, but an optimizer moves both. Without it only the candidate of
        'gru' has one, since that is multiplied.
      dtype: what it computes in.
    """

    width: int
    cell: Literal["lstm", "gru"] = "lstm"
    reverse: bool = False
    second_biases: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L Dx"], mask: Bool[Array, "B L"]
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B D"]]:
        """Reads the sequences.

        Returns:
          The state after each step (zeros at padding), and the state after the last one (zeros
          where the row has no real step).
        """
        gates = 4 if self.cell == "lstm" else 3
        # One product for all steps; only the recurrent one has to wait.
        inputs = nn.Dense(
            gates * self.width,
            kernel_init=nn.initializers.xavier_uniform(),
            bias_init=_forget_bias if self.cell == "lstm" else nn.initializers.zeros,
            dtype=self.dtype,
            name="input",
        )(x)
        kernel = self.param("recurrent", _orthogonal_gates, (self.width, gates * self.width), jnp.float32)
        kernel = kernel.astype(self.dtype)
        zeros = jnp.zeros((x.shape[0], self.width), self.dtype)
        start = (zeros, zeros) if self.cell == "lstm" else (zeros,)
        update = _lstm if self.cell == "lstm" else _gru
        bias = self._recurrent_bias(gates)

        def step(state, step_inputs):
            step_input, real = step_inputs
            new = update(state, step_input, state[0] @ kernel + bias)
            state = jax.tree.map(lambda a, b: jnp.where(real[:, None], a, b), new, state)
            return state, jnp.where(real[:, None], state[0], 0)

        by_step = (inputs.swapaxes(0, 1), mask.swapaxes(0, 1))
        last, outputs = jax.lax.scan(step, start, by_step, reverse=self.reverse)
        return outputs.swapaxes(0, 1), last[0]

    def _recurrent_bias(self, gates):
        """Of all gates, `[gates * D]`; zeros where a gate has none."""
        biased = gates if self.second_biases else {"lstm": 0, "gru": 1}[self.cell]
        if not biased:
            return jnp.zeros((), self.dtype)
        bias = self.param("recurrent_bias", nn.initializers.zeros, (biased * self.width,), jnp.float32)
        return jnp.pad(bias.astype(self.dtype), ((gates - biased) * self.width, 0))


def _lstm(state, step_input, product):
    hidden, memory = state
    write, forget, candidate, read = jnp.split(step_input + product, 4, axis=-1)
    memory = nn.sigmoid(forget) * memory + nn.sigmoid(write) * jnp.tanh(candidate)
    return nn.sigmoid(read) * jnp.tanh(memory), memory


def _gru(state, step_input, product):
    (hidden,) = state
    reset_in, update_in, candidate_in = jnp.split(step_input, 3, axis=-1)
    reset_re, update_re, candidate_re = jnp.split(product, 3, axis=-1)
    reset = nn.sigmoid(reset_in + reset_re)
    keep = nn.sigmoid(update_in + update_re)
    candidate = jnp.tanh(candidate_in + reset * candidate_re)
    return (keep * hidden + (1 - keep) * candidate,)


def _forget_bias(key, shape, dtype=jnp.float32):
    width = shape[0] // 4
    return jnp.zeros(shape, dtype).at[width : 2 * width].set(1.0)


def _orthogonal_gates(key, shape, dtype=jnp.float32):
    width, columns = shape
    keys = jax.random.split(key, columns // width)
    orthogonal = nn.initializers.orthogonal()
    return jnp.concatenate([orthogonal(k, (width, width), dtype) for k in keys], axis=1)
