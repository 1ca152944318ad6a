"""launch.sh: which packages are installed, once, and how verbs are passed on. Nothing is really installed."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Writes down what it is called with; `-m mmjax VERB` ends with the exit code in $MMJAX_STUB_EXIT.
STUB_PYTHON = """#!/usr/bin/env bash
echo "$PWD| $*" >> "$MMJAX_STUB_CALLS"
case "$*" in *"pip install"*"$MMJAX_STUB_BROKEN"*) [ -z "$MMJAX_STUB_BROKEN" ] || exit 9 ;; esac
[ "$2" != mmjax ] || exit "$MMJAX_STUB_EXIT"
"""


class Checkout:
    """A copy of launch.sh with its lock files, an environment that is a stub, and tools to find or not."""

    def __init__(self, root):
        self.root, self.venv, self.calls_file = root / "check out", root / "venv", root / "calls"
        (self.root / "requirements").mkdir(parents=True)
        shutil.copy(ROOT / "launch.sh", self.root)
        (self.root / "pyproject.toml").write_text("[project]\n")
        for name in ("cpu", "cuda", "tpu", "dev", "tpu-plan"):
            (self.root / "requirements" / f"{name}.lock").write_text(f"# {name}\n")
        self.tools = root / "tools"
        self.tools.mkdir()
        self.tool("python3", f'exec "{sys.executable}" "$@"')
        self.script(self.venv / "bin" / "python", STUB_PYTHON)

    def tool(self, name, text):
        self.script(self.tools / name, f"#!/usr/bin/env bash\n{text}\n")

    def script(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def run(self, *arguments, accelerator="cpu", exit_code=0, broken="", cwd=None, **environment):
        """The finished process; `calls` then holds what the stub was called with, line by line."""
        self.calls_file.write_text("")
        given = {
            "PATH": f"{self.tools}:/usr/bin:/bin",
            "MMJAX_VENV": str(self.venv),
            "MMJAX_STUB_CALLS": str(self.calls_file),
            "MMJAX_STUB_EXIT": str(exit_code),
            "MMJAX_STUB_BROKEN": broken,
            **({"MMJAX_ACCELERATOR": accelerator} if accelerator else {}),
            **environment,
        }
        return subprocess.run(
            [str(self.root / "launch.sh"), *arguments],
            env=given,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=cwd or self.root,
        )

    @property
    def calls(self):
        return [line.partition("| ")[2] for line in self.calls_file.read_text().splitlines()]

    @property
    def folders(self):
        return [line.partition("| ")[0] for line in self.calls_file.read_text().splitlines()]

    def installed(self):
        """The lock files that were installed from."""
        locks = [call.rpartition(" -r ")[2] for call in self.calls if " -r " in call]
        return [pathlib.Path(lock).stem for lock in locks]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_the_first_start_installs_and_the_second_does_not(checkout):
    done = checkout.run("train", "--workdir=a b", "--config.seed=1")
    assert done.returncode == 0, done.stderr
    assert "installing the 'cpu' packages (once)" in done.stderr and done.stdout == ""
    lock, editable, verb = checkout.calls
    assert "--require-hashes" in lock and lock.endswith("requirements/cpu.lock")
    assert editable.startswith("-m pip install") and editable.endswith(
        f"--no-deps --no-build-isolation -e {checkout.root}"
    )
    assert verb == "-m mmjax train --workdir=a b --config.seed=1"

    done = checkout.run("train", "--help")
    assert done.stderr == ""
    assert checkout.calls == ["-m mmjax train --help"]


@pytest.mark.parametrize("file", ["requirements/cpu.lock", "pyproject.toml"])
def test_a_new_lock_file_is_installed(checkout, file):
    checkout.run("help")
    with (checkout.root / file).open("a") as text:
        text.write("# changed\n")
    checkout.run("help")
    assert checkout.installed() == ["cpu"]
    checkout.run("help")
    assert checkout.installed() == []


def test_an_installation_that_failed_is_done_again(checkout):
    done = checkout.run("train", broken="--require-hashes")
    assert done.returncode == 9
    assert not any("mmjax" in call.split() for call in checkout.calls)
    assert checkout.run("train").returncode == 0
    assert checkout.installed() == ["cpu"]


@pytest.mark.parametrize("arguments", [(), ("help",)])
def test_no_verb_is_help(checkout, arguments):
    checkout.run(*arguments)
    assert checkout.calls[-1] == "-m mmjax help"


def test_the_exit_code_and_the_directory_are_kept(checkout, tmp_path):
    assert checkout.run("train", exit_code=75, cwd=tmp_path).returncode == 75
    assert checkout.folders[-1] == str(tmp_path)


@pytest.mark.parametrize("kind", ["cpu", "cuda", "tpu"])
def test_the_accelerator_may_be_given(checkout, kind):
    checkout.run("setup", accelerator=kind)
    assert checkout.installed() == [kind]


def test_an_unknown_accelerator(checkout):
    done = checkout.run("train", accelerator="gpu")
    assert done.returncode == 2
    assert done.stderr == "launch.sh: MMJAX_ACCELERATOR=gpu: expected cpu, cuda or tpu\n"
    assert checkout.calls == []


@pytest.mark.skipif(
    os.path.exists("/dev/accel0") or os.path.exists("/dev/vfio"), reason="this machine has a TPU"
)
@pytest.mark.parametrize(("exit_code", "kind"), [(0, "cuda"), (9, "cpu")])
def test_a_gpu_is_found_when_its_driver_answers(checkout, exit_code, kind):
    checkout.tool("nvidia-smi", f"exit {exit_code}")
    checkout.run("setup", accelerator=None)
    assert checkout.installed() == [kind]


def test_tests_run_on_the_cpu(checkout, tmp_path):
    done = checkout.run("test", "-m", "not slow", accelerator="cuda", cwd=tmp_path)
    assert done.returncode == 0
    assert checkout.installed() == ["cpu", "dev"]
    assert checkout.calls[-1] == "-m pytest -n 2 --dist=loadfile -m not slow"
    assert checkout.folders[-1] == str(checkout.root)
    checkout.run("test", MMJAX_TEST_WORKERS="0")
    assert checkout.calls == ["-m pytest -n 0 --dist=loadfile"]


TOPOLOGIES = [("--topology=v5e:4x4",), ("--topology", "v5p:2x2x1"), ("--topology=2xv5e:4x4",)]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_tpu_compiler_has_a_folder_of_its_own(checkout, topology):
    done = checkout.run("plan", "--config=configs/v1.py:a=1", *topology)
    assert "installing the TPU compiler (once)" in done.stderr
    assert checkout.installed() == ["cpu", "tpu-plan"]
    assert f"--require-hashes --upgrade --target {checkout.venv}/tpu-plan" in checkout.calls[-2]
    assert checkout.run("plan", *topology).stderr == ""
    (checkout.root / "requirements" / "tpu-plan.lock").write_text("# newer\n")
    checkout.run("plan", *topology)
    assert checkout.installed() == ["tpu-plan"]


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("cpu", ("plan", "--config=configs/v1.py:a=1", "--topology=cpu:8")),
        ("cpu", ("train", "--topology=v5e:4x4")),
        ("tpu", ("plan", "--topology=v5e:4x4")),  # it has the compiler
    ],
)
def test_nothing_else_gets_the_tpu_compiler(checkout, kind, arguments):
    checkout.run(*arguments, accelerator=kind)
    assert checkout.installed() == [kind]


def test_elsewhere(checkout, tmp_path):
    """What happens there is said by mmjax.launch, which has tests of its own."""
    done = checkout.run("--on=slurm", "--nodes=2", "train", "--workdir=a b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert checkout.installed() == ["cpu"]
    assert checkout.calls[-1] == "-m mmjax.launch slurm --nodes=2 train --workdir=a b"
    assert checkout.folders[-1] == str(tmp_path)


def test_lint(checkout):
    checkout.run("lint")
    assert checkout.calls[-2:] == ["-m ruff check .", "-m ruff format --check ."]


def test_an_environment_is_made_where_there_is_none(checkout):
    """By the first Python that is new enough; this one only says so, and puts the stub there."""
    shutil.rmtree(checkout.venv)
    stub = checkout.root / "stub"
    checkout.script(stub, STUB_PYTHON)
    checkout.tool("python3", "exit 1")  # too old
    checkout.tool(
        "python3.12",
        f'case "$1" in -c) exit 0 ;; --version) echo Python 3.12 ;; '
        f'-m) mkdir -p "$3/bin" && cp "{stub}" "$3/bin/python" ;; esac',
    )
    done = checkout.run("setup", PATH=f"{checkout.tools}:/bin:/usr/bin")
    assert done.returncode == 0, done.stderr
    assert f"making {checkout.venv} with Python 3.12" in done.stderr
    assert checkout.installed() == ["cpu"]


def test_no_python_that_is_new_enough(checkout):
    shutil.rmtree(checkout.venv)
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python"):
        checkout.tool(name, "exit 1")
    done = checkout.run("train")
    assert done.returncode == 2
    assert "no Python >= 3.11 with the venv module found" in done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck():
    done = subprocess.run(["shellcheck", str(ROOT / "launch.sh")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
