"""Regular expressions that match a whole '/'-joined parameter path, such as `text_encoder/.*`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from mmjax.errors import ConfigError


def matches(patterns: Sequence[str], name: str) -> bool:
    """Whether any of `patterns` matches the path."""
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def check_matches(pattern: str, names: Sequence[str], key: str, what: str = "parameter") -> None:
    """Raises a `ConfigError` that shows near paths, unless `pattern` matches one.

    Args:
      pattern: of the config.
      names: the paths there are.
      key: of the config, for the message.
      what: is looked for, for the message.
    """
    if any(re.fullmatch(pattern, name) for name in names):
        return
    parents = {"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 2)}
    near = difflib.get_close_matches(pattern.replace(".*", ""), sorted(parents), n=3, cutoff=0.4)
    near = near or sorted(names)[:3]
    raise ConfigError(
        f"{key}: '{pattern}' matches no {what}; a pattern matches a whole path, such as 'encoder/.*'; "
        f"near: {', '.join(near)}"
    )
