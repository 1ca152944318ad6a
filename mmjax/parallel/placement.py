"""Where each parameter lives on the mesh.

`PLACEMENT` says which axis of a parameter is split over `tensor`. What is big is also split over
`fsdp`, along the largest axis that divides evenly and is still free: no table is needed for that.
Optimizer state and moving averages follow their parameters.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from mmjax.errors import ConfigError
from mmjax.parallel.mesh import replicated

# (end of a parameter's path, a regular expression) -> mesh axes of its LAST axes; the axes in front
# of them, such as that of a scanned stack of layers, stay whole. The first match counts. Column
# then row, so that a block needs one sum over `tensor` per branch (Shoeybi et al. 2019,
# arXiv:1909.08053, section 3).
PLACEMENT = (
    (r"(query|key|value)/kernel", (None, "tensor", None)),  # [D, H, K]
    (r"(query|key|value)/bias", ("tensor", None)),  # [H, K]
    (r"out/kernel", ("tensor", None, None)),  # [H, K, D]
    (r"(up|gate)/kernel", (None, "tensor")),  # [D, F]
    (r"(up|gate)/bias", ("tensor",)),  # [F]
    (r"down/kernel", ("tensor", None)),  # [F, D]
    (r"embed(ding)?/embedding", ("tensor", None)),  # [V, D]
    (r"logits/kernel", (None, "tensor")),  # [D, V]
    (r"logits/bias", ("tensor",)),  # [V]
    # Factors of `mmjax.training.lora` have the axes of their kernel, and r, which is not split.
    (r"(query|key|value)/kernel/b", (None, "tensor", None)),  # [r, H, K]
    (r"out/kernel/a", ("tensor", None, None)),  # [H, K, r]
    (r"(up|gate)/kernel/b", (None, "tensor")),  # [r, F]
    (r"down/kernel/a", ("tensor", None)),  # [F, r]
)

# Smaller arrays are not split over `fsdp`: gathering them costs more than keeping them.
FSDP_MIN_SIZE = 2**16

# Kind of memory of a host that its devices reach by themselves.
HOST_MEMORY = "pinned_host"

# Bytes of parameters from which on it matters that they are split.
_LARGE_MODEL = 2**30


def named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Pairs ('image_encoder/blocks_0/attention/query/kernel', leaf) of a tree."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        yield path_name(path), leaf


def path_name(path: tuple) -> str:
    """The '/'-joined name of a key path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def param_shardings(params: Any, mesh: Mesh, *, min_size: int = FSDP_MIN_SIZE) -> Any:
    """Tree of `NamedSharding`s for a tree of parameters.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s.
      mesh: the mesh.
      min_size: number of elements from which an array is split over `fsdp`.
    """

    def place(path, leaf):
        return NamedSharding(mesh, _spec(path_name(path), leaf.shape, mesh, min_size))

    return jax.tree.map_with_path(place, params)


def state_shardings(state: Any, params: Any, mesh: Mesh, *, min_size: int = FSDP_MIN_SIZE) -> Any:
    """Tree of `NamedSharding`s for a train state.

    A leaf whose path ends with that of a parameter, and which has its shape (moments, moving
    averages, the parameter itself), lies where the parameter does; the rest (counts, keys, batch
    statistics, factored moments) is on every device.

    Args:
      state: arrays or shapes, of any structure.
      params: the parameters in it.
      mesh, min_size: see `param_shardings`.
    """
    shapes = {name: leaf.shape for name, leaf in named_leaves(params)}
    placed = dict(named_leaves(param_shardings(params, mesh, min_size=min_size)))

    def place(path, leaf):
        names = [path_name((key,)) for key in path]
        for start in range(len(names)):
            name = "/".join(names[start:])
            if shapes.get(name) == leaf.shape:
                return placed[name]
        return replicated(mesh)

    return jax.tree.map_with_path(place, state)


def in_host_memory(shapes: Any, shardings: Any, *, min_size: int = FSDP_MIN_SIZE) -> Any:
    """`shardings` of a tree whose arrays of at least `min_size` elements lie in the memory of the hosts.

    Raises:
      ConfigError: the devices do not reach it.
    """
    device = jax.tree.leaves(shardings)[0].mesh.devices.flat[0]
    kinds = [memory.kind for memory in device.addressable_memories()]
    if HOST_MEMORY not in kinds:
        raise ConfigError(
            f"optimizer.offload: {device.device_kind} has no memory of the kind {HOST_MEMORY} (it has: "
            f"{', '.join(kinds)}); leave it at false"
        )
    return jax.tree.map(
        lambda leaf, sharding: sharding.with_memory_kind(HOST_MEMORY) if leaf.size >= min_size else sharding,
        shapes,
        shardings,
    )


def in_device_memory(shardings: Any) -> Any:
    """`shardings` as before `in_host_memory`."""
    return jax.tree.map(
        lambda sharding: sharding.with_memory_kind("device") if is_in_host_memory(sharding) else sharding,
        shardings,
    )


def is_in_host_memory(sharding: jax.sharding.Sharding) -> bool:
    """Whether an array so placed lies in the memory of the hosts."""
    return sharding.memory_kind == HOST_MEMORY


def check_replicated(
    params: Any, shardings: Any, largest_share: float, *, large_model: int = _LARGE_MODEL
) -> None:
    """Raises a `ConfigError` where a mesh that splits parameters leaves too many whole on every device.

    Args:
      params: arrays or shapes.
      shardings: of them.
      largest_share: of their bytes.
      large_model: bytes of all parameters below which nothing is asked.
    """
    mesh = jax.tree.leaves(shardings)[0].mesh
    total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    if mesh.shape["fsdp"] * mesh.shape["tensor"] == 1 or total < large_model:
        return
    whole = largest_replicated(params, shardings, count=None)
    share = sum(size for _, size in whole) / total
    if share > largest_share:
        shown = ", ".join(f"{name} ({size / 2**20:,.1f} MiB)" for name, size in whole[:3])
        raise ConfigError(
            f"mesh: every device holds {share:.0%} of the parameters whole, expected at most "
            f"{largest_share:.0%} (mesh.max_replicated); the largest: {shown}; set mesh.fsdp to a number "
            "that divides an axis of theirs, or raise mesh.max_replicated"
        )


def largest_replicated(tree: Any, shardings: Any, count: int | None = 5) -> list[tuple[str, int]]:
    """The `count` largest arrays (None: all) that every device holds whole: (path, bytes), largest first."""
    whole = [
        (name, leaf.size * leaf.dtype.itemsize)
        for (name, leaf), (_, sharding) in zip(named_leaves(tree), named_leaves(shardings), strict=True)
        if sharding.is_fully_replicated
    ]
    return sorted(whole, key=lambda item: (-item[1], item[0]))[:count]


def gathered(params: Any) -> Any:
    """`params` of one layer, whole along `fsdp`, for the time in which the layer is computed.

    Inside `activation_rules`. Left alone, the compiler passes parts of a kernel around and adds up as many
    partial products, each as large as the activations. Gradients are summed into the parts.

    Args:
      params: arrays as they are placed, under paths that end as those of the model do.
    """
    mesh = jax.sharding.get_abstract_mesh()

    def gather(path, leaf):
        parts = _spec(path_name(path), leaf.shape, mesh, FSDP_MIN_SIZE)
        whole = PartitionSpec(*(None if axis == "fsdp" else axis for axis in parts))
        return leaf if parts == whole else _gather(leaf, parts, whole)

    return jax.tree.map_with_path(gather, params)


def gathers() -> bool:
    """Whether parameters are split over `fsdp` here: never outside of `activation_rules`."""
    return dict(jax.sharding.get_abstract_mesh().shape).get("fsdp", 1) > 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(leaf, parts, whole):
    return jax.lax.with_sharding_constraint(leaf, whole)


def _scatter(parts, whole, _, gradient):
    # Whole first: for parts alone the compiler computes products part by part, as above.
    gradient = jax.lax.with_sharding_constraint(gradient, whole)
    return (jax.lax.with_sharding_constraint(gradient, parts),)


_gather.defvjp(lambda leaf, parts, whole: (_gather(leaf, parts, whole), None), _scatter)


def _spec(name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh, min_size: int) -> PartitionSpec:
    axes = _tensor_axes(name, shape, mesh)
    parts = mesh.shape["fsdp"]
    if parts > 1 and math.prod(shape) >= min_size:
        free = [i for i, size in enumerate(shape) if axes[i] is None and size % parts == 0]
        if free:
            axes[max(free, key=lambda i: shape[i])] = "fsdp"
    return PartitionSpec(*axes)


def _tensor_axes(name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> list[str | None]:
    for pattern, trailing in PLACEMENT:
        if len(trailing) <= len(shape) and re.fullmatch(f"(.*/)?{pattern}", name):
            axes = [None] * (len(shape) - len(trailing)) + list(trailing)
            # A size that does not divide evenly (3 heads on 2 devices) stays whole, and one that a mesh
            # axis of 1 would not split is free for `fsdp`.
            return [
                axis if axis and mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0 else None
                for axis, size in zip(axes, shape, strict=True)
            ]
    return [None] * len(shape)
