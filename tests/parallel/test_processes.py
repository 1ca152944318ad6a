"""Which processes are joined, and what is said about flags that do not go together. None is started here."""

import os

import pytest

from mmjax.errors import ConfigError
from mmjax.parallel import processes
from mmjax.parallel.processes import Place

SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_NODELIST": "node[03-04]",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
OPEN_MPI_4 = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}


@pytest.fixture
def joined(monkeypatch):
    """What `connect` gives to `jax.distributed.initialize`, in an environment without a launcher."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "TPU_", "MEGASCALE_", "JAX_LOCAL_DEVICE")):
            monkeypatch.delenv(name)
    calls, updates = [], {}

    def initialize(coordinator, count, index, **settings):
        calls.append((coordinator, count, index, settings))

    monkeypatch.setattr("jax.distributed.initialize", initialize)
    monkeypatch.setattr("jax.config.update", updates.__setitem__)
    monkeypatch.setattr(processes, "_place", Place(0, 1))
    monkeypatch.setattr(processes, "_say_only_warnings", lambda: None)
    calls.append(updates)
    return calls


def start(joined, monkeypatch, environment, *arguments):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    processes.connect(*arguments)
    updates, *calls = joined
    return calls, updates


@pytest.mark.parametrize("arguments", [(), (None, 1), ("host:1", 1, 0)])
def test_one_process_joins_nothing(joined, monkeypatch, arguments):
    calls, updates = start(joined, monkeypatch, {}, *arguments)
    assert (calls, updates) == ([], {})
    assert processes.place() == (0, 1) and processes.is_first()


def test_a_shell_in_an_allocation_is_one_process(joined, monkeypatch):
    shell = {**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
    assert start(joined, monkeypatch, shell)[0] == []


def test_one_is_chosen_although_slurm_has_started_two(joined, monkeypatch):
    assert start(joined, monkeypatch, SLURM, None, 1)[0] == []


def test_flags(joined, monkeypatch):
    [(coordinator, count, index, settings)], updates = start(joined, monkeypatch, {}, "10.0.0.1:8476", 3, 2)
    assert (coordinator, count, index) == ("10.0.0.1:8476", 3, 2)
    assert settings["coordinator_bind_address"] is None
    assert updates == {
        "jax_cpu_collectives_implementation": "gloo",
        "jax_enable_preemption_service": False,
    }
    assert processes.place() == (2, 3) and not processes.is_first()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_coordinator_of_this_machine_alone_listens_there_only(joined, monkeypatch, host):
    [(*_, settings)], _ = start(joined, monkeypatch, {}, f"{host}:8476", 2, 0)
    assert settings["coordinator_bind_address"] == f"{host}:8476"


def test_slurm_with_one_task_per_node_gives_it_all_devices(joined, monkeypatch):
    [(coordinator, count, index, _)], updates = start(joined, monkeypatch, SLURM)
    assert (coordinator, count, index) == (None, 2, 1)
    assert updates["jax_cuda_visible_devices"] == "all"


def test_open_mpi_with_two_tasks_per_node_shares_the_devices(joined, monkeypatch):
    [(coordinator, count, index, _)], updates = start(joined, monkeypatch, OPEN_MPI_4)
    assert (coordinator, count, index) == (None, 4, 3)
    assert "jax_cuda_visible_devices" not in updates


def test_open_mpi_5_says_everything_but_the_coordinator(joined, monkeypatch):
    environment = {name: value for name, value in OPEN_MPI_4.items() if "orte" not in name}
    with pytest.raises(ConfigError, match="4 processes, since Open MPI does not say where process 0 is"):
        start(joined, monkeypatch, environment)
    [(coordinator, count, index, _)], _ = start(joined, monkeypatch, environment, "node3:8476")
    assert (coordinator, count, index) == ("node3:8476", 4, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1",), "give all three, since no launcher says the rest"),
        ((None, 2), "give all three"),
        ((None, 2, 0), "--coordinator: is needed for 2 processes, since no launcher says where"),
        (("host:1", 2, 2), "--process=2: expected 0 to 1, since --processes=2"),
        (("host:1", 2, -1), "--process=-1: expected 0 to 1"),
        (("host:1", 0, 0), "--processes=0: expected 1 or more"),
        (("host", 2, 0), "--coordinator=host: expected HOST:PORT, such as 10.0.0.1:8476"),
    ],
)
def test_flags_that_do_not_go_together(joined, monkeypatch, arguments, message):
    with pytest.raises(ConfigError, match=message):
        start(joined, monkeypatch, {}, *arguments)
    assert len(joined) == 1


@pytest.mark.parametrize(
    ("hosts", "several"), [("a,b", True), ("localhost", False), (None, True)], ids=["two", "one", "unknown"]
)
def test_on_a_tpu_vm_jax_is_asked(joined, monkeypatch, hosts, several):
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: name == "libtpu")
    monkeypatch.setattr(processes.glob, "glob", lambda pattern: ["/dev/accel0"] * ("accel" in pattern))
    environment = {} if hosts is None else {"TPU_WORKER_HOSTNAMES": hosts}
    calls, _ = start(joined, monkeypatch, environment)
    assert [call[:3] for call in calls] == [(None, None, None)] * several


def test_errors_that_say_that_another_process_is_gone(monkeypatch):
    error = RuntimeError("stopped")
    error.__cause__ = ValueError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer\nmore")
    assert processes.lost_another(error) is None  # one process has no other
    monkeypatch.setattr(processes, "_place", Place(0, 2))
    assert processes.lost_another(error) == "UNKNOWN: Gloo all-reduce failed: Connection reset by peer"
    assert processes.lost_another(ValueError("a bug")) is None


def test_one_process_ends_as_ever(capsys):
    with pytest.raises(SystemExit) as ended:
        processes.end_at_once(4)
    assert ended.value.code == 4
