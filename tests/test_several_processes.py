"""`mmjax train` and `eval` as two processes that meet on this machine, as one on each of two hosts would."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny

from mmjax import config as config_lib
from mmjax.parallel import processes
from mmjax.training.checkpoint_files import complete_steps, numbered

pytestmark = pytest.mark.slow

TESTS = pathlib.Path(__file__).resolve().parent
STEPS, BATCH, RECORDS = 60, 8, 36
DEADLINE = 600.0  # seconds; a busy machine is no failure
SLOW = 0.25  # seconds to read an example, where a test interrupts


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    manifest = tiny.write_data(root / "images", train=RECORDS)
    plain = tiny.without_fusion(tiny.plain_config(manifest, root / "data")) | {
        "total_steps": STEPS,
        "checkpoint": {"every_steps": 4},
        "log": {"every_steps": 2, "tensorboard": False},
    }
    del plain["evals"]["retrieval"]
    del plain["evals"]["colour"]["every_steps"]
    path = root / "config.json"
    path.write_text(config_lib.to_json(plain))
    return path


class Run:
    """The processes of one start of a run, each with the file in which its reads are noted."""

    def __init__(self, folder, count, *arguments, seconds=0.0, fail_at=None):
        folder.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        environment = os.environ | {
            "XLA_FLAGS": "--xla_backend_optimization_level=0",  # one device, and compiled in less time
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        }
        self.notes = [folder / f"reads{i}" for i in range(count)]
        self.outputs = [(folder / f"out{i}", folder / f"err{i}") for i in range(count)]
        self.processes = []
        for i in range(count):
            joined = (
                [f"--coordinator={address}", f"--processes={count}", f"--process={i}"] if count > 1 else []
            )
            program = [
                str(TESTS / "noted_reads.py"),
                str(self.notes[i]),
                str(seconds),
                str((fail_at or {}).get(i, -1)),
            ]
            with self.outputs[i][0].open("w") as out, self.outputs[i][1].open("w") as err:
                command = [sys.executable, *program, *arguments, *joined]
                self.processes.append(
                    subprocess.Popen(command, cwd=TESTS.parent, env=environment, stdout=out, stderr=err)
                )

    def wait_for(self, condition):
        end = time.monotonic() + DEADLINE
        while not condition():
            assert all(process.poll() is None for process in self.processes), self.messages()
            assert time.monotonic() < end, "the run does not get on"
            time.sleep(0.01)

    def finish(self, seconds=DEADLINE):
        """Exit codes."""
        end = time.monotonic() + seconds
        try:
            return [process.wait(timeout=max(0.1, end - time.monotonic())) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()

    def out(self, i):
        return self.outputs[i][0].read_text()

    def err(self, i):
        return self.outputs[i][1].read_text()

    def messages(self):
        return "\n".join(self.out(i) + self.err(i) for i in range(len(self.processes)))

    def reads(self, i):
        """Number -> identity of the examples that process i read."""
        lines = self.notes[i].read_text().splitlines() if self.notes[i].exists() else []
        return {int(number): identity for number, identity in map(str.split, lines)}


def train(folder, count, config_file, workdir, **settings):
    return Run(folder, count, "train", f"--config={config_file}", f"--workdir={workdir}", **settings)


def complete(run):
    codes = run.finish()
    assert codes == [0] * len(codes), run.messages()


@pytest.fixture(scope="module")
def one(config_file, tmp_path_factory):
    """(the run of one process, its directory)."""
    root = tmp_path_factory.mktemp("one")
    run = train(root / "process", 1, config_file, root / "run")
    complete(run)
    return run, root / "run"


@pytest.fixture(scope="module")
def two(config_file, tmp_path_factory):
    """(the run of two processes, its directory)."""
    root = tmp_path_factory.mktemp("two")
    run = train(root / "processes", 2, config_file, root / "run")
    complete(run)
    return run, root / "run"


def assert_same_numbers(workdir, expected):
    """As on eight devices and on one: sums are added up in another order."""
    lines, wanted = tiny.metrics_lines(workdir), tiny.metrics_lines(expected)
    assert [line["step"] for line in lines] == [line["step"] for line in wanted]
    for line, other in zip(lines, wanted, strict=True):
        assert line.keys() == other.keys()
        np.testing.assert_allclose(list(line.values()), list(other.values()), rtol=1e-4, atol=1e-6)


def test_two_processes_train_as_one_does(one, two):
    assert_same_numbers(two[1], one[1])
    results = [json.loads((workdir / "result.json").read_text()) for _, workdir in (one, two)]
    assert [len(result["devices"]) for result in results] == [1, 2]
    assert (two[1] / "report.html").is_file()
    assert complete_steps(two[1] / "checkpoints")[-1] == STEPS


def test_each_process_reads_its_own_rows_and_both_read_an_epoch_once(one, two):
    whole, parts = one[0].reads(0), [two[0].reads(i) for i in range(2)]
    for i, part in enumerate(parts):
        assert {number % BATCH // (BATCH // 2) for number in part} == {i}
    both = parts[0] | parts[1]
    consumed = range(STEPS * BATCH)
    assert [both[number] for number in consumed] == [whole[number] for number in consumed]
    for epoch in range(STEPS * BATCH // RECORDS):
        numbers = range(epoch * RECORDS, (epoch + 1) * RECORDS)
        assert len({both[number] for number in numbers}) == RECORDS


def test_only_the_first_process_talks(two):
    run, _ = two
    assert f"{STEPS} steps in " in run.out(0) and "process 0 of 2" in run.err(0)
    assert "evaluator colour" in run.err(0) and "classification/colour_logits" in run.out(0)
    assert "evaluator" not in run.err(1) and "colour" not in run.out(1) and "steps in" not in run.out(1)
    assert "Traceback" not in run.messages()


def test_two_processes_evaluate_a_checkpoint(two, tmp_path):
    run = Run(tmp_path / "eval", 2, "eval", f"--workdir={two[1]}", f"--out={tmp_path / 'metrics.json'}")
    complete(run)
    found = json.loads((tmp_path / "metrics.json").read_text())
    result = json.loads((two[1] / "result.json").read_text())
    assert found == {"step": STEPS, "metrics": result["metrics"]}
    assert f"step {STEPS}" in run.out(0) and f"step {STEPS}" not in run.out(1)


def test_sigterm_on_either_host_and_checkpoints_of_two_processes_and_of_one(config_file, one, tmp_path):
    """Two processes, then one, then two, then one: each goes on where the one before has stopped."""
    workdir, at = tmp_path / "run", 0
    for stage, (count, host) in enumerate([(2, 1), (1, 0), (2, 0)]):
        run = train(tmp_path / str(stage), count, config_file, workdir, seconds=SLOW)
        run.wait_for(lambda: any(step > at for step in numbered(workdir / "checkpoints")))  # noqa: B023
        run.processes[host].send_signal(signal.SIGTERM)
        assert run.finish() == [75] * count, run.messages()
        step = complete_steps(workdir / "checkpoints")[-1]
        assert at < step < STEPS
        assert f"stopped by SIGTERM, step {step} is saved in {workdir}" in run.err(0)
        reads = {number for i in range(count) for number in run.reads(i)}
        assert min(reads) == at * BATCH
        if at:
            assert f"going on after step {at} of {STEPS}" in run.err(0)
        at = step
    run = train(tmp_path / "last", 1, config_file, workdir)
    complete(run)
    whole, reads = one[0].reads(0), run.reads(0)
    assert min(reads) == at * BATCH
    rest = range(at * BATCH, STEPS * BATCH)
    assert [reads[number] for number in rest] == [whole[number] for number in rest]
    assert_same_numbers(workdir, one[1])


def stop_after(run, workdir, at):
    """SIGTERM once a checkpoint after step `at` has begun; the step at which all have stopped."""
    run.wait_for(lambda: any(step > at for step in numbered(workdir / "checkpoints")))
    run.processes[0].send_signal(signal.SIGTERM)
    assert run.finish() == [75] * len(run.processes), run.messages()
    return complete_steps(workdir / "checkpoints")[-1]


def test_checkpoints_of_two_processes_go_on_in_four_and_one_on_other_meshes(config_file, one, tmp_path):
    workdir, at, reads = tmp_path / "run", 0, {}
    for count, mesh in [(2, ["fsdp=2"]), (4, ["fsdp=2"]), (1, []), (2, ["tensor=2"])]:
        flags = [f"--config.mesh.{size}" for size in mesh]
        last = count == 2 and at > 0
        run = Run(
            tmp_path / f"{count}{at}",
            count,
            "train",
            f"--config={config_file}",
            f"--workdir={workdir}",
            *flags,
            seconds=0.0 if last else SLOW,
        )
        if last:
            complete(run)
        else:
            stopped = stop_after(run, workdir, at)
        for i in range(count):
            reads |= {n: found for n, found in run.reads(i).items() if n >= at * BATCH}
        at = stopped
    whole = one[0].reads(0)
    assert [reads[n] for n in range(STEPS * BATCH)] == [whole[n] for n in range(STEPS * BATCH)]
    assert_same_numbers(workdir, one[1])


def test_two_processes_killed_at_random_moments_end_in_the_same_bits(config_file, two, tmp_path):
    chance, workdir, kills = random.Random(0), tmp_path / "run", 0
    checkpoints = workdir / "checkpoints"
    for start in range(4):
        run = train(tmp_path / str(start), 2, config_file, workdir, seconds=SLOW / 5)
        before = set(numbered(checkpoints))
        run.wait_for(lambda: set(numbered(checkpoints)) - before)  # noqa: B023
        time.sleep(chance.uniform(0.0, 0.5))  # within a step, a save, a rotation, an evaluation
        victim = run.processes[chance.randrange(2)]
        if victim.poll() is None:
            victim.kill()
            kills += 1
            assert victim.wait() == -signal.SIGKILL
        if start:  # once the other one has found out by itself, which takes its heartbeat
            for process in run.processes:
                process.kill()
        assert all(run.finish(2 * processes.HEARTBEAT_SECONDS + DEADLINE)), run.messages()
    assert kills == 4
    complete(train(tmp_path / "last", 2, config_file, workdir))
    (step, found), (_, expected) = tiny.saved(workdir), tiny.saved(two[1])
    assert step == STEPS and tiny.differing(found, expected) == []
    assert tiny.metrics_lines(workdir) == tiny.metrics_lines(two[1])


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_killed_ends_the_other(config_file, tmp_path, victim):
    run = train(tmp_path / "processes", 2, config_file, tmp_path / "run", seconds=SLOW)
    run.wait_for(lambda: complete_steps(tmp_path / "run" / "checkpoints"))
    run.processes[victim].kill()
    began = time.monotonic()
    codes = run.finish(processes.HEARTBEAT_SECONDS + DEADLINE)
    assert time.monotonic() - began < 2 * processes.HEARTBEAT_SECONDS
    assert codes[victim] == -signal.SIGKILL
    # Without process 0 the runtime may end the other first, with a message of its own.
    assert codes[1 - victim] in ([5] if victim else [5, -signal.SIGABRT]), run.messages()
    ours = f"error (process {1 - victim} of 2): another process of the run is gone"
    runtimes = "This most likely indicates that another task died"
    assert ours in run.err(1 - victim) or runtimes in run.err(1 - victim)


def test_an_error_of_one_process_is_seen_and_ends_both(config_file, tmp_path):
    first = 10 * BATCH + BATCH // 2  # row of process 1
    run = train(tmp_path / "processes", 2, config_file, tmp_path / "run", fail_at={1: first})
    assert run.finish() == [5, 3], run.messages()
    assert "error (process 1 of 2): " in run.err(1) and f"example number {first} is broken" in run.err(1)
    assert "error (process 0 of 2): another process of the run is gone" in run.err(0)


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_waits_in_vain_says_so(index):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    code = (
        "from mmjax.parallel import processes\nprocesses.START_SECONDS = 2\n"
        f"processes.connect('{address}', 2, {index})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=TESTS.parent, timeout=DEADLINE
    )
    assert done.returncode == 5
    whom = ("all the others", "process 0")[index]
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: process {index} of 2 waited 2 s for {whom} at {address}; start all")


@pytest.mark.parametrize("launcher", ["SLURM", "Open MPI"])
def test_tasks_of_a_launcher_find_each_other(launcher):
    """In the environment that `srun` and `mpirun` (Open MPI 4) give; JAX reads the address of process 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "from mmjax.parallel import processes\nprocesses.connect()\n"
        "import jax\nfrom jax.experimental import multihost_utils\n"
        "index = jax.numpy.asarray(processes.place().index)\n"
        "print('found', processes.place(), multihost_utils.process_allgather(index).tolist())"
    )
    tasks = []
    for i in range(2):
        names = {
            "SLURM": {
                "SLURM_JOB_ID": "77",
                "SLURM_NTASKS": "2",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_STEP_TASKS_PER_NODE": "2",
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_PROCID": str(i),
                "SLURM_LOCALID": str(i),
            },
            "Open MPI": {
                "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_RANK": str(i),
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
                "OMPI_COMM_WORLD_LOCAL_RANK": str(i),
            },
        }
        environment = (
            os.environ
            | names[launcher]
            | {
                "XLA_FLAGS": "",
                "JAX_COORDINATOR_PORT": str(port),
                "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}",
            }
        )
        command = [sys.executable, "-c", code]
        tasks.append(
            subprocess.Popen(
                command,
                cwd=TESTS.parent,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        found = [task.communicate(timeout=DEADLINE) for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    for i, (out, err) in enumerate(found):
        assert f"found Place(index={i}, count=2) [0, 1]" in out, out + err
