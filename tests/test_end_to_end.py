"""Whole runs: processes that are killed and started again, meshes, fine-tuning, numerics."""

import functools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import tiny

from mmjax import config as config_lib
from mmjax.data.prefetch import prefetch
from mmjax.parallel.mesh import batch_sharding
from mmjax.parallel.placement import named_leaves
from mmjax.training import loop
from mmjax.training import setup as setup_lib
from mmjax.training.checkpoint_files import complete_steps, numbered
from mmjax.training.state import abstract_state, shardings_of

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parent.parent
STEPS = 40
DEADLINE = 300.0  # seconds; a busy machine is no failure


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return tiny.plain_config(tiny.write_data(root / "images"), root / "data") | {
        "total_steps": STEPS,
        "checkpoint": {"every_steps": 4},
        "log": {"every_steps": 5, "tensorboard": False},
    }


@pytest.fixture(scope="module")
def config_file(plain, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(config_lib.to_json(plain))
    return path


def start(config_file, workdir, *overrides):
    """`mmjax train` in a process of its own, with one device."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    command = [sys.executable, "-m", "mmjax", "train", f"--config={config_file}", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*command, *overrides],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """(exit code, stdout, stderr)."""
    out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


def wait_for(condition, process):
    """Until the condition holds or the process has ended."""
    end = time.monotonic() + DEADLINE
    while process.poll() is None and not condition():
        assert time.monotonic() < end, "the process does not get on"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(config_file, tmp_path_factory):
    """The run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    code, out, err = finish(start(config_file, workdir))
    assert code == 0, err
    assert f"{STEPS} steps in " in out and "Traceback" not in err
    assert (workdir / "report.html").is_file()
    return workdir


def assert_ended_as(whole, workdir):
    step, expected = tiny.saved(whole)
    found_step, found = tiny.saved(workdir)
    assert found_step == step == STEPS
    assert tiny.differing(found, expected) == []
    assert tiny.metrics_lines(workdir) == tiny.metrics_lines(whole)
    results = [json.loads((path / "result.json").read_text()) for path in (workdir, whole)]
    assert results[0]["metrics"] == results[1]["metrics"]


def test_killed_at_random_moments_and_started_again(config_file, whole, tmp_path):
    chance = random.Random(0)
    checkpoints = tmp_path / "checkpoints"
    kills, went_on = 0, []
    while kills < 4:
        process = start(config_file, tmp_path)
        before = set(numbered(checkpoints))
        wait_for(lambda: set(numbered(checkpoints)) - before, process)  # noqa: B023
        time.sleep(chance.uniform(0.0, 0.4))  # within a step, a save, a rotation, an evaluation
        process.kill()
        code, _, err = finish(process)
        went_on += [line for line in err.splitlines() if "going on after step" in line]
        if code == 0:
            break  # it was quicker than that
        assert code == -signal.SIGKILL, err
        kills += 1
    assert kills >= 2
    assert went_on
    code, _, err = finish(start(config_file, tmp_path))
    assert code == 0, err
    assert_ended_as(whole, tmp_path)


def test_sigterm_saves_the_step_and_ends_with_75(config_file, whole, tmp_path):
    process = start(config_file, tmp_path)
    wait_for(lambda: numbered(tmp_path / "checkpoints"), process)
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    assert (code, out) == (75, ""), err
    step = complete_steps(tmp_path / "checkpoints")[-1]
    assert err.splitlines()[-1] == (
        f"error: stopped by SIGTERM, step {step} is saved in {tmp_path}; start again to go on"
    )
    assert 0 < step < STEPS
    assert not (tmp_path / "result.json").exists()

    code, _, err = finish(start(config_file, tmp_path))
    assert code == 0, err
    assert f"going on after step {step} of {STEPS}" in err
    assert_ended_as(whole, tmp_path)


def test_a_loss_that_is_not_finite_ends_with_4(config_file, tmp_path):
    absurd = ["--config.optimizer.schedule.peak=1e30", "--config.checkpoint.every_steps=1"]
    without_fusion = ["--config.model.fusion=none", "--config.model.heads.colour_logits.reads=image"]
    code, out, err = finish(start(config_file, tmp_path, *absurd, *without_fusion))
    assert (code, out) == (4, ""), err
    last = err.splitlines()[-1]
    step = int(last.removeprefix("error: step ").partition(":")[0])
    good = complete_steps(tmp_path / "checkpoints")[-1]
    assert last.startswith(f"error: step {step}: not finite: ")
    assert f"the last good checkpoint is step {good} in {tmp_path / 'checkpoints'}" in last
    assert "Traceback" not in err
    assert good == step - 1
    assert all(np.isfinite(x).all() for x in tiny.saved(tmp_path)[1].values())


@pytest.fixture
def small_ones_too(monkeypatch):
    """Small arrays are split and offloaded as large ones are."""
    small = functools.partial(abstract_state, fsdp_min_size=64)
    monkeypatch.setattr(setup_lib, "abstract_state", small)


def test_offloading_changes_no_bit_of_a_run(plain, tmp_path, small_ones_too):
    smaller = tiny.without_fusion(plain) | {"evals": {}}
    states = {}
    for offload, kind in ((False, "device"), (True, "pinned_host")):
        config = tiny.resolved(smaller, optimizer__offload=offload)
        with tiny.on_devices(1):
            moments = jax.tree.leaves(tiny.make_setup(config).abstract.opt_state)
            assert kind in {leaf.sharding.memory_kind for leaf in moments}
            loop.train(config, tmp_path / kind)
        step, states[kind] = tiny.saved(tmp_path / kind)
        assert step == STEPS
    assert tiny.differing(*states.values()) == []


@pytest.mark.parametrize(
    "mesh", [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=lambda mesh: "-".join(mesh)
)
def test_eight_devices_train_as_one_does(plain, whole, tmp_path, small_ones_too, mesh):
    config = tiny.resolved(plain, mesh=mesh, evals={}, checkpoint={})
    if "fsdp" in mesh:
        specs = [leaf.sharding.spec for leaf in jax.tree.leaves(tiny.make_setup(config).abstract.params)]
        used = {axis for spec in specs for entry in spec for axis in np.ravel(entry)}
        assert {"fsdp", "tensor"} <= used
    loop.train(config, tmp_path)
    expected = [line for line in tiny.metrics_lines(whole) if "train/loss" in line]
    found = tiny.metrics_lines(tmp_path)
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def one_device():
    with tiny.on_devices(1):
        yield


def test_fine_tuning_moves_only_what_is_not_frozen(plain, tmp_path, one_device):
    short = tiny.without_fusion(plain) | {"total_steps": 4, "checkpoint": {}, "evals": {}}
    short["optimizer"] = short["optimizer"] | {"ema": 0.9}
    loop.train(tiny.resolved(short), tmp_path / "source")
    _, source = tiny.saved(tmp_path / "source")
    frozen = ["image_encoder/.*", "text_encoder/.*/kernel"]
    tuned = tiny.resolved(short, seed=5, init={"run": str(tmp_path / "source")}, optimizer__frozen=frozen)
    loop.train(tuned, tmp_path / "tuned")
    _, state = tiny.saved(tmp_path / "tuned")

    def is_frozen(name):
        return name.startswith("image_encoder/") or (
            name.startswith("text_encoder/") and name.endswith("/kernel")
        )

    names = [name.removeprefix("params/") for name in state if name.startswith("params/")]
    assert any(map(is_frozen, names)) and not all(map(is_frozen, names))
    for name in names:
        taken = source[f"ema/{name}"]
        if is_frozen(name):
            assert state[f"params/{name}"].tobytes() == taken.tobytes(), name
            assert f"ema/{name}" not in state  # it is its own average
            assert not any(key.startswith("training/opt_state") and name in key for key in state), name
        else:
            assert not np.array_equal(state[f"params/{name}"], taken), name


@pytest.fixture(scope="module")
def three_steps(plain, one_device):
    """three_steps(**changes) -> (losses, parameters, dtypes) of a run without chance."""
    base = tiny.without_chance(tiny.without_fusion(plain)) | {"evals": {}}
    base["optimizer"] = {"method": {"type": "sgd"}, "schedule": {"type": "constant", "peak": 0.05}}
    initial = []

    def run(**changes):
        setup = tiny.make_setup(tiny.resolved(base, **changes))
        if not initial:
            initial.append(jax.device_get(loop.initial_state(setup)))
        state = jax.device_put(initial[0], shardings_of(setup.abstract), may_alias=False)
        step, losses = setup.make_train_step(), []
        with prefetch(setup.pipeline.batches(0), batch_sharding(setup.mesh)) as batches:
            for _ in range(3):
                state, metrics = step(state, next(batches))
                losses.append(float(metrics["loss"][0]))
        return losses, dict(named_leaves(jax.device_get(state.params)))

    return run


@pytest.fixture(scope="module")
def plain_steps(three_steps):
    return three_steps()


def test_microbatches_give_the_same_step(three_steps, plain_steps):
    losses, params = three_steps(optimizer__accumulate_steps=2)
    np.testing.assert_allclose(losses, plain_steps[0], rtol=1e-5)
    for name, value in params.items():
        np.testing.assert_allclose(value, plain_steps[1][name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_recomputed_activations_give_the_same_step(three_steps, plain_steps):
    losses, params = three_steps(remat=True)
    np.testing.assert_allclose(losses, plain_steps[0], rtol=1e-5)
    for name, value in params.items():
        np.testing.assert_allclose(value, plain_steps[1][name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_bfloat16_computes_nearly_the_same(three_steps, plain_steps):
    losses, params = three_steps(dtype="bfloat16")
    assert losses != plain_steps[0]
    np.testing.assert_allclose(losses, plain_steps[0], rtol=0.03)
    assert {value.dtype.name for value in params.values()} == {"float32"}
