"""Published figures of chips: for plans, and as the peak that a run is measured against."""

from __future__ import annotations

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, as JAX counts devices.

    Attributes:
      name: as in a topology.
      peak_flops: per second, of bfloat16 products; JAX's default precision takes float32 ones on a TPU
        at that rate too.
      memory_bytes: what a program may use of the HBM, as the TPU compiler (libtpu 0.0.42.1) says when it
        runs out of it; the whole capacity where there is no compiler.
      memory_bandwidth: bytes per second between HBM and the chip.
      link_bandwidth: bytes per second that the chip can send over all its links together: half of what
        is published as bidirectional bandwidth.
      clock_hz: of the cycles that the compiler estimates: the rate at which the matrix units reach the
        published peak. None where there is no compiler.
      source: where the figures stand.
      kinds: what JAX calls it (`jax.Device.device_kind`).
    """

    name: str
    peak_flops: float
    memory_bytes: int
    memory_bandwidth: float
    link_bandwidth: float
    clock_hz: float | None
    source: str
    kinds: tuple[str, ...]


def _clock(peak_flops: float, cells: int) -> float:
    """Each cell of the matrix units multiplies and adds once per cycle."""
    return peak_flops / (2 * cells)


# Cells: four units of 128 x 128 in each core, of which v4 and v5p have two. v6e: the compiler's estimate
# of a large product is 1.4 times what two units of 256 x 256 could do in its cycles, so these count twice.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            "v4", 275e12, int(30.75 * GIB), 1200e9, 300e9, _clock(275e12, 8 * 128**2),
            "https://docs.cloud.google.com/tpu/docs/v4 (32 GiB); links: arXiv:2304.01433",
            ("TPU v4",),
        ),
        Chip(
            "v5e", 197e12, int(15.75 * GIB), 819e9, 200e9, _clock(197e12, 4 * 128**2),
            "https://docs.cloud.google.com/tpu/docs/v5e (16 GB)",
            ("TPU v5 lite", "TPU v5e"),
        ),
        Chip(
            "v5p", 459e12, int(95.74 * GIB), 2765e9, 600e9, _clock(459e12, 8 * 128**2),
            "https://docs.cloud.google.com/tpu/docs/v5p (95 GB)",
            ("TPU v5", "TPU v5p"),
        ),
        Chip(
            "v6e", 918e12, int(31.25 * GIB), 1600e9, 400e9, _clock(918e12, 4 * 256**2),
            "https://docs.cloud.google.com/tpu/docs/v6e (32 GB)",
            ("TPU v6 lite", "TPU v6e"),
        ),
        Chip(
            "h100", 989.4e12, 80 * 10**9, 3350e9, 450e9, None,
            "NVIDIA's H100 data sheet, SXM5, without sparsity; links: NVLink, within a node",
            ("NVIDIA H100 80GB HBM3",),
        ),
    )
}  # fmt: skip


def find(kind: str) -> Chip | None:
    """The chip that JAX calls `kind`; None where its figures are not here."""
    return next((chip for chip in CHIPS.values() if kind in chip.kinds), None)
