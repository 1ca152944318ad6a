"""Checkpoints as directories: which there are, which are complete, whole, and best.

A checkpoint is a directory named by its step. A SHA-256 digest of each file says that it is whole:
storage formats do not notice every damage (Orbax reads a flipped bit as another weight), and an
atomic rename says nothing about files that are lost later.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import pathlib
import re
from typing import Any

from absl import logging

from mmjax.errors import DataError
from mmjax.files import write_json
from mmjax.training.workdir import read_json

RECORD = "checkpoint.json"
DIGESTS = "digests.json"
_THREADS = 8  # hashing and reading release the interpreter's lock


def write_digests(directory: pathlib.Path) -> None:
    """Writes `digests.json`, last and atomically: with it the directory is complete."""
    write_json(directory / DIGESTS, {"sha256": _digests(directory, _files(directory))})


def is_complete(directory: pathlib.Path) -> bool:
    """Whether `digests.json` was written; nothing is verified."""
    return (directory / DIGESTS).is_file()


def find_damage(directory: pathlib.Path) -> str | None:
    """What is wrong with a directory, or None where every file is as it was written."""
    try:
        expected = json.loads((directory / DIGESTS).read_bytes())["sha256"]
        expected = {str(name): str(digest) for name, digest in expected.items()}
    except FileNotFoundError:
        return f"{DIGESTS} is missing: it was never finished"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{DIGESTS} is not readable"
    missing = sorted(set(expected) - set(_files(directory)))
    if missing:
        return f"{missing[0]} is missing"
    found = _digests(directory, list(expected))
    changed = sorted(name for name, digest in expected.items() if found[name] != digest)
    return f"{changed[0]} has changed" if changed else None


def _files(directory: pathlib.Path) -> list[str]:
    return sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and path.name != DIGESTS and not path.name.endswith(".partial")
    )


def _digests(directory: pathlib.Path, names: list[str]) -> dict[str, str]:
    def digest(name):
        with (directory / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(names, pool.map(digest, names), strict=True))


def numbered(directory: pathlib.Path) -> list[int]:
    """Steps of all checkpoints, complete or not, oldest first."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if re.fullmatch(r"\d+", path.name))


def complete_steps(directory: pathlib.Path) -> list[int]:
    """Steps of the checkpoints whose save came to its end, oldest first."""
    return [step for step in numbered(directory) if is_complete(directory / str(step))]


def newest_whole(directory: pathlib.Path) -> tuple[int | None, list[pathlib.Path]]:
    """The newest step whose every file is as it was written, and the newer ones that are not."""
    unusable = []
    for step in reversed(numbered(directory)):
        path = directory / str(step)
        damage = find_damage(path)
        if damage is None:
            return step, unusable
        logging.error("checkpoint %s cannot be used (%s); looking for an older one", path, damage)
        unusable.append(path)
    return None, unusable


def verify(directory: pathlib.Path, step: int) -> None:
    """Raises a `DataError` unless the checkpoint of that step is there and whole."""
    path = directory / str(step)
    if not path.is_dir():
        steps = ", ".join(map(str, complete_steps(directory))) or "none"
        raise DataError(f"{path}: there is no such checkpoint; the directory has: {steps}")
    damage = find_damage(path)
    if damage is not None:
        raise DataError(f"{path}: is damaged ({damage}); choose another step")


def set_aside(path: pathlib.Path) -> None:
    """Renames a checkpoint that cannot be used, so that its step can be saved again."""
    target = path.with_name(f"{path.name}.damaged")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.damaged-{number}")
    path.rename(target)
    logging.warning("renamed %s to %s", path, target.name)


def read_record(path: pathlib.Path) -> dict[str, Any]:
    """`checkpoint.json` of one checkpoint: step, data_state, metrics, and by what the best is chosen."""
    return read_json(path / RECORD)


def best_step(directory: pathlib.Path, metric: str | None, mode: str) -> int | None:
    """The complete checkpoint with the best value of `metric`, the first of equals; None without one."""
    if metric is None:
        return None
    metrics = {step: record["metrics"] for step, record in _records(directory).items()}
    values = {step: found[metric] for step, found in metrics.items() if metric in found}
    return (max if mode == "max" else min)(values, key=values.__getitem__, default=None)


def recorded_best(directory: pathlib.Path) -> int | None:
    """The best step by what the newest checkpoint says is best."""
    records = _records(directory)
    if not records:
        return None
    best = records[max(records)]["best"]
    return best_step(directory, best["metric"], best["mode"])


def _records(directory: pathlib.Path) -> dict[int, dict[str, Any]]:
    """The records of the complete checkpoints; one that cannot be read is no reason to stop training."""
    records = {}
    for step in complete_steps(directory):
        try:
            record = read_record(directory / str(step))
            records[step] = {"metrics": dict(record["metrics"]), "best": dict(record["best"])}
        except (DataError, KeyError, TypeError, ValueError) as error:
            logging.warning("checkpoint %s is not considered as the best: %r", directory / str(step), error)
    return records
