"""A tiny config to plan for."""

from __future__ import annotations

import pathlib

import tiny

from mmjax import config as config_lib


def write_config(folder: pathlib.Path, **changes) -> str:
    """A config whose data is nowhere, and how it is named."""
    plain = tiny.without_fusion(tiny.plain_config(folder / "nowhere" / "rows.jsonl", folder / "data"))
    plain["data"]["train"]["class_names"] = {"colour": list(tiny.COLOURS)}
    plain["data"]["streams"]["image"]["train"].insert(1, {"type": "resize", "size": 8})
    file = folder / "tiny.json"
    file.write_text(config_lib.to_json(tiny.resolved(plain, **changes)))
    return str(file)
