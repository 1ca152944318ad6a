"""The verb `plan`: its flags, its file, and plans for TPUs where their compiler is installed."""

import json
import os
import pathlib
import subprocess
import sys

import planned
import pytest

from mmjax import __main__ as cli
from mmjax.errors import ConfigError
from mmjax.planning import topology
from mmjax.training.workdir import check_place
from mmjax.verbs import plan as verb

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def same_environment(monkeypatch):
    """What `prepare_process` sets is undone."""
    for name in ("JAX_PLATFORMS", "XLA_FLAGS"):
        monkeypatch.setenv(name, os.environ[name])


@pytest.fixture
def reference(tmp_path):
    return planned.write_config(tmp_path)


def test_a_plan_is_printed_and_written(reference, tmp_path, capsys):
    workdir = tmp_path / "run"
    arguments = ["plan", f"--config={reference}", "--topology=h100:8", f"--workdir={workdir}"]
    assert cli.dispatch([*arguments, "--config.mesh.fsdp=2"]) == 0
    out = capsys.readouterr().out
    assert "on h100:8: 8 chips, mesh data=4 fsdp=2" in out and f"written to {workdir}/plan.json" in out
    assert json.loads((workdir / "plan.json").read_text())["mesh"]["fsdp"] == 2
    cli.dispatch(arguments)  # an older plan is replaced
    assert json.loads((workdir / "plan.json").read_text())["mesh"]["fsdp"] == 1
    check_place(workdir)  # and a run may start there


def test_several_are_compared(reference, tmp_path, capsys):
    out = tmp_path / "plans.json"
    arguments = ["--topology=h100:2", "--topology=h100:8", "--vary=mesh.fsdp=1,2", "--batch-per-chip=4"]
    cli.dispatch(["plan", f"--config={reference}", *arguments, f"--out={out}"])
    found = [(p["chips"], p["mesh"]["fsdp"], p["batch_size"]) for p in json.loads(out.read_text())["plans"]]
    assert found == [(2, 1, 8), (2, 2, 8), (8, 1, 32), (8, 2, 32)]
    assert capsys.readouterr().out.count("h100:8") == 2


def test_what_is_no_plan_is_never_replaced(reference, tmp_path):
    arguments = ["plan", f"--config={reference}", "--topology=h100:8"]
    for content in ("notes", "{}", "[]", json.dumps({"format": "of something else"})):
        (tmp_path / "plan.json").write_text(content)
        for flag in (f"--workdir={tmp_path}", f"--out={tmp_path}/plan.json"):
            with pytest.raises(ConfigError, match="is there and is no plan; choose another place"):
                cli.dispatch([*arguments, flag])
        assert (tmp_path / "plan.json").read_text() == content
    with pytest.raises(ConfigError, match="is a directory"):
        cli.dispatch([*arguments, f"--out={tmp_path}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--topology: is missing; give the chips to plan for"),
        (["--topology=v5e"], "--topology=v5e: expected chips and their arrangement"),
        (["--topology=cpu:8", "--vary=mesh.fsdp"], "--vary=mesh.fsdp: expected KEY=A,B"),
        (["--topology=cpu:8", "--vary=seed=1", "--vary=seed=2"], "'seed' is given twice"),
        (["--topology=cpu:8", "--vary=seed=1", "--config.seed=2"], "'seed' is given twice"),
        (["--topology=cpu:8", "--batch-per-chip=0"], "--batch-per-chip=0: expected 1 or more"),
        (["--topology=cpu:8", "--batch-per-chip=1", "--config.batch_size=8"], "give one of them"),
        (["--topology=v5e:2x2", "--topology=cpu:8", "--search-batch"], "--search-batch: is for TPUs"),
        (["--topology=cpu:8", "--workdir=a", "--out=b"], "--workdir and --out: give one of them"),
    ],
)
def test_wrong_flags(reference, arguments, message):
    with pytest.raises(ConfigError, match=message):
        cli.dispatch(["plan", f"--config={reference}", *arguments])


def test_the_combinations_that_vary():
    found = verb._variants(["a.b=1,2", "config.c=x"], {"d": "3"})
    assert found == [{"a.b": "1", "c": "x"}, {"a.b": "2", "c": "x"}]
    assert verb._variants([], {}) == [{}]


def test_without_the_tpu_compiler(reference, monkeypatch, tmp_path):
    monkeypatch.setenv(topology.COMPILER, str(tmp_path / "nothing.so"))
    message = r"--topology=v5e:2x2: the TPU compiler is not installed; .*pip install 'mmjax\[tpu-plan\]'"
    with pytest.raises(ConfigError, match=message):
        cli.dispatch(["plan", f"--config={reference}", "--topology=v5e:2x2"])


needs_compiler = pytest.mark.skipif(
    not topology.has_tpu_compiler(),
    reason="the TPU compiler is not installed: MMJAX_REFERENCE=1 ./launch.sh test installs it, "
    f"or {topology.COMPILER} names its libtpu.so",
)


def plan_for_tpu(*arguments):
    """The finished process: JAX must start with other variables than here."""
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    return subprocess.run(
        [sys.executable, "-m", "mmjax", "plan", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=900,
        env=environment,
    )


@needs_compiler
@pytest.mark.slow
def test_a_tpu_that_is_not_here(reference, tmp_path):
    out = tmp_path / "plan.json"
    done = plan_for_tpu(f"--config={reference}", "--topology=v5e:2x2", "--config.mesh.fsdp=2", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "fits: " in done.stdout and "a step is estimated at: " in done.stdout
    plan = json.loads(out.read_text())
    assert (plan["fits"], plan["chips"], plan["available_bytes"]) == (True, 4, int(15.75 * 2**30))
    assert plan["estimated_cycles"] > 0 and plan["versions"]["libtpu"]
    # Every gradient is summed over all chips, in parts or whole.
    assert sum(sum(axes.values()) for axes in plan["collective_bytes"].values()) >= 4 * plan["parameters"]
    least = max(plan["roofline"]["seconds"].values())
    assert plan["roofline"]["step_seconds"] == least < plan["estimated_seconds"]


@needs_compiler
@pytest.mark.slow
def test_what_does_not_fit_is_an_answer(tmp_path):
    """A table of 12 GiB with its moments; in four parts it fits."""
    reference = planned.write_config(
        tmp_path,
        model__streams__text__encoder__vocab_size=2**26,
        optimizer__ema=0.0,
    )
    out = tmp_path / "plan.json"
    done = plan_for_tpu(f"--config={reference}", "--topology=v5e:2x2", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "does not fit: a chip needs " in done.stdout and "Traceback" not in done.stderr
    plan = json.loads(out.read_text())
    assert plan["fits"] is False and plan["needed_bytes"] > plan["available_bytes"]
    assert "RESOURCE_EXHAUSTED" in plan["reason"]
    changes = [item["changes"] for item in plan["nearest"]]
    assert {"mesh.data": "1", "mesh.fsdp": "4"} in changes


@needs_compiler
@pytest.mark.slow
def test_offloading_makes_room(tmp_path):
    """Both moments of a table of 1 GiB, in four parts, are with the host."""
    reference = planned.write_config(
        tmp_path, model__streams__text__encoder__vocab_size=2**24, optimizer__ema=0.0
    )
    plans = {}
    for offload in ("false", "true"):
        out = tmp_path / f"{offload}.json"
        done = plan_for_tpu(
            f"--config={reference}",
            "--topology=v5e:2x2",
            "--config.mesh.fsdp=4",
            f"--config.optimizer.offload={offload}",
            f"--out={out}",
        )
        assert done.returncode == 0, done.stderr
        plans[offload] = json.loads(out.read_text())
    here, away = plans["false"], plans["true"]
    moved = here["memory"]["optimizer_state"] - away["memory"]["optimizer_state"]
    assert away["host_bytes"] == moved >= 2**29
    assert here["argument_bytes"] - away["argument_bytes"] > 0.9 * moved
    assert away["needed_bytes"] < here["needed_bytes"]


@needs_compiler
def test_no_such_topology(reference):
    done = plan_for_tpu(f"--config={reference}", "--topology=v5e:3x5")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: --topology=v5e:3x5: the TPU compiler refuses it" in done.stderr


@needs_compiler
def test_two_slices(reference, tmp_path):
    out = tmp_path / "plan.json"
    done = plan_for_tpu(
        f"--config={reference}",
        "--topology=2xv5e:2x2",
        "--config.mesh.fsdp=2",
        "--batch-per-chip=4",
        f"--out={out}",
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(out.read_text())
    assert plan["chips"] == 8 and plan["mesh"]["data"] == 4
    between = [item for item in plan["collectives"] if item["axes"] == "slices"]
    assert sum(item["payload_bytes"] for item in between) > 0  # each slice's part of the gradients
    assert any("what slices send each other" in note for note in plan["notes"])

    odd = plan_for_tpu(f"--config={reference}", "--topology=2xv5e:2x2", "--config.mesh.fsdp=8")
    assert odd.returncode == 2
    assert "error: mesh.data: got 1, expected a multiple of the 2 TPU slices" in odd.stderr
