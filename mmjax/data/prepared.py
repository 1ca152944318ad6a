"""Prepared directories: written once, published by a rename, checked by digest.

Two processes may prepare the same data at once: each writes to its own scratch directory, the first
rename wins and the other's work is thrown away.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

from mmjax.errors import DataError
from mmjax.files import write_text

DIGESTS = "digests.json"


def default_dir() -> pathlib.Path:
    """Where prepared data lives unless a config says otherwise: $MMJAX_DATA_DIR, else ~/.cache/mmjax."""
    return pathlib.Path(os.environ.get("MMJAX_DATA_DIR") or "~/.cache/mmjax").expanduser()


@contextlib.contextmanager
def scratch(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new directory in `parent`, gone after the block (unless published meanwhile).

    Raises:
      DataError: when something in the block cannot be written.
    """
    directory = parent / f".scratch-{uuid.uuid4().hex}"
    try:
        directory.mkdir(parents=True)
        yield directory
    except OSError as error:
        raise DataError(f"cannot write to {parent} ({error}); set data.dir to another place") from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def is_published(directory: pathlib.Path) -> bool:
    """Whether `publish` made this directory."""
    return (directory / DIGESTS).exists()


def publish(directory: pathlib.Path, target: pathlib.Path) -> None:
    """Records the digests of all files in `directory` and moves it to `target` in one step."""
    write_digests(directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        directory.rename(target)
    except OSError:
        if not is_published(target):  # else another process was faster with the same content
            raise


def write_digests(directory: pathlib.Path) -> None:
    """Writes `digests.json`: `{file: {'size': bytes, 'sha256': hex}}` of every file in `directory`."""
    files = sorted(path for path in directory.iterdir() if path.is_file() and path.name != DIGESTS)
    digests = {path.name: {"size": path.stat().st_size, "sha256": _sha256(path)} for path in files}
    write_text(directory / DIGESTS, json.dumps(digests, indent=1))


def read_digests(directory: pathlib.Path, name: str) -> dict[str, str]:
    """`{file: hex SHA-256}` as recorded, after checking that each file has its recorded size.

    Args:
      directory: a published directory.
      name: of the data set, for messages.

    Raises:
      DataError: when the directory was never published, or a file is missing or truncated.
    """
    path = directory / DIGESTS
    if not is_published(directory):
        raise DataError(f"{name}: not prepared in {directory}; run ./launch.sh prepare --config=...")
    try:
        digests = json.loads(path.read_text(encoding="utf-8"))
        recorded = {file: (entry["size"], entry["sha256"]) for file, entry in digests.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(name, path, "is not readable") from None
    for file, (size, _) in recorded.items():
        if not (directory / file).is_file():
            raise _damaged(name, directory / file, "is missing")
        found = (directory / file).stat().st_size
        if found != size:
            raise _damaged(name, directory / file, f"has {found} bytes, expected {size}")
    return {file: sha256 for file, (_, sha256) in recorded.items()}


def verify_digests(directory: pathlib.Path, name: str) -> None:
    """Reads every file and compares it with its recorded digest.

    Raises:
      DataError: naming the first file that differs.
    """
    for file, sha256 in read_digests(directory, name).items():
        if _sha256(directory / file) != sha256:
            raise _damaged(name, directory / file, "does not have its recorded SHA-256")


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(name, path, what):
    return DataError(f"{name}: {path} {what}; delete {path.parent} and run ./launch.sh prepare --config=...")
