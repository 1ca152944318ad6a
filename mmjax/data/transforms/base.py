"""Checks that every transform makes of its settings and of what it is given."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from mmjax.errors import ConfigError, DataError


def transform_name(transform: Any) -> str:
    """The name of a transform in the table: its class name in snake case."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(transform).__name__).lower()


def require(transform: Any, field: str, holds: bool, expected: str) -> None:
    """Raises a `ConfigError` that names the field, unless `holds`."""
    if not holds:
        given = getattr(transform, field)
        raise ConfigError(f"{transform_name(transform)}.{field}: got {given!r}, expected {expected}")


def fail(transform: Any, value: Any, expected: str) -> DataError:
    """The error to raise for a value of the wrong kind."""
    return DataError(f"{transform_name(transform)}: got {describe(value)}, expected {expected}")


def require_array(transform: Any, value: Any, ndim: int, what: str) -> np.ndarray:
    """`value` as it is, if it is a numeric array of at least `ndim` axes; else a `DataError`."""
    if not isinstance(value, np.ndarray) or value.ndim < ndim or value.dtype.kind not in "buif":
        raise fail(transform, value, what)
    return value


def describe(value: Any) -> str:
    """What a value is, in a few words: 'bytes (812)', 'an array [28, 28] uint8', 'text'."""
    if value is None:
        return "nothing"
    if isinstance(value, bytes):
        return f"bytes ({len(value)})"
    if isinstance(value, str):
        return f"text ({value[:20]!r})"
    if isinstance(value, np.ndarray):
        return f"an array {list(value.shape)} {value.dtype}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "a mapping of " + ", ".join(map(str, value))
    return f"{value!r} ({type(value).__name__})"


def present_values(transform: Any, value: Any) -> list[Any]:
    """The values of a list that are not None, lists in it taken apart; at least one."""
    if not isinstance(value, list | tuple):
        raise fail(transform, value, "a list (name several features, or a feature that holds a list)")
    flat = [inner for item in value for inner in (item if isinstance(item, list | tuple) else [item])]
    found = [item for item in flat if item is not None]
    if not found:
        raise fail(transform, value, "a list with at least one value")
    return found
