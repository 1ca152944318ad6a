"""The device mesh, and how batches and activations lie on it.

Four axes, slowest to fastest: `data` (batch), `fsdp` (batch, and parameters are split too),
`tensor` (heads, MLP channels, words), `sequence` (tokens). Neighbouring devices share the fast
axes, which talk the most.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from mmjax.errors import ConfigError

AXES = ("data", "fsdp", "tensor", "sequence")
BATCH_AXES = ("data", "fsdp")

# Logical names that modules give the axes of their activations -> axes of the mesh.
LOGICAL_AXES = (
    ("batch", BATCH_AXES),
    ("length", "sequence"),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("vocabulary", "tensor"),
    ("width", None),
    ("head_width", None),
)


def make_mesh(section: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh that a config's `mesh` section describes.

    Args:
      section: devices along each of `AXES`; one may be -1, which takes what is left.
      devices: of all processes; by default every one there is. They may be those of a machine that
        is only compiled for.

    Returns:
      A mesh with the axes `AXES`, all of type `Auto`: the compiler propagates shardings.

    Raises:
      ConfigError: where the sizes do not use all devices exactly once.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = _mesh_shape([int(section[axis]) for axis in AXES], len(devices))
    mesh = Mesh(_arrange(shape, devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))
    groups = _row_groups(mesh)
    if sum(len(parts) for parts in set(groups.values())) != batch_parts(mesh):
        raise ConfigError(
            f"mesh: tensor x sequence = {shape[2] * shape[3]} devices share rows of the batch and cut across "
            f"the devices of the {len(groups)} processes; expected a divisor or a multiple of "
            f"{len(devices) // len(groups)}, the devices of one process"
        )
    return mesh


def reader(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
    """(index, count): a process reads the part `index` of `count` equal parts of every batch.

    Processes that hold the same rows, since `tensor` or `sequence` reaches from one to the other,
    have the same index, so count may be smaller than the number of processes. Where a process's rows
    do not lie side by side on the mesh, `jax.make_array_from_process_local_data` permutes the rows
    of the batch: the examples are the same.

    Args:
      mesh: the mesh.
      process: by default the one that asks.
    """
    groups = _row_groups(mesh)
    distinct = sorted(set(groups.values()))
    return distinct.index(groups[jax.process_index() if process is None else process]), len(distinct)


def _row_groups(mesh: Mesh) -> dict[int, tuple[int, ...]]:
    """Process -> which of the `batch_parts` its devices hold."""
    groups: dict[int, set[int]] = {}
    for part, devices in enumerate(mesh.devices.reshape(batch_parts(mesh), -1)):
        for device in devices:
            groups.setdefault(device.process_index, set()).add(part)
    return {process: tuple(sorted(parts)) for process, parts in groups.items()}


def _mesh_shape(sizes: list[int], count: int) -> tuple[int, ...]:
    fixed = math.prod(size for size in sizes if size != -1)
    legal = all(size >= 1 or size == -1 for size in sizes)
    if legal and sizes.count(-1) == 1 and count % fixed == 0:
        return tuple(count // fixed if size == -1 else size for size in sizes)
    if legal and sizes.count(-1) == 0 and fixed == count:
        return tuple(sizes)
    given = " ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    divisors = ", ".join(str(d) for d in range(1, count + 1) if count % d == 0)
    raise ConfigError(
        f"mesh: got {given} for {count} device{'s' * (count > 1)}; expected sizes whose product is {count}, "
        f"each one of: {divisors} (at most one may be -1, which takes what is left)"
    )


def _arrange(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """Devices such that neighbours on the mesh are neighbours in the machine, as far as that goes."""
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    # TPU slices are joined by the slower data-centre network, which only `data` crosses.
    if shape[0] % slices:
        raise ConfigError(f"mesh.data: got {shape[0]}, expected a multiple of the {slices} TPU slices")
    within = (shape[0] // slices, *shape[1:])
    return mesh_utils.create_hybrid_device_mesh(
        within, (slices, 1, 1, 1), devices, allow_split_physical_axes=True
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis `B` is split over `data` and `fsdp`; for every array of a batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_parts(mesh: Mesh | AbstractMesh) -> int:
    """Into how many parts a batch is split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_and_head_axes(
    mesh: Mesh | AbstractMesh, batch: int, heads: int
) -> tuple[tuple[str, ...] | None, str | None]:
    """The mesh axes of `batch` examples and of `heads`; None where these do not divide and stay whole."""
    return (
        BATCH_AXES if batch % batch_parts(mesh) == 0 else None,
        "tensor" if heads % mesh.shape["tensor"] == 0 else None,
    )


def check_batch_size(batch_size: int, mesh: Mesh, accumulate_steps: int = 1) -> None:
    """Raises a `ConfigError` unless every microbatch splits evenly over the mesh.

    Args:
      batch_size: B, examples of one step on all devices together.
      mesh: the mesh.
      accumulate_steps: microbatches in a step.
    """
    if accumulate_steps < 1:
        raise ConfigError(f"optimizer.accumulate_steps: got {accumulate_steps}, expected 1 or more")
    unit = batch_parts(mesh) * accumulate_steps
    if batch_size < 1 or batch_size % unit:
        below = batch_size // unit * unit
        nearest = [str(size) for size in (below, below + unit) if size > 0]
        raise ConfigError(
            f"batch_size: got {batch_size}, expected a multiple of {unit} (data x fsdp = {batch_parts(mesh)} "
            f"devices, times {accumulate_steps} microbatches), such as {' or '.join(nearest)}"
        )


@contextlib.contextmanager
def activation_rules(mesh: Mesh) -> Iterator[None]:
    """Inside, `flax.linen.with_logical_constraint` places activations on `mesh` by `LOGICAL_AXES`.

    Enter it within the function that is jitted. Outside it those calls do nothing.
    """
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(LOGICAL_AXES):
        yield


def compiles_for_tpu() -> bool:
    """Whether the mesh of `activation_rules` is of TPUs, be they here or only compiled for."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.abstract_device is not None and mesh.abstract_device.platform == "tpu"
