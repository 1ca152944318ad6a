"""--on=tpu: a verb on all hosts of a Cloud TPU, which is asked for as a queued resource.

The TPU VM is made, or used where it is there; the checkout is copied to all hosts and the verb runs on
all of them, with its messages here. When the VM was preempted it is asked for again, and the same
command goes on, from what lies on the file system that `--nfs` names: the disk of a VM is gone with it.
The VM is left running at the end. Source: https://cloud.google.com/tpu/docs/queued-resources.
"""

from __future__ import annotations

import concurrent.futures
import io
import pathlib
import shlex
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence

from mmjax.errors import ConfigError, MmjaxError, Preempted
from mmjax.launch.settings import NAME, Setting

SETTINGS = (
    Setting(
        "name",
        "of the TPU VM and its queued resource",
        (r"[a-z]([a-z0-9-]*[a-z0-9])?", "a-z, 0-9, '-'"),
        None,
    ),
    Setting("project", "Google Cloud project", NAME, None),
    Setting("zone", "such as us-east5-b", NAME, None),
    Setting("accelerator-type", "such as v5litepod-16 or v6e-8", NAME, None),
    Setting("runtime-version", "such as v2-alpha-tpuv6e", NAME, None),
    Setting("spot", "true for capacity that may be preempted", (r"true|false", "true or false"), "false"),
    Setting(
        "nfs",
        "file system for --workdir and data, mounted at /mnt/mmjax on all hosts",
        (r"[\w.-]+:/[\w./-]*", "HOST:/SHARE"),
    ),
)
MOUNT = pathlib.PurePosixPath("/mnt/mmjax")
_ARCHIVE = "mmjax-code.tar.gz"
# States of a queued resource that come to nothing by themselves.
_OVER = ("FAILED", "SUSPENDED")
_LEAVING = ("SUSPENDING", "DELETING")
_LOST_CONNECTION = 255  # of ssh
POLL_SECONDS = 30.0
# A VM that was taken away is still called active for a while.
_NOTICE_POLLS = 6


class Tpu:
    """One TPU VM, through gcloud.

    Args:
      values: of `SETTINGS`.
    """

    def __init__(self, values: Mapping[str, str]):
        self._values = values
        self.name = values["name"]
        self._where = [f"--project={values['project']}", f"--zone={values['zone']}"]

    def describe(self) -> list[str]:
        """Command that prints the state of the queued resource."""
        return self._queued("describe", "--format=value(state.state)")

    def create(self) -> list[str]:
        """Command that asks for the VM."""
        options = [f"--node-id={self.name}"]
        options += [f"--{name}={self._values[name]}" for name in ("accelerator-type", "runtime-version")]
        return self._queued("create", *options, *(["--spot"] if self._values["spot"] == "true" else []))

    def delete(self) -> list[str]:
        """Command that removes the queued resource and what is left of its VM."""
        return self._queued("delete", "--force", "--quiet")

    def copy(self, file: str) -> list[str]:
        """Command that copies a file to the home directory of all hosts."""
        return [*_VM, "scp", file, f"{self.name}:{_ARCHIVE}", "--worker=all", *self._where]

    def run(self, command: Sequence[str]) -> list[str]:
        """Command that unpacks the code on all hosts and runs a verb there."""
        worker = ["bash", "mmjax/mmjax/launch/tpu_worker.sh", self._values["nfs"], *command]
        remote = f"mkdir -p mmjax && tar -xzf {_ARCHIVE} -C mmjax && {shlex.join(worker)}"
        return [*_VM, "ssh", self.name, "--worker=all", *self._where, f"--command={remote}"]

    def state(self) -> str | None:
        """State of the queued resource; None where there is none."""
        done = _gcloud(self.describe())
        if done.returncode == 0:
            return done.stdout.strip()
        if "NOT_FOUND" in done.stderr or "not found" in done.stderr.lower():
            return None
        raise MmjaxError(f"gcloud cannot say how {self.name} is: {' '.join(done.stderr.split())}")

    def obtain(self) -> None:
        """Returns when the VM is there; what is over is asked for again."""
        shown = None
        while (state := self.state()) != "ACTIVE":
            if state != shown:
                shown = state
                print(f"{self.name}: {state or 'is asked for'}", flush=True)
            if state in _OVER:
                _do(self.delete())
            elif state is None:
                _do(self.create())
            else:
                time.sleep(POLL_SECONDS)

    def _queued(self, verb: str, *options: str) -> list[str]:
        return ["gcloud", "compute", "tpus", "queued-resources", verb, self.name, *self._where, *options]


_VM = ["gcloud", "compute", "tpus", "tpu-vm"]


def run(values: Mapping[str, str], command: Sequence[str], *, root: pathlib.Path, dry_run: bool) -> int:
    """Runs a verb on the TPU until it ends other than by preemption; its exit code.

    Args:
      values: of `SETTINGS`.
      command: the verb and its arguments; paths are those on the TPU VM, and relative ones begin in the
        copied checkout.
      root: the checkout.
      dry_run: print the commands instead.

    Raises:
      ConfigError: gcloud is not there, or `root` is no git checkout.
      MmjaxError: gcloud fails.
    """
    tpu = Tpu(values)
    if dry_run:
        steps = (
            ("the state; where there is none, or it has failed or was suspended:", tpu.describe()),
            ("(only what has failed or was suspended)", tpu.delete()),
            ("", tpu.create()),
            (f"when it is ACTIVE, with what git lists in {root}:", tpu.copy(_ARCHIVE)),
            ("again from the top when the VM was preempted:", tpu.run(command)),
        )
        for comment, step in steps:
            print(*([f"# {comment}"] if comment else []), shlex.join(step), sep="\n")
        return 0
    while True:
        tpu.obtain()
        with tempfile.TemporaryDirectory() as folder:
            archive = pathlib.Path(folder) / _ARCHIVE
            archive.write_bytes(pack(root))
            _do(tpu.copy(str(archive)))
        code = _gcloud(tpu.run(command), stream=True).returncode
        if code == 0 or not _was_preempted(tpu, code):
            return code
        print(f"{tpu.name}: was preempted; going on when it is back", flush=True)


def run_several(
    values: Mapping[str, str], command: Sequence[str], *, root: pathlib.Path, dry_run: bool, count: int
) -> int:
    """As `run`, of the same command on `count` TPU VMs at a time, `<name>-0`, `<name>-1`, ...

    Returns:
      The first exit code that is not 0; each goes on whatever becomes of the others.
    """

    def one(index: int) -> int:
        named = {**values, "name": f"{values['name']}-{index}"}
        return run(named, command, root=root, dry_run=dry_run)

    if dry_run:
        return max(one(index) for index in range(count))
    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        codes = list(threads.map(one, range(count)))
    return next((code for code in codes if code), 0)


def pack(root: pathlib.Path) -> bytes:
    """The files that git lists in a checkout, changed ones and new ones too, as a .tar.gz."""
    listing = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(listing, capture_output=True)
    except FileNotFoundError:
        raise ConfigError("git: not found; --on=tpu copies the files that git lists") from None
    if done.returncode:
        raise ConfigError(f"{root}: is no git checkout; --on=tpu copies the files that git lists")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in sorted(filter(None, done.stdout.decode().split("\0"))):
            if (root / name).is_file():  # else it was removed and is not committed
                tar.add(root / name, arcname=name, recursive=False)
    return buffer.getvalue()


def _was_preempted(tpu: Tpu, code: int) -> bool:
    """Whether a run that ended with `code` is to go on."""
    if code == Preempted.exit_code:
        return True
    for poll in range(_NOTICE_POLLS if code == _LOST_CONNECTION else 1):
        if poll:
            time.sleep(POLL_SECONDS)
        if tpu.state() in (None, *_OVER, *_LEAVING):
            return True
    return False


def _gcloud(command: Sequence[str], stream: bool = False) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=not stream, text=True)
    except FileNotFoundError:
        raise ConfigError("gcloud: not found; install the Google Cloud CLI, and log in") from None


def _do(command: Sequence[str]) -> None:
    done = _gcloud(command)
    if done.returncode:
        raise MmjaxError(f"{shlex.join(command[:5])} failed: {' '.join(done.stderr.split())}")
