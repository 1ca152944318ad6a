"""Real workers that are killed or asked to stop: every trial ends once, as if nothing had happened."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pyarrow.parquet
import pytest
import tiny

from mmjax import config as config_lib
from mmjax.training.checkpoint_files import complete_steps, numbered

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEADLINE = 400.0  # seconds; a busy machine is no failure
METRIC = "classification/colour_logits/accuracy"
STEPS = 24


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    plain = tiny.without_fusion(tiny.plain_config(tiny.write_data(root / "images"), root / "data"))
    plain |= {
        "total_steps": STEPS,
        "checkpoint": {"every_steps": 2},
        "log": {"every_steps": 2, "tensorboard": False},
    }
    path = root / "tiny.json"
    path.write_text(config_lib.to_json(plain))
    return path


def start(verb, *arguments):
    """A verb in a process of its own, with one device."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    return subprocess.Popen(
        [sys.executable, "-m", "mmjax", verb, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_sweep(config_file, directory, *arguments):
    seeds = ["--sweep=seed", "--seeds=0,1,2"]
    return start("sweep", f"--config={config_file}", *seeds, f"--metric={METRIC}", *arguments, f"--workdir={directory}")  # fmt: skip  # noqa: E501


def finish(process):
    """(exit code, stdout, stderr)."""
    out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


def wait_for(condition, process):
    end = time.monotonic() + DEADLINE
    while process.poll() is None and not condition():
        assert time.monotonic() < end, "the process does not get on"
        time.sleep(0.01)


def owner(directory, number):
    """Process that works on a trial in its first attempt."""
    return json.loads((directory / "claims" / f"{number:05d}.1").read_text())["process"]


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def alone(config_file, tmp_path_factory):
    """The run of seed 0 that is part of no sweep and that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    code, _, err = finish(
        start("train", f"--config={config_file}", "--config.seed=0", f"--workdir={workdir}")
    )
    assert code == 0, err
    return workdir


def assert_trials(directory, alone, attempts):
    table = pyarrow.parquet.read_table(directory / "trials.parquet").to_pylist()
    assert [(row["trial"], row["state"], row["config.seed"]) for row in table] == [
        (number, "finished", number) for number in range(3)
    ]
    assert [row["attempts"] for row in table] == attempts
    first = directory / "trials" / "00000"
    assert tiny.differing(tiny.saved(first)[1], tiny.saved(alone)[1]) == []
    assert tiny.metrics_lines(first) == tiny.metrics_lines(alone)
    assert (directory / "sweep.html").is_file() and (directory / "best.json").is_file()


def test_a_killed_workers_trial_goes_on_from_its_checkpoint(config_file, alone, tmp_path):
    process = start_sweep(config_file, tmp_path / "s", "--workers=2")
    checkpoints = tmp_path / "s" / "trials" / "00000" / "checkpoints"
    wait_for(lambda: complete_steps(checkpoints), process)
    killed = owner(tmp_path / "s", 0)
    os.kill(killed, signal.SIGKILL)
    code, out, err = finish(process)
    assert code == 0, err
    assert "was killed (signal 9); starting another" in err
    assert "trial 0: running (attempt 2)" in err
    assert f"best {METRIC}: " in out and "(std of 3 runs)" in out
    logs = "".join(path.read_text() for path in (tmp_path / "s" / "workers").iterdir())
    assert "trial 0: its worker is gone; taking it up" in logs and "going on after step" in logs
    assert_trials(tmp_path / "s", alone, [2, 1, 1])


def test_sigterm_saves_and_resume_goes_on(config_file, alone, tmp_path):
    directory = tmp_path / "s"
    process = start_sweep(config_file, directory, "--storage=journal")
    wait_for(lambda: numbered(directory / "trials" / "00000" / "checkpoints"), process)
    worker = owner(directory, 0)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == 75, err
    assert err.splitlines()[-1].startswith("error: stopped by SIGTERM, and the workers have saved")
    assert not alive(worker)
    assert "in progress · 0 of 3" in (directory / "sweep.html").read_text()

    code, _, err = finish(start("sweep", "--resume", f"--workdir={directory}", "--workers=2"))
    assert code == 0, err
    assert "going on after step" in "".join(p.read_text() for p in (directory / "workers").iterdir())
    assert_trials(directory, alone, [1, 1, 1])  # a stop is no failed attempt


def test_workers_end_with_the_process_that_started_them(config_file, tmp_path):
    directory = tmp_path / "s"
    process = start_sweep(config_file, directory, "--config.total_steps=100000")
    wait_for(lambda: numbered(directory / "trials" / "00000" / "checkpoints"), process)
    worker = owner(directory, 0)
    process.kill()
    finish(process)
    end = time.monotonic() + DEADLINE
    while alive(worker):
        assert time.monotonic() < end, "the worker goes on"
        time.sleep(0.1)
    assert not list((directory / "claims").iterdir())  # it gave its trial back
