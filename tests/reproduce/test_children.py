"""Runs as processes of their own."""

import concurrent.futures
import os
import signal
import sys
import time

import pytest

from mmjax.errors import Preempted
from mmjax.reproduce import Row, children


@pytest.mark.parametrize(
    ("written", "code", "expected"),
    [
        ("error: config.seed: wrong\n", 2, "config.seed: wrong"),
        ("Traceback\n  x\njax.errors.JaxRuntimeError: no memory\n---\nFor simplicity, JAX has\n", 1, None),
        ("step 300/900  loss 0.3\n", -9, "was killed by signal 9"),
        ("", 1, "ended without a word"),
    ],
)
def test_what_is_said_of_a_process_that_failed(tmp_path, written, code, expected):
    log = tmp_path / "log"
    earlier = "error: of an earlier attempt\n"
    log.write_text(earlier + written)
    expected = expected or "jax.errors.JaxRuntimeError: no memory"
    assert children.what_went_wrong(log, len(earlier), code) == expected


def test_a_stop_signal_reaches_the_processes(tmp_path, monkeypatch):
    """Each saves and ends with 75; what has not begun does not begin."""
    saves = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); "
    command = [sys.executable, "-c", saves + "print('up', flush=True); time.sleep(60)"]
    monkeypatch.setattr(children, "_command", lambda row, seed, workdir: command)
    row = Row("one", "first", "x.json")
    log = tmp_path / "one" / "seed0.log"

    def stop_when_up():
        while not (log.is_file() and "up" in log.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    with concurrent.futures.ThreadPoolExecutor(3) as pool, children.Children() as started:
        first = pool.submit(started.train, row, 0, tmp_path / "one" / "seed0", tmp_path)
        pool.submit(stop_when_up).result()
        with pytest.raises(Preempted):
            first.result()
        with pytest.raises(Preempted):
            pool.submit(started.train, row, 1, tmp_path / "one" / "seed1", tmp_path).result()
    assert not (tmp_path / "one" / "seed1.log").read_text()
