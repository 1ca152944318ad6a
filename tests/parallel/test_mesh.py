import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mmjax.errors import ConfigError
from mmjax.parallel import mesh as meshes

DEFAULT = {"data": -1, "fsdp": 1, "tensor": 1, "sequence": 1}


def make(**sizes):
    return meshes.make_mesh(DEFAULT | sizes)


def test_minus_one_takes_what_is_left():
    mesh = make(fsdp=2, tensor=2)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2, "sequence": 1}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert meshes.batch_parts(mesh) == 4


def test_given_devices_are_used():
    mesh = meshes.make_mesh(DEFAULT, jax.devices()[:1])
    assert mesh.size == 1


@pytest.mark.parametrize(
    "sizes", [{"data": 3}, {"data": 4}, {"fsdp": 3}, {"tensor": 0}, {"fsdp": -2}, {"fsdp": -1}, {"data": 16}]
)
def test_illegal_sizes_name_the_legal_ones(sizes):
    with pytest.raises(ConfigError, match=r"mesh: got data=.* for 8 devices.*1, 2, 4, 8"):
        make(**sizes)


class FakeDevice:
    platform = device_kind = "fake"

    def __init__(self, index, process, slice_index=0):
        self.id, self.process_index, self.slice_index = index, process, slice_index


@pytest.mark.parametrize(
    "tensor, readers",
    [
        (1, [(0, 4), (1, 4), (2, 4), (3, 4)]),
        (2, [(0, 4), (1, 4), (2, 4), (3, 4)]),
        (4, [(0, 2), (0, 2), (1, 2), (1, 2)]),  # two processes hold the same rows
        (8, [(0, 1), (0, 1), (0, 1), (0, 1)]),
    ],
)
def test_processes_that_share_rows_read_the_same(tensor, readers):
    devices = [FakeDevice(i, process=i // 2) for i in range(8)]
    mesh = meshes.make_mesh(DEFAULT | {"tensor": tensor}, devices)
    assert [meshes.reader(mesh, process) for process in range(4)] == readers
    assert meshes.reader(make()) == (0, 1)


def test_rows_that_cut_across_processes():
    devices = [FakeDevice(i, process=i // 4) for i in range(12)]
    with pytest.raises(
        ConfigError, match="tensor x sequence = 3 .* 3 processes; expected a .* multiple of 4"
    ):
        meshes.make_mesh(DEFAULT | {"tensor": 3}, devices)


def test_only_the_data_axis_crosses_tpu_slices():
    devices = [FakeDevice(i, process=0, slice_index=i // 4) for i in range(8)]
    mesh = meshes.make_mesh({"data": 2, "fsdp": 2, "tensor": 2, "sequence": 1}, devices)
    assert [{d.slice_index for d in part.flat} for part in mesh.devices] == [{0}, {1}]
    with pytest.raises(ConfigError, match="mesh.data: got 1, expected a multiple of the 2 TPU slices"):
        meshes.make_mesh({"data": 1, "fsdp": 2, "tensor": 4, "sequence": 1}, devices)


def test_batch_size_must_split_over_devices_and_microbatches():
    mesh = make(fsdp=2, tensor=2)
    meshes.check_batch_size(32, mesh, accumulate_steps=2)
    with pytest.raises(ConfigError, match="batch_size: got 30, expected a multiple of 8 .* 24 or 32"):
        meshes.check_batch_size(30, mesh, accumulate_steps=2)
    with pytest.raises(ConfigError, match="such as 4$"):
        meshes.check_batch_size(3, mesh)
    with pytest.raises(ConfigError, match="accumulate_steps: got 0"):
        meshes.check_batch_size(8, mesh, accumulate_steps=0)


def test_batches_are_split_and_replicated_arrays_are_not():
    mesh = make(fsdp=2, tensor=2)
    batch = jax.device_put(jnp.arange(8.0), meshes.batch_sharding(mesh))
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2,)}
    whole = jax.device_put(jnp.arange(8.0), meshes.replicated(mesh))
    assert whole.sharding.is_fully_replicated


def test_activation_rules_place_logical_axes():
    mesh = make(tensor=2)

    def constrain(x):
        return nn.with_logical_constraint(x * 2, ("batch", "length", "mlp"))

    def with_rules(x):
        with meshes.activation_rules(mesh):
            return constrain(x)

    x = jax.device_put(np.ones((4, 3, 6), np.float32), meshes.replicated(mesh))
    expected = NamedSharding(mesh, PartitionSpec(meshes.BATCH_AXES, "sequence", "tensor"))
    assert jax.jit(with_rules)(x).sharding.is_equivalent_to(expected, x.ndim)
    assert jax.jit(constrain)(x).sharding.is_fully_replicated  # no rules: nothing happens
