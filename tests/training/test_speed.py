"""What a run is measured against, its clock, and its profile."""

import gzip
import json
import types

import jax
import jax.numpy as jnp
import pytest

from mmjax.parallel.chips import CHIPS
from mmjax.training import speed
from mmjax.training.profiler import FOLDER, Profiler


def device(kind, process=0, platform="tpu"):
    return types.SimpleNamespace(device_kind=kind, process_index=process, platform=platform)


@pytest.mark.parametrize(("kind", "chip"), [("TPU v5 lite", "v5e"), ("TPU v4", "v4"), ("TPU v6e", "v6e")])
def test_the_peak_of_known_chips_is_the_published_one(kind, chip):
    assert speed.peak_flops([device(kind)] * 4, "float32") == 4 * CHIPS[chip].peak_flops


def test_no_two_chips_have_one_kind():
    kinds = [kind for chip in CHIPS.values() for kind in chip.kinds]
    assert len(set(kinds)) == len(kinds)


def test_the_peak_of_a_cpu_is_measured_once_for_each_process():
    one = speed.peak_flops(jax.devices(), "float32")
    assert 1e9 < one < 1e15
    others = [device("cpu", process, "cpu") for process in (0, 0, 1, 1)]
    assert speed.peak_flops(others, "float32") == 2 * one


class Time:
    """A clock that is set."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(speed.time, "monotonic", lambda: self.now)


def test_where_the_time_of_a_run_goes(monkeypatch):
    now = Time(monkeypatch)
    clock = speed.Clock({}, 0, 8, model_flops=1000, peak_flops=4000.0)
    now.now += 5  # compilation
    with clock.training():
        with clock.waiting_for_data():
            now.now += 1
        now.now += 3
        assert clock.facts(4) == {  # 4 steps in 4 seconds
            "examples": 32,
            "seconds": 9.0,
            "train/examples_per_second": 8.0,
            "train/mfu": 0.25,
            "train/waiting_for_data": 0.25,
        }
        with clock.pause():  # evaluation
            now.now += 7
        with clock.saving():
            now.now += 2
            carried = json.loads(json.dumps(clock.state()))
        assert clock.facts(5)["train/waiting_for_data"] == 0.0

    now.now += 50  # no process runs
    clock = speed.Clock(carried | {"checkpoint_seconds": 2.0}, 5, 8, model_flops=1000, peak_flops=4000.0)
    now.now += 3
    with clock.training():
        now.now += 4
        assert clock.facts(9)["train/mfu"] == 0.25
    now.now += 2  # the last checkpoint is written
    assert clock.summary(9) == {
        "wall_seconds": 27.0,
        "training_seconds": 10.0,
        "examples_per_second": 7.2,
        "model_flops_per_step": 1000,
        "peak_flops_per_second": 4000.0,
        "mfu": 0.225,
        "data_seconds": 1.0,
        "checkpoint_seconds": 2.0,
    }


def test_a_run_that_went_on_on_other_devices_is_measured_against_both(monkeypatch):
    now = Time(monkeypatch)
    first = speed.Clock({}, 0, 8, model_flops=1000, peak_flops=8000.0)
    with first.training():
        now.now += 10  # 20 steps, a quarter of the peak
        carried = first.state()
    second = speed.Clock(carried, 20, 8, model_flops=1000, peak_flops=1000.0)
    with second.training():
        now.now += 20  # 10 steps, half of it
        assert second.facts(30)["train/mfu"] == 0.5
    assert second.summary(30)["mfu"] == pytest.approx(30_000 / (10 * 8000 + 20 * 1000))


def test_what_fails_is_no_training_time(monkeypatch):
    now = Time(monkeypatch)
    clock = speed.Clock({}, 0, 8, model_flops=1000, peak_flops=4000.0)
    with clock.training():
        with pytest.raises(ValueError), clock.pause():
            now.now += 5
            raise ValueError
        assert clock.state()["training_seconds"] == 0.0


def test_a_clock_of_an_older_checkpoint_has_not_waited():
    clock = speed.Clock({"seconds": 3.0, "training_seconds": 2.0}, 5, 8, 1000, 4000.0)
    assert clock.summary(5)["data_seconds"] == 0.0 and clock.seconds() >= 3.0


def traced_steps(folder):
    """The numbers of the steps in the traces that a run has left."""
    numbers = set()
    for file in folder.glob("plugins/profile/*/*.trace.json.gz"):
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
        numbers |= {int(e["args"]["step_num"]) for e in events if e.get("name") == "train" and "args" in e}
    return numbers


def test_a_profile_begins_with_the_second_step(tmp_path):
    step = jax.jit(lambda x: x @ x)
    x = jnp.ones((8, 8))
    with Profiler(tmp_path, 2) as profiler:
        for number in range(10, 15):
            with profiler.step(number):
                x = step(x)
            profiler.after(x)
    assert traced_steps(tmp_path / FOLDER) == {11, 12}


def test_a_run_that_ends_early_keeps_its_profile_and_none_is_none(tmp_path):
    with Profiler(tmp_path / "early", 5) as profiler:
        for number in range(3):
            with profiler.step(number):
                pass
    assert traced_steps(tmp_path / "early" / FOLDER) == {1, 2}
    with Profiler(tmp_path / "none", 0) as profiler:
        for number in range(3):
            with profiler.step(number):
                pass
    assert not (tmp_path / "none").exists()
