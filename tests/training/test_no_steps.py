"""Runs of no steps: what they start from is evaluated and saved, and nothing is trained."""

import json

import pytest
import tiny

from mmjax.training import evaluate as evaluate_lib
from mmjax.training import loop
from mmjax.training import setup as setup_lib
from mmjax.training import workdir as workdir_lib


@pytest.fixture(scope="module", autouse=True)
def one_device():
    with tiny.on_devices(1):
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    plain = tiny.without_fusion(tiny.plain_config(tiny.write_data(root / "images"), root / "data"))
    return plain | {"checkpoint": {}}


@pytest.fixture(scope="module")
def trained(plain, tmp_path_factory):
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    schedule = {"type": "constant", "peak": 1e-3}
    loop.train(tiny.resolved(plain, total_steps=2, optimizer__schedule=schedule), folder)
    return folder


def test_a_run_of_no_steps_evaluates_what_it_starts_from(plain, trained, tmp_path, monkeypatch):
    config = tiny.resolved(plain, total_steps=0, init={"run": str(trained)})
    monkeypatch.setattr(setup_lib.Setup, "compile_train_step", lambda setup: pytest.fail("compiled a step"))
    monkeypatch.setattr(loop, "prefetch", lambda *_, **__: pytest.fail("read training examples"))
    result = loop.train(config, tmp_path)
    assert result["trained_parameters"] == 0
    expected = json.loads((trained / workdir_lib.RESULT).read_text())["metrics"]
    assert result["steps"] == 0 and result["metrics"] == pytest.approx(expected)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["0"]
    assert loop.train(config, tmp_path) == result


@pytest.mark.parametrize("where", ["evaluation", "save", "result"])
def test_a_run_of_no_steps_that_is_killed_goes_on(plain, tmp_path, monkeypatch, where):
    config = tiny.resolved(plain, total_steps=0)
    place, name = {
        "evaluation": (evaluate_lib.Evaluation, "run"),
        "save": (loop.Checkpoints, "save"),
        "result": (loop, "write_json"),
    }[where]
    with monkeypatch.context() as patch:
        patch.setattr(place, name, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            loop.train(config, tmp_path)
    result = loop.train(config, tmp_path)
    assert result["metrics"] and [line["step"] for line in tiny.metrics_lines(tmp_path)] == [0]
