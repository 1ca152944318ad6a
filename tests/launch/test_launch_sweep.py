"""--on=slurm and --on=tpu of a sweep: a job array, and a TPU VM for each worker."""

import pathlib
import sys

import pytest

from mmjax.errors import ConfigError
from mmjax.launch import __main__ as launch
from mmjax.launch import settings, slurm, tpu

ROOT = pathlib.Path(__file__).resolve().parents[2]
METRIC = "--metric=validation/classification/digit/accuracy"
SWEEP = ["sweep", f"--config={ROOT}/configs/av_digits.py", "--search=random", "--trials=8", METRIC]
TPU = ["--name=digits", "--project=p", "--zone=z", "--accelerator-type=v6e-1", "--runtime-version=v2"]

JOB = """\
#!/bin/bash
#SBATCH --partition=gpu
#SBATCH --nodes=1
#SBATCH --job-name=mmjax
#SBATCH --array=0-3
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@180
#SBATCH --output="/runs/my sweep/launch/%A_%a.log"
# Written by launch.sh --on=slurm. `sbatch` with this file submits it again, and the run goes on.

cd /home/me || exit 2
flock '/runs/my sweep/launch/setup.lock' /opt/mmjax/launch.sh setup || exit  # once, and not by all nodes at a time
# srun does not take this from the job by itself since SLURM 22.05.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"

srun --kill-on-bad-exit=0 /opt/mmjax/launch.sh sweep --worker
code=$?
if [ "$code" -eq 75 ]; then
  echo "saved; back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""  # noqa: E501


@pytest.fixture(autouse=True)
def nothing_is_called(monkeypatch, tmp_path):
    def call(*arguments, **fields):
        raise AssertionError(f"called: {arguments}")

    monkeypatch.setattr(slurm.subprocess, "run", call)
    monkeypatch.setattr(tpu.subprocess, "run", call)
    monkeypatch.chdir(tmp_path)


def test_the_text_of_a_job_array():
    text = slurm.script(
        settings.read("slurm", slurm.SETTINGS, ["--partition=gpu"], {}),
        ["sweep", "--worker"],
        launcher=pathlib.Path("/opt/mmjax/launch.sh"),
        folder=pathlib.Path("/home/me"),
        log=pathlib.Path("/runs/my sweep/launch/%A_%a.log"),
        tasks=4,
    )
    assert text == JOB


def test_a_dry_run_of_an_array(tmp_path, capsys):
    verb = [*SWEEP, "--workers=4", "--storage=journal", "--workdir=sweep"]
    assert launch.main(["slurm", "--dry-run", *verb], {}) == 0
    out = capsys.readouterr().out
    assert "#SBATCH --array=0-3\n" in out
    command = " ".join([*SWEEP, "--storage=journal", "--workdir=sweep", "--worker"])
    assert f"srun --kill-on-bad-exit=0 {ROOT}/launch.sh {command}\n" in out
    assert f"sbatch --parsable {tmp_path}/sweep/launch/job.sbatch\n" in out
    assert list(tmp_path.iterdir()) == []


def test_one_worker_is_a_job_like_any_other(capsys):
    assert launch.main(["slurm", "--dry-run", *SWEEP, "--workdir=sweep"], {}) == 0
    out = capsys.readouterr().out
    assert "--array" not in out and f"launch.sh {' '.join(SWEEP)} --workdir=sweep\n" in out


def test_a_tpu_vm_for_each_worker(capsys):
    verb = [*SWEEP, "--workers=2", "--storage=journal", "--workdir=/mnt/mmjax/sweep"]
    assert launch.main(["tpu", *TPU, "--nfs=10.0.0.2:/runs", "--dry-run", *verb], {}) == 0
    lines = capsys.readouterr().out.splitlines()
    runs = [line for line in lines if " ssh " in line]
    command = " ".join([*SWEEP, "--storage=journal", "--workdir=/mnt/mmjax/sweep", "--worker"])
    assert len(runs) == 2
    for index, line in enumerate(runs):
        assert f"tpu-vm ssh digits-{index} --worker=all" in line
        assert line.endswith(f"tpu_worker.sh 10.0.0.2:/runs {command}'")
    assert sum("--node-id=digits-1" in line for line in lines) == 1


def test_all_tpu_vms_run_and_the_first_failure_counts(monkeypatch):
    called = []

    def run(values, command, *, root, dry_run):
        called.append((values["name"], tuple(command)))
        return {"digits-0": 0, "digits-1": 4, "digits-2": 0}[values["name"]]

    monkeypatch.setattr(tpu, "run", run)
    values = {"name": "digits"}
    assert tpu.run_several(values, ["sweep"], root=ROOT, dry_run=False, count=3) == 4
    assert sorted(called) == [(f"digits-{i}", ("sweep",)) for i in range(3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slurm", *SWEEP, "--workers=4", "--workdir=s"], "several workers need --storage=journal or postg"),
        (["slurm", "--nodes=2", *SWEEP, "--workdir=s"], "--nodes=2: sweep runs on one host; several are for"),
        (["slurm", *SWEEP], "--on=slurm: sweep needs --workdir=DIR"),
        (
            ["slurm", *SWEEP[:-1], "--metric=accuracy", "--workdir=s"],
            "--metric: no evaluator gives 'accuracy'",
        ),
        (["tpu", *TPU, "--nfs=h:/s", *SWEEP, "--workdir=s"], "is not on the file system of --nfs"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        launch.main(arguments, {})
    assert list(tmp_path.iterdir()) == []


def test_a_worker_of_an_array_makes_or_finds_the_study(monkeypatch, tmp_path, capsys):
    """What the job's tasks run is the whole command, whichever comes first."""
    sys.path.insert(0, str(ROOT / "tests" / "sweeps"))
    try:
        from sweep_cases import Train
    finally:
        sys.path.pop(0)
    from mmjax.__main__ import dispatch
    from mmjax.sweeps import worker

    train = Train()
    monkeypatch.setattr("mmjax.sweeps.plan.load_data", lambda config, workdir: None)
    monkeypatch.setattr("sweep_cases.METRIC", METRIC.partition("=")[2])
    monkeypatch.setattr(worker, "train", train)
    command = [*SWEEP, "--storage=journal", f"--workdir={tmp_path / 's'}", "--worker"]
    dispatch(command)
    dispatch(command)
    assert [name for name, _ in train.runs] == [f"{number:05d}" for number in range(8)]
    # And an array goes on with it, in the storage that it has.
    resume = ["sweep", "--resume", f"--workdir={tmp_path / 's'}"]
    assert launch.main(["slurm", "--dry-run", *resume, "--workers=2"], {}) == 0
    assert f"launch.sh {' '.join(resume)} --worker\n" in capsys.readouterr().out
