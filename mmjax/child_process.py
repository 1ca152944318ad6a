"""Further processes of this program, as `./launch.sh` would start them."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Mapping

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def command(*arguments: str) -> list[str]:
    """What starts a verb with its flags."""
    return [sys.executable, "-m", "mmjax", *arguments]


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `changes`, in which Python finds the code of this process.

    Also from another working directory, and where another version is installed.
    """
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path} | dict(changes)
