"""Batches from the host to the devices, ahead of their use."""

import threading
import time

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.data.prefetch import place, prefetch


@pytest.fixture(scope="module")
def sharding():
    return NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec("data"))


class Numbers:
    """Batches 0, 1, ... up to `stop`; then `error`, else the end."""

    def __init__(self, stop, error=None):
        self.given, self.closed, self._stop, self._error = 0, False, stop, error

    def __iter__(self):
        return self

    def __next__(self):
        if self.given == self._stop:
            raise self._error or StopIteration
        self.given += 1
        return {"x": np.full((16, 2), self.given - 1, np.int32), "example_mask": np.ones(16, bool)}

    def close(self):
        self.closed = True


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_batches_come_in_order_on_the_devices(sharding):
    numbers = Numbers(5)
    with prefetch(numbers, sharding) as batches:
        for i, batch in enumerate(batches):
            assert batch["x"].sharding.is_equivalent_to(sharding, 2) and batch["x"].shape == (16, 2)
            assert len(batch["x"].addressable_shards) == 8
            np.testing.assert_array_equal(batch["x"], np.full((16, 2), i))
        assert i == 4
        with pytest.raises(StopIteration):
            next(batches)
    assert numbers.closed


def test_so_many_batches_are_ready_and_no_more(sharding):
    numbers = Numbers(100)
    with prefetch(numbers, sharding, size=3) as batches:
        wait_for(lambda: numbers.given == 4)  # three ready, one waiting for room
        time.sleep(0.3)
        assert numbers.given == 4
        next(batches)
        wait_for(lambda: numbers.given == 5)


def test_exceptions_come_after_the_batches_before_them(sharding):
    with prefetch(Numbers(2, ValueError("bad record")), sharding) as batches:
        next(batches), next(batches)
        with pytest.raises(ValueError, match="bad record"):
            next(batches)
        with pytest.raises(StopIteration):
            next(batches)


def test_closing_ends_the_thread_whatever_it_waits_for(sharding):
    before = threading.active_count()
    for _ in range(3):
        numbers = Numbers(100)
        batches = prefetch(numbers, sharding, size=1)
        wait_for(lambda numbers=numbers: numbers.given == 2)
        batches.close()
        batches.close()
        assert numbers.closed and numbers.given <= 3
        with pytest.raises(StopIteration):
            next(batches)
    assert threading.active_count() == before


def test_an_exception_in_the_loop_closes(sharding):
    numbers = Numbers(100)
    with pytest.raises(KeyError), prefetch(numbers, sharding):
        raise KeyError
    assert numbers.closed


def test_place_gives_global_arrays_that_keep_their_type(sharding):
    batch = {"a": np.arange(8, dtype=np.float32), "b": np.zeros((8, 0, 3), np.uint8)}
    placed = place(batch, sharding)
    for name, array in placed.items():
        assert array.dtype == batch[name].dtype and array.shape == batch[name].shape
    np.testing.assert_array_equal(placed["a"], batch["a"])
