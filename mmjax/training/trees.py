"""Parts of nested dictionaries of arrays: of parameters, those that are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict


def select(tree: Mapping[str, Any], mask: Mapping[str, Any] | None) -> dict[str, Any]:
    """The leaves of `tree` where `mask`, a tree of bools like it, is True; all where it is None."""
    if mask is None:
        return dict(tree)
    wanted = flatten_dict(mask)
    return unflatten_dict({path: leaf for path, leaf in flatten_dict(tree).items() if wanted[path]})


def pick(tree: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of `tree` at the paths that `like` has."""
    leaves = flatten_dict(tree)
    return unflatten_dict({path: leaves[path] for path in flatten_dict(like)})


def overlay(tree: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` with the leaves of `part` in place of its own."""
    return unflatten_dict({**flatten_dict(tree), **flatten_dict(part)})
