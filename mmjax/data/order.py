"""Which record an example is, and the randomness it gets: pure functions of the seed and its number.

Examples of a run are numbered 0, 1, 2, ... without end. Nothing here knows of processes, workers or
batches, so the order does not depend on how many there are, and going on at any example is a matter
of its number.
"""

from __future__ import annotations

import fractions
import functools
import hashlib
import math
from collections.abc import Sequence

import numpy as np
from grain.experimental import index_shuffle

from mmjax.data.source import MixtureSource, Source

# Longer sources are shuffled by a block cipher on the positions, which needs no table; for shorter ones
# that is slow (milliseconds for a handful of records), since its blocks have at least 16 bits.
_LONGEST_TABLE = 2**14


class Shuffled:
    """Every record once in each epoch, in an order of its own for each epoch.

    Args:
      length: records in the source.
      seed: of the run.
      path: where the source stands in a mixture of mixtures; parts have orders of their own.
    """

    def __init__(self, length: int, seed: int, path: tuple[int, ...] = ()):
        self.length, self._seed, self._path = length, seed, path

    def __call__(self, number: int) -> int:
        """The index in the source of example `number`, 0 or more."""
        epoch, position = divmod(number, self.length)
        key = _epoch_key(self._seed, self._path, epoch)
        if self.length <= _LONGEST_TABLE:
            return int(_permutation(key, self.length)[position])
        return index_shuffle(position, max_index=self.length - 1, seed=key, rounds=4)


class Mixed:
    """Draws from several orders in fixed proportions.

    Among the first `n` examples, part `p` with its share `w` of the weights has `n * w` to within the
    number of parts, and exactly that many wherever `n` is a multiple of the sum of the weights in
    lowest terms. Each part goes through its own epochs.

    Args:
      orders: one for each part.
      offsets: added to the indices of each part.
      weights: of each part, above zero; read as decimal fractions, so that 0.1 is exactly 1/10.
    """

    def __init__(self, orders: Sequence[Shuffled | Mixed], offsets: Sequence[int], weights: Sequence[float]):
        exact = [fractions.Fraction(repr(float(weight))) for weight in weights]
        common = math.lcm(*(f.denominator for f in exact))
        whole = [int(f * common) for f in exact]
        shared = math.gcd(*whole)
        self._orders, self._offsets = list(orders), list(offsets)
        self._weights = [w // shared for w in whole]

    def __call__(self, number: int) -> int:
        """The index in the mixture of example `number`, 0 or more."""
        part, number_in_part = self.part(number)
        return self._offsets[part] + self._orders[part](number_in_part)

    def part(self, number: int) -> tuple[int, int]:
        """The part that example `number` comes from, and its number among the examples of that part.

        Of the first n examples, the first part has `ceil(n * w / total)`, evenly spread; the parts
        after it share the rest by the same rule.
        """
        total = sum(self._weights)
        for part, weight in enumerate(self._weights[:-1]):
            rest = number * (total - weight) // total
            rest_after = (number + 1) * (total - weight) // total
            if rest_after == rest:
                return part, number - rest
            number, total = rest, total - weight
        return len(self._weights) - 1, number


def training_order(source: Source, seed: int, path: tuple[int, ...] = ()) -> Shuffled | Mixed:
    """The endless order of training examples: `order(number) -> index in source`."""
    if not isinstance(source, MixtureSource):
        return Shuffled(len(source), seed, path)
    orders = [training_order(part, seed, (*path, i)) for i, part in enumerate(source.parts)]
    return Mixed(orders, source.offsets, source.weights)


def generator(seed: int, number: int, use: str) -> np.random.Generator:
    """The randomness of example `number` for one use (a stream's name).

    A Philox generator keyed by (seed, use) whose counter starts at the example's own stretch of 2^64
    blocks: no two examples or uses share numbers, and a further use changes none of the others.

    Args:
      seed: of the run.
      number: of the example, 0 or more.
      use: what the numbers are for.
    """
    philox = np.random.Philox(key=[seed % 2**64, _use_key(use)], counter=[0, number, 0, 0])
    return np.random.Generator(philox)


@functools.lru_cache(maxsize=1024)
def _use_key(use: str) -> int:
    return int.from_bytes(hashlib.sha256(use.encode()).digest()[:8], "little")


@functools.lru_cache(maxsize=128)
def _permutation(key: int, length: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=key)).permutation(length)


@functools.lru_cache(maxsize=1024)
def _epoch_key(seed: int, path: tuple[int, ...], epoch: int) -> int:
    return int(np.random.SeedSequence(seed % 2**64, spawn_key=(*path, epoch)).generate_state(1)[0])
