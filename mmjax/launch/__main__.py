"""`./launch.sh --on=PLACE [--dry-run] [settings] VERB ...`, called by launch.sh."""

from __future__ import annotations

import os
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence

from mmjax import __main__ as program
from mmjax.components import suggestion
from mmjax.errors import ConfigError
from mmjax.launch import settings, slurm, tpu
from mmjax.verbs import common

ROOT = pathlib.Path(__file__).resolve().parents[2]
_SETTINGS = {"local": (), "slurm": slurm.SETTINGS, "tpu": tpu.SETTINGS}
_TOGETHER = ("train", "eval")  # verbs that know of several hosts


def usage() -> str:
    """The text of `--help`."""
    lines = [
        "usage: ./launch.sh --on=local|slurm|tpu [--dry-run] [--setting=VALUE ...] VERB ...",
        "",
        "--dry-run prints what would be written and run. Settings of --on=slurm:",
        *settings.describe("slurm", slurm.SETTINGS),
        "",
        "Settings of --on=tpu:",
        *settings.describe("tpu", tpu.SETTINGS),
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a verb in a place; returns the exit code, where this process is not replaced.

    Args:
      arguments: the place, its settings, the verb and its arguments.
      environment: variables with settings.

    Raises:
      ConfigError: what was given cannot be run; nothing is written or submitted.
      MmjaxError: a program of the place failed.
    """
    place, *rest = arguments
    if place not in _SETTINGS:
        raise ConfigError(f"--on={place}: expected local, slurm or tpu{suggestion(place, _SETTINGS)}")
    flags, command = settings.split(rest)
    if "--help" in flags:
        print(usage())
        return 0
    dry_run = "--dry-run" in flags
    values = settings.read(place, _SETTINGS[place], [f for f in flags if f != "--dry-run"], environment)
    if not command:
        raise ConfigError(f"--on={place}: name a verb, such as: ./launch.sh --on={place} train --workdir=DIR")
    if place == "local":
        local = [str(ROOT / "launch.sh"), *command]
        if dry_run:
            print(shlex.join(local))
            return 0
        os.execv(local[0], local)
    _, verb_flags, overrides = program.read(command)
    if command[0] == "train":
        common.resolve(verb_flags, overrides)  # a wrong key is found here, and not after a night in the queue
    workers = 1
    if command[0] == "sweep":
        from mmjax.verbs import sweep

        workers = sweep.check_elsewhere(verb_flags, overrides, place)
    if workers > 1:
        command = sweep.one_worker(command)
    if not getattr(verb_flags, "workdir", None):
        raise ConfigError(f"--on={place}: {command[0]} needs --workdir=DIR, on storage that all hosts see")
    if place == "slurm":
        if values["nodes"] != "1" and command[0] not in _TOGETHER:
            raise ConfigError(
                f"--nodes={values['nodes']}: {command[0]} runs on one host; several are for "
                + " and ".join(_TOGETHER)
            )
        workdir = pathlib.Path(verb_flags.workdir)
        launcher = ROOT / "launch.sh"
        return slurm.run(values, command, workdir=workdir, launcher=launcher, dry_run=dry_run, tasks=workers)
    inside = tpu.MOUNT in pathlib.PurePosixPath(verb_flags.workdir).parents
    if values["nfs"] and not inside:
        raise ConfigError(
            f"--workdir={verb_flags.workdir}: is not on the file system of --nfs; expected {tpu.MOUNT}/..."
        )
    if not values["nfs"]:
        print(
            "note: without --nfs, a --workdir on the disk of the TPU VM is lost when the VM is, and several "
            "hosts cannot share it",
            file=sys.stderr,
        )
    if workers > 1:
        return tpu.run_several(values, command, root=ROOT, dry_run=dry_run, count=workers)
    return tpu.run(values, command, root=ROOT, dry_run=dry_run)


if __name__ == "__main__":
    program.end_with(lambda: main(sys.argv[1:], os.environ))
