"""--on=slurm and --on=tpu: the text of what is run, and runs in which sbatch, srun, scontrol, gcloud and
launch.sh's work are stand-ins that write down what they are called with."""

import io
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tarfile

import pytest

from mmjax.errors import ConfigError, MmjaxError
from mmjax.launch import __main__ as launch
from mmjax.launch import settings, slurm, tpu

ROOT = pathlib.Path(__file__).resolve().parents[2]
NASTY = "a b'; touch oops $(touch oops) `touch oops`"  # what a shell must never read
TPU = ["--name=clip", "--project=p", "--zone=us-east5-b", "--accelerator-type=v6e-16", "--runtime-version=v2"]
WHERE = "--project=p --zone=us-east5-b"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """programs(name, text) puts a stand-in first in PATH; its calls are in `calls()`, a list for each."""

    class Programs:
        folder = tmp_path / "programs"
        log = tmp_path / "calls"

        def __call__(self, name, text=""):
            self.folder.mkdir(exist_ok=True)
            file = self.folder / name
            # Arguments are noted one by one, each ended by a byte that none can hold.
            note = f"printf '%s\\0' {name} \"$@\" '#' >> {shlex.quote(str(self.log))}"
            file.write_text(f"#!/usr/bin/env bash\n{note}\n{text}\n")
            file.chmod(0o755)
            return file

        def calls(self):
            words, calls = self.log.read_text().split("\0")[:-1] if self.log.exists() else [], [[]]
            for word in words:
                calls[-1].append(word)
                if word == "#":
                    calls[-1].pop()
                    calls.append([])
            return calls[:-1]

    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:/usr/bin:/bin")
    for name in list(os.environ):
        if name.startswith(("MMJAX_SLURM_", "MMJAX_TPU_", "SLURM_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Programs()


def start(*arguments, **environment):
    return launch.main(list(arguments), environment)


# Settings.


def test_a_setting_comes_from_its_flag_or_its_variable():
    found = settings.read(
        "slurm", slurm.SETTINGS, ["--partition=a"], {"MMJAX_SLURM_PARTITION": "b", "MMJAX_SLURM_NODES": "3"}
    )
    assert (found["partition"], found["nodes"], found["time"]) == ("a", "3", "")


@pytest.mark.parametrize("missing", ["name", "project", "zone", "accelerator-type", "runtime-version"])
def test_what_a_tpu_needs(missing):
    given = [flag for flag in TPU if not flag.startswith(f"--{missing}=")]
    variable = f"MMJAX_TPU_{missing}".upper().replace("-", "_")
    with pytest.raises(ConfigError, match=f"--{missing} is missing .* before the verb, or set {variable}"):
        settings.read("tpu", tpu.SETTINGS, given, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpu", "train"], "--on=gpu: expected local, slurm or tpu"),
        (["slurm"], "--on=slurm: name a verb"),
        (["slurm", "--partion=a", "train"], "'--partion=a' is no setting of --on=slurm .*partition.*after"),
        (["slurm", "--nodes", "2", "train"], "--nodes: has no value; write --nodes=VALUE"),
        (["slurm", "--nodes=2", "--nodes=3", "train"], "--nodes: is given twice"),
        (["slurm", "--nodes=0", "train"], "--nodes=0: expected a number, 1 or more"),
        (["slurm", "--time=long", "train"], "--time=long: expected SLURM's minutes, HH:MM:SS or DAYS-"),
        (["slurm", "--partition=a\nb", "train"], "--partition=a\nb: expected letters"),
        (["slurm", "train"], "--on=slurm: train needs --workdir=DIR"),
        (["slurm", "trian", "--workdir=a"], "'trian' is not a verb"),
        (["slurm", "train", "--workdir=a", "--config.sed=1"], "sed: unknown key"),
        (["slurm", "--nodes=2", "convert", "--from=a", "--to=b"], "convert needs --workdir|runs on one host"),
        (["slurm", "--nodes=2", "report", "--workdir=a"], "--nodes=2: report runs on one host; several are"),
        (["slurm", "train", "--workdir=a%j"], "--workdir=a%j: expected no quotes, backslashes and '%'"),
        (["tpu", *TPU, "--nfs=h:/s", "train", "--workdir=runs/a"], "is not on the file system of --nfs; exp"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_written(programs, tmp_path, arguments, message):
    programs("sbatch")
    programs("gcloud")
    with pytest.raises(ConfigError, match=message):
        start(*arguments)
    assert programs.calls() == []
    assert [path.name for path in tmp_path.iterdir()] == ["programs"]


def test_help(capsys):
    assert start("slurm", "--help") == 0
    text = capsys.readouterr().out
    assert "--gpus-per-node" in text and "MMJAX_TPU_ZONE" in text


def test_local_is_launch_sh_itself(capsys, monkeypatch):
    assert start("local", "--dry-run", "train", f"--workdir={NASTY}") == 0
    command = shlex.split(capsys.readouterr().out)
    assert command == [str(ROOT / "launch.sh"), "train", f"--workdir={NASTY}"]
    called = []
    monkeypatch.setattr(launch.os, "execv", lambda *call: called.append(call) or exit())
    with pytest.raises(SystemExit):
        start("local", "eval", "--workdir=a")
    assert called == [(str(ROOT / "launch.sh"), [str(ROOT / "launch.sh"), "eval", "--workdir=a"])]


# SLURM.

JOB = """\
#!/bin/bash
#SBATCH --partition=gpu
#SBATCH --nodes=2
#SBATCH --gpus-per-node=a100:8
#SBATCH --time=1-00:00:00
#SBATCH --job-name=mmjax
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@180
#SBATCH --output="/runs/my clip/launch/%j.log"
# Written by launch.sh --on=slurm. `sbatch` with this file submits it again, and the run goes on.

cd '/home/me/my code' || exit 2
'/opt/my mmjax/launch.sh' setup || exit  # once, and not by all nodes at a time
# srun does not take this from the job by itself since SLURM 22.05.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"

srun --kill-on-bad-exit=0 '/opt/my mmjax/launch.sh' train '--workdir=/runs/my clip'
code=$?
if [ "$code" -eq 75 ]; then
  echo "saved; back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def test_the_text_of_a_job():
    flags = ["--partition=gpu", "--nodes=2", "--gpus-per-node=a100:8", "--time=1-00:00:00"]
    text = slurm.script(
        settings.read("slurm", slurm.SETTINGS, flags, {}),
        ["train", "--workdir=/runs/my clip"],
        launcher=pathlib.Path("/opt/my mmjax/launch.sh"),
        folder=pathlib.Path("/home/me/my code"),
        log=pathlib.Path("/runs/my clip/launch/%j.log"),
    )
    assert text == JOB


def test_a_dry_run_writes_and_submits_nothing(programs, tmp_path, capsys):
    programs("sbatch")
    assert start("slurm", "--dry-run", "--nodes=2", "train", "--workdir=run") == 0
    out = capsys.readouterr().out
    assert "#SBATCH --nodes=2\n" in out and f"sbatch --parsable {tmp_path / 'run/launch/job.sbatch'}\n" in out
    assert programs.calls() == [] and not (tmp_path / "run").exists()


@pytest.fixture
def checkout(programs, tmp_path, monkeypatch):
    """A launch.sh that only writes down its call, and ends with what exit_code(n) says."""

    class Checkout:
        launcher = programs("launch.sh", f'[ "$1" = setup ] || exit "$(cat {tmp_path / "exit_code"})"')

        def exit_code(self, code):
            (tmp_path / "exit_code").write_text(str(code))

    monkeypatch.setattr(launch, "ROOT", Checkout.launcher.parent)
    return Checkout()


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="the job is a bash script")
@pytest.mark.parametrize(("exit_code", "requeued"), [(0, False), (75, True), (4, False)])
def test_a_job_from_the_command_to_its_end(programs, checkout, tmp_path, capsys, exit_code, requeued):
    programs("sbatch", "echo '4711;cluster'")
    programs("srun", 'shift; "$@"')
    programs("scontrol")
    workdir = tmp_path / "my run"
    verb = ["train", "--workdir=my run", f"--config.data.dir={NASTY}"]
    assert start("slurm", "--nodes=2", "--cpus-per-task=6", *verb) == 0
    job = workdir / "launch" / "job.sbatch"
    assert programs.calls() == [["sbatch", "--parsable", str(job)]]
    log = workdir / "launch" / "4711.log"
    assert capsys.readouterr().out == f"job 4711 is submitted; its log: {log}\n"

    checkout.exit_code(exit_code)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = os.environ | {"SLURM_JOB_ID": "4711", "SLURM_CPUS_PER_TASK": "6"}
    done = subprocess.run(
        ["/bin/bash", str(job)], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert done.returncode == exit_code, done.stderr
    launcher = str(checkout.launcher)
    expected = [
        ["launch.sh", "setup"],
        ["srun", "--kill-on-bad-exit=0", launcher, *verb],
        ["launch.sh", *verb],
    ]
    if requeued:
        expected.append(["scontrol", "requeue", "4711"])
    assert programs.calls()[1:] == expected
    assert not list(tmp_path.rglob("oops"))


def test_a_run_may_begin_beside_its_job(tmp_path):
    from mmjax.training import workdir

    (tmp_path / "launch").mkdir()
    workdir.check_place(tmp_path)
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and not a run"):
        workdir.check_place(tmp_path)


def test_slurm_is_not_there_or_refuses(programs, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="sbatch: not found; submit from a login node"):
        start("slurm", "train", "--workdir=run")
    programs("sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
    with pytest.raises(ConfigError, match="sbatch refuses the job: sbatch: error: invalid partition; see "):
        start("slurm", "--partition=nosuch", "train", "--workdir=run")


# TPU VMs.


def test_a_dry_run_on_a_tpu(programs, capsys):
    programs("gcloud")
    verb = ["train", "--workdir=/mnt/mmjax/clip", "--config.seed=3"]
    assert start("tpu", *TPU, "--spot=true", "--nfs=10.0.0.2:/runs", "--dry-run", *verb) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    queued = "gcloud compute tpus queued-resources"
    remote = (
        "mkdir -p mmjax && tar -xzf mmjax-code.tar.gz -C mmjax && bash mmjax/mmjax/launch/tpu_worker.sh "
        "10.0.0.2:/runs train --workdir=/mnt/mmjax/clip --config.seed=3"
    )
    assert lines == [
        f"{queued} describe clip {WHERE} '--format=value(state.state)'",
        f"{queued} delete clip {WHERE} --force --quiet",
        f"{queued} create clip {WHERE} --node-id=clip --accelerator-type=v6e-16 --runtime-version=v2 --spot",
        f"gcloud compute tpus tpu-vm scp mmjax-code.tar.gz clip:mmjax-code.tar.gz --worker=all {WHERE}",
        f"gcloud compute tpus tpu-vm ssh clip --worker=all {WHERE} '--command={remote}'",
    ]
    assert programs.calls() == []


@pytest.fixture
def cloud(programs, tmp_path, monkeypatch):
    """A gcloud with the states that `states` lists (one per question, '' for none) and exit codes of ssh."""
    monkeypatch.setattr(tpu, "POLL_SECONDS", 0.01)
    states, codes = tmp_path / "states", tmp_path / "codes"
    next_line = 'line="$(head -n 1 "$1")"; sed -i 1d "$1"; echo "$line"'
    programs(
        "gcloud",
        f"""next() {{ {next_line}; }}
case "$*" in
  *" describe "*) state="$(next {shlex.quote(str(states))})"
    if [ -z "$state" ]; then echo "ERROR: NOT_FOUND: nothing of that name" >&2; exit 1; fi
    if [ "$state" = denied ]; then echo "ERROR: PERMISSION_DENIED" >&2; exit 1; fi
    echo "$state" ;;
  *" scp "*) cp "$5" {shlex.quote(str(tmp_path / "copied.tar.gz"))} ;;
  *" ssh "*) echo "from the TPU"; exit "$(next {shlex.quote(str(codes))})" ;;
esac""",
    )

    def prepare(*given, exits=(0,)):
        states.write_text("".join(f"{state}\n" for state in given))
        codes.write_text("".join(f"{code}\n" for code in exits))

    prepare.words = lambda: [
        call[4] if call[3] == "queued-resources" else call[4] for call in programs.calls()
    ]
    return prepare


def on_tpu(*settings_, verb=("train", "--workdir=/mnt/mmjax/clip")):
    return start("tpu", *TPU, "--nfs=10.0.0.2:/runs", *settings_, *verb)


def test_a_tpu_is_made_waited_for_and_run_on(cloud, capfd, tmp_path):
    cloud("", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
    assert on_tpu() == 0
    assert cloud.words() == ["describe", "create", "describe", "describe", "describe", "scp", "ssh"]
    out = capfd.readouterr().out
    assert "clip: WAITING_FOR_RESOURCES\nclip: PROVISIONING\n" in out and "from the TPU\n" in out
    with tarfile.open(tmp_path / "copied.tar.gz") as tar:
        names = tar.getnames()
    assert {"launch.sh", "mmjax/launch/tpu_worker.sh", "requirements/tpu.lock"} <= set(names)
    assert not any(name.startswith((".git/", ".venv", "runs/")) for name in names)


def test_a_tpu_that_is_there_is_used_again(cloud):
    cloud("ACTIVE")
    assert on_tpu() == 0
    assert cloud.words() == ["describe", "scp", "ssh"]


def test_after_a_preemption_it_goes_on(cloud):
    cloud("ACTIVE", "SUSPENDING", "SUSPENDING", "SUSPENDED", "", "ACTIVE", exits=(1, 0))
    assert on_tpu("--spot=true") == 0
    again = ["describe", "describe", "delete", "describe", "create", "describe", "scp", "ssh"]
    assert cloud.words() == ["describe", "scp", "ssh", "describe", *again]


def test_a_run_that_saved_at_sigterm_goes_on(cloud):
    cloud("ACTIVE", "ACTIVE", exits=(75, 0))
    assert on_tpu() == 0
    assert cloud.words() == ["describe", "scp", "ssh", "describe", "scp", "ssh"]


def test_a_lost_connection_may_be_a_preemption_that_is_not_known_yet(cloud):
    cloud("ACTIVE", "ACTIVE", "ACTIVE", "SUSPENDED", "ACTIVE", exits=(255, 0))
    assert on_tpu() == 0
    assert cloud.words().count("ssh") == 2


@pytest.mark.parametrize(("code", "asked"), [(2, 1), (255, 6)])
def test_another_end_is_the_end(cloud, code, asked):
    cloud(*["ACTIVE"] * 8, exits=(code,))
    assert on_tpu() == code
    assert cloud.words() == ["describe", "scp", "ssh", *["describe"] * asked]


def test_a_question_that_fails(cloud):
    cloud("denied")
    with pytest.raises(MmjaxError, match="gcloud cannot say how clip is: ERROR: PERMISSION_DENIED"):
        on_tpu()


def test_no_gcloud(programs, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="gcloud: not found; install the Google Cloud CLI"):
        on_tpu()


def test_without_git_nothing_can_be_copied(tmp_path):
    with pytest.raises(ConfigError, match="is no git checkout; --on=tpu copies the files that git lists"):
        tpu.pack(tmp_path)


def test_the_copy_has_new_files_and_not_what_git_ignores(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for name in ("kept", "my new file", "ignored", "gone", ".gitignore"):
        (tmp_path / name).write_text("ignored\n")
    subprocess.run(["git", "-C", str(tmp_path), "add", "kept", "gone"], check=True)
    (tmp_path / "gone").unlink()
    with tarfile.open(fileobj=io.BytesIO(tpu.pack(tmp_path))) as tar:
        assert tar.getnames() == [".gitignore", "kept", "my new file"]


def test_a_worker_installs_mounts_and_starts(programs, tmp_path):
    """tpu_worker.sh by itself, with stand-ins for all that it calls."""
    code = tmp_path / "mmjax"
    (code / "mmjax" / "launch").mkdir(parents=True)
    shutil.copy(ROOT / "mmjax" / "launch" / "tpu_worker.sh", code / "mmjax" / "launch")
    shutil.move(programs("launch.sh", 'env | grep -E "^(PYTHON|MMJAX_ACCELERATOR)="; exit 75'), code)
    for name in ("sudo", "flock", "mount.nfs", "python3.11"):
        programs(name)
    programs("mountpoint", "exit 1")
    worker = ["bash", "mmjax/mmjax/launch/tpu_worker.sh", "10.0.0.2:/runs", "train", NASTY]
    done = subprocess.run(
        ["bash", "-c", shlex.join(worker)],
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 75, done.stderr
    assert set(done.stdout.split()) == {"PYTHON=python3.11", "MMJAX_ACCELERATOR=tpu"}
    assert programs.calls() == [
        ["flock", "9"],
        ["mountpoint", "-q", "/mnt/mmjax"],
        ["sudo", "mkdir", "-p", "/mnt/mmjax"],
        ["sudo", "mount", "-t", "nfs", "10.0.0.2:/runs", "/mnt/mmjax"],
        ["launch.sh", "train", NASTY],
    ]
    assert not list(tmp_path.rglob("oops"))


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck(tmp_path):
    job = tmp_path / "job.sbatch"
    job.write_text(JOB)
    files = [str(job), str(ROOT / "mmjax" / "launch" / "tpu_worker.sh")]
    done = subprocess.run(["shellcheck", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_module_is_what_launch_sh_calls():
    done = subprocess.run(
        [sys.executable, "-m", "mmjax.launch", "slurm", "--nodes=2"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --on=slurm: name a verb")
