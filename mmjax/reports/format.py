"""Numbers, durations and nested values as short text for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any


def number(value: Any) -> str:
    """Four significant digits; whole numbers in full with thin spaces between thousands."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "nan")
    if isinstance(value, int) or (value.is_integer() and abs(value) != 1):  # 1.000 among shares
        return f"{int(value):,}".replace(",", "\N{THIN SPACE}")
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 1e6):
        return _scientific(value, digits=3)
    decimals = max(0, 3 - max(0, math.floor(math.log10(size)) if size else 0))
    return f"{value:.{decimals}f}"


def short(value: float) -> str:
    """As short as an axis label: `1.5k`, `20M`, `0.05`, `3e-4`."""
    size = abs(value)
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= factor:
            return f"{value / factor:.3g}{unit}"
    if 0 < size < 1e-3:
        return _scientific(value, digits=1)
    return f"{value:.3g}"


def _scientific(value, digits):
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def duration(seconds: float) -> str:
    """`12.3 s`, `4 min 05 s`, `2 h 07 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plain(value: Any) -> str:
    """A nested value on one line: `jax 0.10.2, flax 0.12.8`; equal items of a list are counted."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        counted = Counter(plain(item) for item in value)
        return ", ".join(f"{count} × {item}" if count > 1 else item for item, count in counted.items())
    return number(value)


def cut(text: Any, length: int) -> str:
    """The text, ended by an ellipsis where it is longer than `length` characters."""
    text = str(text)
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
