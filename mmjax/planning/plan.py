"""A plan: what one step of a config needs, moves and takes on chips that are not here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from absl import logging

from mmjax import config as config_lib
from mmjax.parallel.chips import Chip
from mmjax.parallel.mesh import batch_sharding
from mmjax.parallel.placement import is_in_host_memory, largest_replicated
from mmjax.planning import collectives as collectives_lib
from mmjax.planning import costs, hlo, stand_in
from mmjax.planning.compilation import Compilation, compile_step, make_setup
from mmjax.planning.topology import Topology, devices, tpu_compiler_version
from mmjax.training.model_flops import model_flops
from mmjax.training.setup import Setup
from mmjax.training.state import shardings_of

FORMAT = "mmjax.plan.1"
_SHOWN_REPLICATED = 2**20  # bytes; smaller arrays are not worth a word


@dataclasses.dataclass(frozen=True)
class Job:
    """What a plan is made of.

    Attributes:
      reference: of the config, as `--config` takes it.
      overrides: key of the config -> text.
      topology: the chips.
      batch_per_chip: examples of a step for each chip, instead of the config's `batch_size`.
    """

    reference: str
    overrides: Mapping[str, str]
    topology: Topology
    batch_per_chip: int | None = None

    def changed(self, changes: Mapping[str, str]) -> Job:
        """The same with other keys."""
        kept = None if "batch_size" in changes else self.batch_per_chip
        return dataclasses.replace(self, overrides={**self.overrides, **changes}, batch_per_chip=kept)

    def resolve(self):
        """The config."""
        overrides = dict(self.overrides)
        if self.batch_per_chip is not None:
            overrides["batch_size"] = str(self.batch_per_chip * self.topology.count)
        return config_lib.resolve(self.reference, overrides)


def make_plan(job: Job) -> dict[str, Any]:
    """Compiles the step of a job and reads off what it needs.

    Returns:
      JSON: the keys stand in docs/plan.md. What is not known (no compiler, or it does not fit) is None.

    Raises:
      ConfigError: naming the first key that does not fit the chips or each other.
    """
    config = job.resolve()
    data = stand_in.load(config)
    setup = make_setup(config, data, devices(job.topology))
    logging.info("%s: tracing the step at batch %d", job.topology.name, config.batch_size)
    plan = _without_compiling(job, setup, data.notes)
    if not job.topology.compiles:
        return plan | _arguments_alone(plan, job.topology.chip)
    logging.info("%s: compiling", job.topology.name)
    compilation = compile_step(setup)
    logging.info("%s: compiled in %.0f s", job.topology.name, compilation.seconds)
    plan["compile_seconds"] = round(compilation.seconds, 1)
    if not compilation.fits:
        needed = compilation.needed_bytes
        return plan | {"fits": False, "reason": compilation.reason, "needed_bytes": needed}
    return plan | _of_program(plan, setup, compilation, job.topology)


def _without_compiling(job: Job, setup: Setup, notes: list[str]) -> dict[str, Any]:
    config, chip = setup.config, job.topology.chip
    state = setup.abstract
    batch = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(setup.mesh))
        for name, x in setup.batch.items()
    }
    kinds = {
        "parameters": state.params,
        "optimizer_state": state.opt_state,
        "moving_average": state.ema,
        "model_state": state.model_state,
        "batch": batch,
    }
    replicated = largest_replicated(state.params, shardings_of(state.params))
    frozen = ["frozen parameters count in model_flops as if they moved"] if config.optimizer.frozen else []
    return {
        "format": FORMAT,
        "config": job.reference,
        "overrides": dict(job.overrides),
        "topology": job.topology.name,
        "chips": job.topology.count,
        "mesh": dict(setup.mesh.shape),
        "batch_size": config.batch_size,
        "batch_per_chip": config.batch_size / job.topology.count,
        "dtype": config.dtype,
        "remat": config.remat,
        "scan": config.scan,
        "accumulate_steps": config.optimizer.accumulate_steps,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "fits": None,
        "reason": "",
        "needed_bytes": None,
        "available_bytes": chip and chip.memory_bytes,
        "memory": {kind: _bytes_of_a_device(tree) for kind, tree in kinds.items()},
        "host_bytes": sum(_bytes_of_a_device(tree, in_host_memory=True) for tree in kinds.values()),
        "temp_bytes": None,
        "argument_bytes": None,
        "flops": None,
        "model_flops": model_flops(setup),
        "collectives": None,
        "collective_bytes": None,
        "memory_traffic_bytes": None,
        "estimated_cycles": None,
        "estimated_seconds": None,
        "roofline": None,
        "largest_batch": None,
        "nearest": None,
        "replicated": [list(item) for item in replicated if item[1] >= _SHOWN_REPLICATED],
        "compile_seconds": None,
        "notes": notes + frozen,
        "versions": _versions(job.topology),
    }


def _of_program(
    plan: Mapping[str, Any], setup: Setup, compilation: Compilation, topology: Topology
) -> dict[str, Any]:
    memory = compilation.compiled.memory_analysis()
    program = hlo.parse(compilation.compiled.as_text())
    flops = _flops(compilation, program)
    chip, slices = topology.chip, topology.slices
    within = {**setup.mesh.shape, "data": setup.mesh.shape["data"] // slices}
    exchanges = collectives_lib.collectives(program, within, slices)
    sent: dict[str, dict[str, float]] = {}
    for exchange in exchanges:
        sent.setdefault(exchange.kind, {})[exchange.axes] = exchange.sent_bytes
    cycles, notes = costs.estimated_cycles(program), plan["notes"] + _loop_notes(program)
    if cycles is not None and chip is not None:
        of_kernels, stated, silent = costs.kernel_cycles(program, chip)
        cycles, notes = cycles + of_kernels, notes + _kernel_notes(cycles, of_kernels, stated, silent)
    # The state is given back where it was, so results need no room of their own but for those not reused.
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes + results
    made = {
        "fits": True,
        "needed_bytes": needed,
        "memory": {**plan["memory"], "temporaries": memory.temp_size_in_bytes},
        "temp_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "flops": flops * plan["chips"],
        "collectives": [dataclasses.asdict(exchange) for exchange in exchanges],
        "collective_bytes": sent,
        "memory_traffic_bytes": costs.memory_traffic(program),
        "estimated_cycles": cycles,
        "notes": notes,
    }
    links = sum(exchange.sent_bytes for exchange in exchanges if exchange.axes != collectives_lib.SLICES)
    if slices > 1:
        made["notes"] = [
            *notes,
            "what slices send each other is counted in bytes, and not in the time",
        ]
    if chip is not None:
        made["roofline"] = _roofline(plan, chip, flops, made["memory_traffic_bytes"], links)
        if cycles is not None:
            made["estimated_seconds"] = cycles / chip.clock_hz + links / chip.link_bandwidth
    return made


def _flops(compilation: Compilation, program: hlo.Program) -> int:
    """The compiler's count on one chip, to which products in the further rounds of loops are added."""
    analysis = compilation.compiled.cost_analysis()
    total, once = costs.product_flops(program)
    return int(analysis["flops"]) + total - once


def _loop_notes(program: hlo.Program) -> list[str]:
    if not program.unknown_loops:
        return []
    return [f"{len(program.unknown_loops)} loops of unknown length count as one round"]


def _kernel_notes(cycles: int, of_kernels: int, stated: int, silent: int) -> list[str]:
    notes = []
    if stated:
        share = of_kernels / (cycles + of_kernels)
        notes.append(
            f"{stated} runs of kernels count as the least they can take: {share:.1%} of the estimated time"
        )
    if silent:
        notes.append(f"{silent} runs of kernels state no cost, and count nothing")
    return notes


def _roofline(
    plan: Mapping[str, Any], chip: Chip, flops: int, traffic: int | None, links: float | None
) -> dict[str, Any]:
    """The least time that a step can take, by what each chip can do at most."""
    seconds = {
        "compute": flops / chip.peak_flops,
        "memory": None if traffic is None else traffic / chip.memory_bandwidth,
        "links": None if links is None else links / chip.link_bandwidth,
    }
    known = {name: value for name, value in seconds.items() if value is not None}
    bound = max(known, key=known.get)
    ideal = plan["model_flops"] / plan["chips"] / chip.peak_flops
    return {
        "seconds": seconds,
        "bound": bound,
        "step_seconds": known[bound],
        "mfu": ideal / known[bound],
        "source": chip.source,
    }


def _arguments_alone(plan: Mapping[str, Any], chip: Chip) -> dict[str, Any]:
    """What can be said without a compiler."""
    given = sum(plan["memory"].values())
    too_much = given > chip.memory_bytes
    return {
        "fits": False if too_much else None,
        "reason": "the arguments alone are larger than the memory" if too_much else "",
        "argument_bytes": given,
        "roofline": _roofline(plan, chip, plan["model_flops"] // plan["chips"], None, None),
        "notes": [
            *plan["notes"],
            f"no compiler for {chip.name} here: temporaries, exchanges and the time of a step are not known",
        ],
    }


def _bytes_of_a_device(tree: Any, *, in_host_memory: bool = False) -> int:
    """Of arrays with their shardings: a device's part, without the padding that a compiler may add.

    Args:
      tree: shapes.
      in_host_memory: counts those that lie there, else the others.
    """
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if is_in_host_memory(leaf.sharding) == in_host_memory
    )


def _versions(topology: Topology) -> dict[str, str]:
    found = {"jax": jax.__version__}
    if topology.platform == "tpu":
        found["libtpu"] = tpu_compiler_version()
    return found
