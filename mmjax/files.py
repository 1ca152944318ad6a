"""Files written in one step: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import json
import os
import pathlib
import uuid
from typing import Any


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes or replaces a file, and makes its directory; a failure leaves what was there.

    A process that is killed may leave `.<name>.<digits>.partial` beside it.

    Raises:
      OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes on several machines, which may have the same id, write to one file system.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: pathlib.Path, value: Any) -> None:
    """As `write_text`, with sorted keys, for files that people read too.

    Raises:
      TypeError: JSON has no such value.
      OSError: it cannot be written.
    """
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")
