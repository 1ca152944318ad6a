"""--on=slurm: a verb as a job of SLURM, one task on each node.

The job's script and its log stand in `<workdir>/launch/`. When the run was preempted and has saved
(exit code 75; also some minutes before the end of the job's time), the job puts itself back into the
queue, and the same command goes on. Options: https://slurm.schedmd.com/sbatch.html.
"""

from __future__ import annotations

import pathlib
import shlex
import subprocess
from collections.abc import Mapping, Sequence

from mmjax.errors import ConfigError
from mmjax.files import write_text
from mmjax.launch.settings import COUNT, NAME, Setting

TIME = (r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}", "SLURM's minutes, HH:MM:SS or DAYS-HH:MM:SS")
LIST = (r"[A-Za-z0-9][\w.:,-]*", "letters, digits, '-', '_', '.', ':' and ','")
GPUS = (r"([\w-]+:)?[1-9]\d*", "a number, or TYPE:NUMBER")

SETTINGS = (
    Setting("partition", "where the job waits", LIST),
    Setting("nodes", "hosts, with one process on each", COUNT, "1"),
    Setting("gpus-per-node", "GPUs of each, such as 8 or a100:4", GPUS),
    Setting("cpus-per-task", "CPUs of each, for reading the data", COUNT),
    Setting("mem", "memory of each, such as 200G", (r"\d+[KMGT]?", "a number with K, M, G or T")),
    Setting("time", "limit; the run saves before it and is put back into the queue", TIME),
    Setting("account", "who pays", NAME),
    Setting("qos", "quality of service", NAME),
    Setting("constraint", "features of the nodes", (r"[\w&|*()\[\],.-]+", "a SLURM constraint")),
    Setting("job-name", "name of the job", NAME, "mmjax"),
)

# The run needs it to finish a step, and to save.
_SECONDS_BEFORE_THE_LIMIT = 180
_SBATCH_ONLY = "\"'\\%"  # which SLURM reads as more than themselves in the name of a log

# Tasks that lose another one stop by themselves. With SLURM's --kill-on-bad-exit the first task that has
# saved would end the others, and the job would get their exit code instead of 75.
_SCRIPT = """\
#!/bin/bash
{options}
# Written by launch.sh --on=slurm. `sbatch` with this file submits it again, and the run goes on.

cd {folder} || exit 2
{setup} || exit  # once, and not by all nodes at a time
# srun does not take this from the job by itself since SLURM 22.05.
[ -z "${{SLURM_CPUS_PER_TASK:-}}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"

srun --kill-on-bad-exit=0 {command}
code=$?
if [ "$code" -eq 75 ]; then
  echo "saved; back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def script(
    values: Mapping[str, str],
    command: Sequence[str],
    *,
    launcher: pathlib.Path,
    folder: pathlib.Path,
    log: pathlib.Path,
    tasks: int = 1,
) -> str:
    """The text of the job.

    Args:
      values: of `SETTINGS`.
      command: the verb and its arguments.
      launcher: launch.sh.
      folder: where the command runs; relative paths in it begin there.
      log: name of the log, with SLURM's '%j' for the number of the job.
      tasks: of a job array, each of which runs the command; 1 is no array.
    """
    options = [f"--{name}={value}" for name, value in values.items() if value]
    options += [f"--array=0-{tasks - 1}"] if tasks > 1 else []
    setup = [str(launcher), "setup"]
    if tasks > 1:  # which may begin at the same time
        setup = ["flock", str(log.parent / "setup.lock"), *setup]
    options += [
        "--ntasks-per-node=1",
        "--requeue",
        "--open-mode=append",
        f"--signal=TERM@{_SECONDS_BEFORE_THE_LIMIT}",
        f'--output="{log}"',
    ]
    return _SCRIPT.format(
        options="\n".join(f"#SBATCH {option}" for option in options),
        folder=shlex.quote(str(folder)),
        setup=shlex.join(setup),
        command=shlex.join([str(launcher), *command]),
    )


def run(
    values: Mapping[str, str],
    command: Sequence[str],
    *,
    workdir: pathlib.Path,
    launcher: pathlib.Path,
    dry_run: bool,
    tasks: int = 1,
) -> int:
    """Writes the job's script and submits it; with `dry_run`, prints both instead.

    `tasks` is the size of the job array, see `script`.

    Raises:
      ConfigError: SLURM is not there or refuses the job, or the directory cannot be used.
    """
    place = (workdir / "launch").absolute()
    if not str(place).isprintable() or set(str(place)) & set(_SBATCH_ONLY):
        raise ConfigError(
            f"--workdir={workdir}: expected no quotes, backslashes and '%', which SLURM reads as more; "
            "choose another"
        )
    name = "%j.log" if tasks == 1 else "%A_%a.log"
    text = script(
        values, command, launcher=launcher, folder=pathlib.Path.cwd(), log=place / name, tasks=tasks
    )
    file = place / "job.sbatch"
    submit = ["sbatch", "--parsable", str(file)]
    if dry_run:
        print(f"# {file}\n{text}\n# then\n{shlex.join(submit)}")
        return 0
    try:
        write_text(file, text)
    except OSError as error:
        raise ConfigError(f"--workdir={workdir}: cannot be written ({error}); choose another") from error
    try:
        done = subprocess.run(submit, capture_output=True, text=True)
    except FileNotFoundError:
        raise ConfigError("sbatch: not found; submit from a login node of the cluster") from None
    if done.returncode:
        raise ConfigError(f"sbatch refuses the job: {' '.join(done.stderr.split())}; see {file}")
    job = done.stdout.strip().partition(";")[0]  # 'JOB' or 'JOB;CLUSTER'
    if tasks > 1:
        print(f"job array {job} of {tasks} is submitted; its logs: {place / f'{job}_*.log'}")
        return 0
    print(f"job {job} is submitted; its log: {place / f'{job}.log'}")
    return 0
