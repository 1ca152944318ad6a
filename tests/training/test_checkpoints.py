import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy
from saved_states import assert_same_bits, data_file, flip_a_bit, host_state, on_mesh

from mmjax.errors import ConfigError, DataError
from mmjax.layers.stacking import stack_blocks
from mmjax.parallel.placement import named_leaves
from mmjax.training import checkpoint_files
from mmjax.training.checkpoints import Checkpoints, merge_params, restore_params

ABSTRACT, _ = on_mesh(host_state(0))


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def checkpoints(directory):
    found = Checkpoints(directory, keep=3)
    yield found
    found.close()


def save(checkpoints, *steps, metrics=None):
    for step in steps:
        _, state = on_mesh(host_state(step))
        checkpoints.save(step, state, {"examples": 10 * step}, metrics and metrics[step])
    checkpoints.wait()


def test_a_restored_state_has_the_same_bits(checkpoints):
    assert checkpoints.restore_latest(ABSTRACT) is None
    save(checkpoints, 5, 10)
    step, state, data_state = checkpoints.restore_latest(ABSTRACT)
    assert step == 10 and data_state == {"examples": 100}
    assert_same_bits(state, host_state(10))
    assert jax.tree.structure(state) == jax.tree.structure(ABSTRACT)
    assert all(
        x.sharding == a.sharding for x, a in zip(*map(jax.tree.leaves, (state, ABSTRACT)), strict=True)
    )
    step, state, data_state = checkpoints.restore(5, ABSTRACT)
    assert step == 5 and data_state == {"examples": 50}
    assert_same_bits(state, host_state(5))


@pytest.mark.parametrize("sizes", [(), toy.DATA, toy.FSDP], ids=["single", "data", "fsdp"])
def test_another_mesh(checkpoints, sizes):
    save(checkpoints, 1)
    abstract, _ = on_mesh(host_state(1), sizes)
    _, state, _ = checkpoints.restore_latest(abstract)
    assert_same_bits(state, host_state(1))
    assert all(
        x.sharding == a.sharding for x, a in zip(*map(jax.tree.leaves, (state, abstract)), strict=True)
    )


def test_without_average_and_batch_statistics(checkpoints):
    abstract, state = on_mesh(host_state(2, ema=False, batch_norm=False))
    checkpoints.save(2, state, {})
    _, restored, _ = checkpoints.restore_latest(abstract)
    assert restored.ema is None and restored.model_state == {}
    assert_same_bits(restored, host_state(2, ema=False, batch_norm=False))


def test_training_goes_on_while_the_state_is_written(directory):
    """The saved state is donated at once; the restored one gives the same run, without compiling."""
    setup = toy.shared_set_up(toy.TENSOR, optimizer="sgd", ema=0.9)
    checkpoints = Checkpoints(directory)

    def steps(state, first, last):
        for i in range(first, last):
            state, _ = setup.step(state, toy.make_batch(i))
        return state

    at_two = steps(setup.state, 0, 2)
    expected = jax.tree.map(np.array, at_two)
    checkpoints.save(2, at_two, {})
    at_four = steps(at_two, 2, 4)
    step, restored, _ = checkpoints.restore_latest(setup.abstract)
    assert step == 2
    assert_same_bits(restored, expected)
    assert_same_bits(steps(restored, 2, 4), at_four)
    assert setup.step._cache_size() == 1
    checkpoints.close()


@pytest.mark.parametrize(
    "damaged",
    [
        data_file,
        lambda path: data_file(path, "training"),
        lambda path: path / "params" / "manifest.ocdbt",
        lambda path: path / "params" / "_METADATA",
        lambda path: path / "checkpoint.json",
        lambda path: path / "digests.json",
    ],
    ids=["params", "training", "manifest", "metadata", "record", "digests"],
)
def test_one_flipped_bit_is_found(checkpoints, directory, damaged, monkeypatch):
    messages = []
    monkeypatch.setattr(checkpoint_files.logging, "error", lambda text, *a: messages.append(text % a))
    save(checkpoints, 1, 2)
    flip_a_bit(damaged(directory / "2"))
    before = {path: path.read_bytes() for path in (directory / "2").rglob("*") if path.is_file()}
    step, state, _ = checkpoints.restore_latest(ABSTRACT)
    assert step == 1
    assert_same_bits(state, host_state(1))
    assert len(messages) == 1 and str(directory / "2") in messages[0]
    # Nothing is lost: it stands aside, and its step can be saved again.
    assert checkpoints.steps() == [1]
    aside = directory / "2.damaged"
    assert {aside / path.relative_to(directory / "2"): x for path, x in before.items()} == {
        path: path.read_bytes() for path in aside.rglob("*") if path.is_file()
    }
    save(checkpoints, 2)
    assert checkpoints.restore_latest(ABSTRACT)[0] == 2


def test_lost_and_truncated_files_are_found(checkpoints, directory):
    save(checkpoints, 1, 2, 3)
    data_file(directory / "3").unlink()
    digests = directory / "2" / "digests.json"
    digests.write_text(digests.read_text()[:-40])
    assert checkpoints.restore_latest(ABSTRACT)[0] == 1
    assert {path.name for path in directory.iterdir()} == {"1", "2.damaged", "3.damaged"}


def test_all_damaged_is_an_error_each_time(checkpoints, directory):
    save(checkpoints, 1, 2)
    for step in (1, 2):
        flip_a_bit(data_file(directory / str(step)))
    for _ in range(2):  # a scheduler that starts it again must not begin afresh
        with pytest.raises(DataError, match="every checkpoint is damaged"):
            checkpoints.restore_latest(ABSTRACT)
    with pytest.raises(DataError, match=r"checkpoints/2: is damaged \(params/.* has changed\)"):
        checkpoints.restore(2, ABSTRACT)
    with pytest.raises(
        DataError, match="checkpoints/7: there is no such checkpoint; the directory has: 1, 2"
    ):
        checkpoints.restore(7, ABSTRACT)


def test_killed_while_saving(checkpoints, directory):
    save(checkpoints, 1, 2)
    (directory / "2" / "digests.json").unlink()  # killed after Orbax had finished
    shutil.copytree(directory / "1" / "params", directory / "3.orbax-checkpoint-tmp" / "params")  # and before
    (directory / "0.deleting").mkdir()  # killed while deleting
    assert checkpoints.steps() == [1]
    assert checkpoints.restore_latest(ABSTRACT)[0] == 1
    save(checkpoints, 2)
    assert {path.name for path in directory.iterdir()} == {"1", "2", "2.damaged"}


def test_killed_in_the_first_save_starts_afresh(checkpoints, directory):
    save(checkpoints, 1)
    (directory / "1" / "digests.json").unlink()
    assert Checkpoints(directory).restore_latest(ABSTRACT) is None
    again = Checkpoints(directory)
    save(again, 1)
    assert again.restore_latest(ABSTRACT)[0] == 1


@pytest.mark.parametrize("mode, best", [("max", 2), ("min", 1)])
def test_rotation_keeps_the_newest_and_the_best(directory, mode, best):
    other = directory / "notes.txt"
    directory.mkdir()
    other.write_text("mine")
    checkpoints = Checkpoints(directory, keep=2, best_metric="accuracy", best_mode=mode)
    values = {1: 0.1, 2: 0.9, 3: 0.5, 4: float("nan"), 5: 0.5}
    save(checkpoints, *values, metrics={step: {"accuracy": x} for step, x in values.items()})
    assert checkpoints.best_step() == best
    assert checkpoints.steps() == [best, 4, 5]
    assert {path.name for path in directory.iterdir()} == {str(best), "4", "5", "notes.txt"}
    assert other.read_text() == "mine"
    assert restore_params(directory)[0] == best
    assert restore_params(directory, best=False)[0] == 5


def test_a_step_is_saved_once(checkpoints, directory):
    save(checkpoints, 3)
    written = (directory / "3" / "digests.json").stat().st_mtime_ns
    save(checkpoints, 3)  # the last step of a run may also be one of the regular saves
    assert (directory / "3" / "digests.json").stat().st_mtime_ns == written
    with pytest.raises(DataError, match="checkpoints/3: there already is a checkpoint of this step"):
        save(Checkpoints(directory), 3)
    with pytest.raises(ConfigError, match="checkpoint.keep: got 0"):
        Checkpoints(directory, keep=0)


def test_what_fails_in_the_background_is_raised(checkpoints, directory, monkeypatch):
    def full(path):
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint_files, "write_digests", full)
    _, state = on_mesh(host_state(1))
    checkpoints.save(1, state, {})
    with pytest.raises(OSError, match="no space left"):
        checkpoints.wait()
    checkpoints.wait()  # once


def test_an_average_of_all_parameters_is_cut_to_that_of_the_trained_ones(checkpoints):
    save(checkpoints, 1)
    part = {name: ABSTRACT.ema[name] for name in ("encoder", "log_scale")}
    _, restored, _ = checkpoints.restore_latest(ABSTRACT.replace(ema=part))
    expected = host_state(1)
    assert_same_bits(restored, expected.replace(ema={name: expected.ema[name] for name in part}))


def test_a_state_of_another_model(checkpoints):
    save(checkpoints, 1)
    params = dict(ABSTRACT.params, head={"kernel": jax.ShapeDtypeStruct((8, 5), np.float32)})
    with pytest.raises(DataError, match=r"params/head/kernel is \(8, 4\) there and \(8, 5\) here"):
        checkpoints.restore_latest(ABSTRACT.replace(params=params))
    with pytest.raises(
        DataError, match=r"does not fit this model and optimizer: ema/.* there and absent here"
    ):
        checkpoints.restore_latest(ABSTRACT.replace(ema=None))


def test_parameters_alone(checkpoints, directory):
    with pytest.raises(DataError, match="holds no checkpoint that is whole"):
        restore_params(directory)
    save(checkpoints, 1, 2)
    step, found = restore_params(directory)
    assert step == 2
    expected = host_state(2)
    assert_same_bits(found["params"], expected.params)
    assert_same_bits(found["model_state"], expected.model_state)
    assert_same_bits(found["ema"], expected.ema)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(found["params"]))
    assert restore_params(directory, step=1)[0] == 1
    names = {path.name for path in directory.iterdir()}
    flip_a_bit(data_file(directory / "2"))
    with pytest.raises(DataError, match="checkpoints/2: is damaged"):
        restore_params(directory, step=2)
    assert restore_params(directory)[0] == 1
    assert {path.name for path in directory.iterdir()} == names  # a reader changes nothing


def test_parameters_alone_without_the_rest(checkpoints, directory):
    _, state = on_mesh(host_state(4, ema=False, batch_norm=False))
    checkpoints.save(4, state, {})
    checkpoints.wait()
    _, found = restore_params(directory)
    assert found["ema"] is None and found["model_state"] == {}


def test_digests_cover_every_file(checkpoints, directory):
    save(checkpoints, 1)
    listed = json.loads((directory / "1" / "digests.json").read_text())["sha256"]
    files = {p.relative_to(directory / "1").as_posix() for p in (directory / "1").rglob("*") if p.is_file()}
    assert set(listed) == files - {"digests.json"}
    assert "params/_METADATA" in listed and "checkpoint.json" in listed


def tree(**values):
    return {"encoder": {name: np.full((2, 3), value, np.float32) for name, value in values.items()}}


def test_merge_takes_equal_paths():
    target, source = tree(a=0, b=0, c=0), tree(a=1, b=2, z=3)
    merged, report = merge_params(target, source, exclude=["encoder/b"])
    assert {name: leaf[0, 0] for name, leaf in named_leaves(merged)} == {
        "encoder/a": 1,
        "encoder/b": 0,
        "encoder/c": 0,
    }
    assert report.taken == ["encoder/a"]
    assert report.fresh == ["encoder/b", "encoder/c"]
    assert report.unused == ["encoder/b", "encoder/z"]


def test_merge_refuses_other_shapes_and_empty_results():
    source = {"encoder": {"a": np.zeros((3, 3), np.float32)}}
    with pytest.raises(ConfigError, match=r"encoder/a is \(3, 3\) in the source and \(2, 3\) in this model"):
        merge_params(tree(a=0), source)
    merge_params(
        tree(a=0, b=0), source | {"encoder": source["encoder"] | tree(b=1)["encoder"]}, ["encoder/b"]
    )
    with pytest.raises(ConfigError, match="init: no parameter is taken"):
        merge_params(tree(a=0), tree(a=1), include=["encoder"])


@pytest.mark.slow
def test_two_processes_save_and_restore_together(tmp_path):
    """Each holds half of the devices; process 0 verifies and tells the other."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    program = pathlib.Path(__file__).with_name("two_processes.py")
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(program), str(port), str(i), str(tmp_path)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0 and output.rstrip().endswith("done"), output
    assert checkpoint_files.complete_steps(tmp_path) == [3]


def test_parameters_are_taken_from_layers_stacked_or_not():
    one_by_one = {"image_encoder": {f"blocks_{i}": {"w": np.full(2, i, np.float32)} for i in range(3)}}
    stacked = stack_blocks(one_by_one)
    for target, source in ((one_by_one, stacked), (stacked, one_by_one)):
        fresh = jax.tree.map(np.zeros_like, target)
        merged, report = merge_params(fresh, source)
        jax.tree.map(np.testing.assert_array_equal, merged, target)
        assert not report.fresh and not report.unused
