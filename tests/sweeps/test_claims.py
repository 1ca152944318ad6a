"""Claims: one living owner at a time, found when it dies."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from mmjax.sweeps import claims

ROOT = pathlib.Path(__file__).resolve().parents[2]
OWNER = """
import pathlib, sys, time
from mmjax.sweeps import claims
claim = claims.take(pathlib.Path(sys.argv[1]), "00003")
print(claim.attempt, flush=True)
time.sleep(600)
"""


def start_owner(folder):
    """A process that holds the claim of trial 3, and its attempt."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    return process, int(process.stdout.readline())


def test_one_owner_at_a_time(tmp_path):
    claim = claims.take(tmp_path, "00003")
    assert claim.attempt == 1
    assert claims.take(tmp_path, "00003") is None
    other = claims.take(tmp_path, "00004")
    assert other.attempt == 1
    claim.drop()
    assert claims.take(tmp_path, "00003").attempt == 2
    assert claims.attempts(tmp_path, "00003") == [1, 2]


def test_what_is_given_back_was_no_attempt(tmp_path):
    claims.take(tmp_path, "00003").give_back()
    assert claims.attempts(tmp_path, "00003") == []
    assert claims.take(tmp_path, "00003").attempt == 1


def test_the_claim_of_a_killed_process_is_free(tmp_path):
    owner, attempt = start_owner(tmp_path)
    try:
        assert attempt == 1
        assert claims.take(tmp_path, "00003") is None
        owner.kill()
        owner.wait()
        assert claims.take(tmp_path, "00003").attempt == 2
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()


def test_of_many_that_try_one_succeeds(tmp_path):
    found, barrier = [], threading.Barrier(16)

    def work():
        barrier.wait()
        found.append(claims.take(tmp_path, "00003"))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim is not None for claim in found) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["00003.1"]


def test_another_machine_is_gone_after_its_lease(tmp_path):
    path = tmp_path / "00003.1"
    path.write_text(json.dumps({"machine": "elsewhere", "process": 1}))
    assert claims.take(tmp_path, "00003") is None
    old = time.time() - claims.LEASE_SECONDS - 60
    os.utime(path, (old, old))
    assert claims.take(tmp_path, "00003").attempt == 2


def test_an_owner_that_was_judged_dead_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "_BEAT_SECONDS", 0.01)
    lost, beats = threading.Event(), []
    claim = claims.take(tmp_path, "00003")
    claim.beat(lost.set, lambda: beats.append(1))
    assert not lost.wait(0.1) and beats
    (tmp_path / "00003.2").touch()
    assert lost.wait(10.0)
    claim.drop()


def test_waiting_for_a_claim(tmp_path):
    inside = []

    def work():
        with claims.waiting_for(tmp_path, "study"):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert claims.attempts(tmp_path, "study") == []
    with pytest.raises(RuntimeError), claims.waiting_for(tmp_path, "study"):
        raise RuntimeError
    assert claims.attempts(tmp_path, "study") == []
