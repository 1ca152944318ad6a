"""Training as a whole, in this process: what stops a run, and how it goes on.

Runs of one config share their `Setup` and its compiled step here, which each process makes anew;
`tests/test_end_to_end.py` starts processes.
"""

import contextlib
import json
import logging
import os
import pathlib
import shutil
import signal
import sys

import jax
import numpy as np
import pytest
import tiny

from mmjax import config as config_lib
from mmjax.data.pipeline import TrainPipeline
from mmjax.errors import ConfigError, DataError, NonFiniteError, Preempted
from mmjax.parallel.placement import named_leaves
from mmjax.training import evaluate as evaluate_lib
from mmjax.training import loop
from mmjax.training import setup as setup_lib
from mmjax.training import workdir as workdir_lib
from mmjax.training.checkpoints import restore_params
from mmjax.training.model_flops import model_flops

STEPS = 9  # checkpoints after 3, 6, 9; lines of the log after 4, 8, 9; an evaluator after 5 and 9


@pytest.fixture(scope="module", autouse=True)
def shared_setups():
    """One device, and one compiled step for all runs of a config on the same data."""
    setups, steps = {}, {}
    set_up, compile_train_step = loop.set_up, setup_lib.Setup.compile_train_step
    make_eval_step = evaluate_lib.make_eval_step

    def shared(config, data):
        key = config_lib.to_json(config) + json.dumps(data.facts())
        if key not in setups:
            setups[key] = set_up(config, data)
        return setups[key]

    def shared_step(setup):
        if id(setup) not in steps:
            steps[id(setup)] = compile_train_step(setup)
        return steps[id(setup)]

    def shared_eval_step(model, names, **settings):
        return steps.setdefault((id(model), tuple(names)), make_eval_step(model, names, **settings))

    with tiny.on_devices(1), pytest.MonkeyPatch.context() as patch:
        for module in (loop, evaluate_lib):
            patch.setattr(module, "set_up", shared)
        patch.setattr(setup_lib.Setup, "compile_train_step", shared_step)
        patch.setattr(evaluate_lib, "make_eval_step", shared_eval_step)
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return tiny.without_fusion(tiny.plain_config(tiny.write_data(root / "images"), root / "data"))


@pytest.fixture(scope="module")
def config(plain):
    return tiny.resolved(plain)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    loop.train(config, workdir)
    return workdir


class Killed(BaseException):
    """Stands for whatever ends a process between two lines of code."""


def kill():
    raise Killed


def run(config, workdir, at=None, action=kill):
    """Trains, with `action` when step `at` has just been computed. Returns the steps that were made."""
    made, add = [], loop.FiniteCheck.add

    def add_and_act(self, step, values):
        made.append(step)
        if step == at:
            action()
        add(self, step, values)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(loop.FiniteCheck, "add", add_and_act)
        loop.train(config, workdir)
    return made


def change_batches(monkeypatch, change):
    """`change(step, batch)` is the batch that each step reads."""
    batches = TrainPipeline.batches

    def changed(self, start_step=0):
        for step, batch in enumerate(batches(self, start_step), start=start_step + 1):
            yield change(step, batch)

    monkeypatch.setattr(TrainPipeline, "batches", changed)


def assert_ended_as(whole, workdir):
    """The state, the metrics on the way and the result are those of the undisturbed run."""
    step, expected = tiny.saved(whole)
    found_step, found = tiny.saved(workdir)
    assert found_step == step == STEPS
    assert tiny.differing(found, expected) == []
    assert tiny.metrics_lines(workdir) == tiny.metrics_lines(whole)
    results = [json.loads((path / "result.json").read_text()) for path in (workdir, whole)]
    assert results[0]["metrics"] == results[1]["metrics"]


def test_the_config_a_run_leaves_gives_the_same_run(whole, tmp_path):
    run(config_lib.resolve(str(whole / "config.json")), tmp_path)
    assert_ended_as(whole, tmp_path)


def test_the_moving_average_is_what_is_evaluated(whole, config):
    result = json.loads((whole / "result.json").read_text())
    step, metrics = evaluate_lib.evaluate_checkpoint(config_lib.resolve(str(whole / "config.json")), whole)
    assert (step, metrics) == (STEPS, result["metrics"])

    setup = loop.set_up(*filled(config))
    _, saved = restore_params(whole / "checkpoints")
    evaluation = evaluate_lib.Evaluation(setup, whole)
    other = evaluation.run_on(["colour"], STEPS, saved["params"], saved["model_state"])
    name = "classification/colour_logits/ece"
    assert other[name] != metrics[name]


def test_what_a_run_leaves(whole, config):
    assert [line["step"] for line in tiny.metrics_lines(whole)] == [4, 5, 8, 9, 9]
    result = json.loads((whole / "result.json").read_text())
    assert result["steps"] == STEPS
    assert result["examples_per_second"] > 0
    assert result["wall_seconds"] > result["training_seconds"] > result["data_seconds"] > 0
    assert result["model_flops_per_step"] == model_flops(loop.set_up(*filled(config)))
    rate = result["examples_per_second"] / config.batch_size * result["model_flops_per_step"]
    assert result["mfu"] == pytest.approx(rate / result["peak_flops_per_second"]) and 0 < result["mfu"] < 1
    assert {"classification/colour_logits/accuracy", "retrieval/image_to_text/R@1"} <= set(result["metrics"])
    _, state = tiny.saved(whole)
    assert result["parameters"] == sum(x.size for name, x in state.items() if name.startswith("params/"))
    assert any(name.startswith("model_state/batch_stats/") for name in state)
    assert any(name.startswith("ema/") for name in state)
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["6", "9"]
    assert json.loads((whole / "config.json").read_text())["seed"] == config.seed


def test_a_run_killed_at_any_step_ends_with_the_same_bits(whole, config, tmp_path):
    assert run(config, tmp_path, at=2) == [1, 2]  # before any checkpoint
    assert run(config, tmp_path, at=5) == [1, 2, 3, 4, 5]
    assert run(config, tmp_path, at=6) == [4, 5, 6]  # within a line of the log, after an evaluation
    assert run(config, tmp_path, at=8) == [4, 5, 6, 7, 8]
    assert run(config, tmp_path) == [7, 8, 9]
    assert_ended_as(whole, tmp_path)


@pytest.mark.parametrize("damage", ["a flipped bit", "a missing file"])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(whole, config, tmp_path, caplog, damage):
    workdir = tmp_path / "run"
    run(config, workdir, at=8)
    newest = workdir / "checkpoints" / "6"
    file = tiny.largest_file(newest)
    if damage == "a flipped bit":
        tiny.flip_a_bit(file)
    else:
        file.unlink()
    with caplog.at_level(logging.INFO):
        assert run(config, workdir) == [4, 5, 6, 7, 8, 9]
    assert f"checkpoint {newest} cannot be used ({file.relative_to(newest)}" in caplog.text
    assert "going on after step 3 of 9" in caplog.text
    assert (workdir / "checkpoints" / "6.damaged").is_dir()
    assert_ended_as(whole, workdir)


def test_sigterm_saves_exactly_this_step(whole, config, tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="step 5 is saved in .*; start again to go on") as caught:
        run(config, tmp_path, at=5, action=lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert caught.value.exit_code == 75
    assert signal.getsignal(signal.SIGTERM) is handler
    assert tiny.saved(tmp_path)[0] == 5
    assert run(config, tmp_path) == [6, 7, 8, 9]
    assert_ended_as(whole, tmp_path)


def test_sigterm_that_comes_too_late_goes_to_the_handler_before(whole, config, tmp_path):
    """Else a process that trains several runs would never hear of it."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: heard.append(signum))
    try:
        run(config, tmp_path, at=STEPS, action=lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert heard == [signal.SIGTERM]
        with pytest.raises(Preempted):
            run(config, tmp_path / "b", at=5, action=lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert_ended_as(whole, tmp_path)


def test_an_observer_sees_evaluations_on_the_way_and_may_end_the_run(whole, config, tmp_path):
    seen = []

    def observe(step, metrics):
        seen.append((step, metrics["classification/colour_logits/accuracy"]))
        assert tiny.metrics_lines(tmp_path)[-1] == {"step": step, **metrics}

    loop.train(config, tmp_path, observe=observe)
    lines = [line for line in tiny.metrics_lines(tmp_path) if "classification/colour_logits/accuracy" in line]
    assert seen == [(5, lines[0]["classification/colour_logits/accuracy"])]  # and not the one at the end
    assert_ended_as(whole, tmp_path)

    def stop(step, metrics):
        raise Killed

    with pytest.raises(Killed):
        loop.train(config, tmp_path / "b", observe=stop)
    assert not (tmp_path / "b" / "result.json").exists()
    assert run(config, tmp_path / "b") == [4, 5, 6, 7, 8, 9]  # from the checkpoint before
    assert_ended_as(whole, tmp_path / "b")


@pytest.mark.parametrize("step", [7, 8])  # 8 is a line of the log
def test_a_loss_that_is_not_finite(whole, config, tmp_path, monkeypatch, step):
    def spoil(now, batch):
        return batch | {"image": batch["image"] * np.float32(np.inf)} if now == step else batch

    with monkeypatch.context() as patch:
        change_batches(patch, spoil)
        with pytest.raises(NonFiniteError) as caught:
            loop.train(config, tmp_path)
    assert caught.value.exit_code == 4
    message = str(caught.value)
    assert message.startswith(f"step {step}: not finite: loss, outputs/")
    assert "gradients/image_encoder" in message
    assert f"the last good checkpoint is step 6 in {tmp_path / 'checkpoints'}" in message
    assert all(np.isfinite(x) for line in tiny.metrics_lines(tmp_path) for x in line.values())
    assert all(np.isfinite(x).all() for x in tiny.saved(tmp_path)[1].values())
    assert run(config, tmp_path) == [7, 8, 9]  # the data has been mended
    assert_ended_as(whole, tmp_path)


def test_a_record_that_cannot_be_read_costs_nothing(whole, config, tmp_path, monkeypatch):
    def fail(now, batch):
        if now == 6:
            raise DataError("example 17: the disk is gone")
        return batch

    with monkeypatch.context() as patch:
        change_batches(patch, fail)
        with pytest.raises(DataError, match="the disk is gone"):
            loop.train(config, tmp_path)
    assert tiny.saved(tmp_path)[0] == 5
    assert run(config, tmp_path) == [6, 7, 8, 9]
    assert_ended_as(whole, tmp_path)


@pytest.mark.parametrize("step", [5, 9])
def test_an_evaluator_that_fails_costs_nothing(whole, config, tmp_path, monkeypatch, step):
    def fail(self, names, now, state):
        if now == step:
            raise ValueError("no evaluation today")
        return evaluate(self, names, now, state)

    evaluate = loop.Evaluation.run
    with monkeypatch.context() as patch:
        patch.setattr(loop.Evaluation, "run", fail)
        with pytest.raises(ValueError, match="no evaluation today"):
            loop.train(config, tmp_path)
    assert tiny.saved(tmp_path)[0] == step
    assert run(config, tmp_path) == list(range(step + 1, STEPS + 1))  # after the evaluation that is missing
    assert_ended_as(whole, tmp_path)


def test_a_finished_run_is_not_trained_again(whole, config, monkeypatch):
    monkeypatch.setattr(loop, "load_data", None)  # nor is its data looked at
    result = json.loads((whole / "result.json").read_text())
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert run(config, whole) == []
    assert loop.train(config, whole) == result
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_another_config_is_refused(whole, plain, monkeypatch):
    monkeypatch.setattr(loop, "load_data", None)  # which is told before the data is looked at
    changed = tiny.resolved(plain, optimizer__schedule__peak=0.5, batch_size=16)
    with pytest.raises(ConfigError) as caught:
        loop.train(changed, whole)
    assert "holds a run of another config" in str(caught.value)
    assert "optimizer.schedule.peak: 0.003 -> 0.5" in str(caught.value)
    assert "batch_size: 8 -> 16" in str(caught.value)


def test_another_tokenizer_is_refused_too(whole, plain):
    changed = tiny.resolved(plain, data__tokenizers__second={"type": "wordpiece", "features": ["text"]})
    with pytest.raises(ConfigError, match="data.tokenizers.second"):
        loop.train(changed, whole)


@pytest.mark.parametrize("colour", ["red", "violet"])  # violet is a class more, so that sizes change too
def test_changed_data_is_refused(whole, plain, tmp_path, colour):
    images = pathlib.Path(plain["data"]["train"]["path"]).parent
    rows = [json.loads(line) for line in (images / "rows.jsonl").read_text().splitlines()]
    rows[0] |= {"text": "something else", "colour": colour}
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    (workdir / "result.json").unlink()  # a finished run needs its data no more
    manifest = images / "rows.jsonl"
    original = manifest.read_text()
    try:
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(DataError, match="its data has changed since the run began"):
            loop.train(tiny.resolved(plain), workdir)
    finally:
        manifest.write_text(original)


def test_other_files_are_refused_before_anything_is_done(config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "load_data", None)  # nothing may be prepared
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="is not empty and not a run; choose another directory"):
        loop.train(config, tmp_path)
    with pytest.raises(ConfigError, match="is a file; choose a directory"):
        loop.train(config, tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"evals__colour__head": "color_logits"},
            ConfigError,
            "evals.colour: 'color_logits' is neither an output of the model nor in the batch of 'test' "
            r"\(did you mean 'colour_logits'\?\)",
        ),
        (
            {"evals__colour__every_epochs": 1.0},
            ConfigError,
            "evals.colour.every_steps and evals.colour.every_epochs are both set",
        ),
        (
            {"checkpoint__every_percent": 110.0, "checkpoint__every_steps": None},
            ConfigError,
            "checkpoint.every_percent: got 110.0, expected 0 to 100",
        ),
        ({"checkpoint__keep": 0}, ConfigError, "checkpoint.keep: got 0, expected 1 or more"),
        (
            {"checkpoint__best_metric": "colour/accuracy"},
            ConfigError,
            "checkpoint.best_metric: no evaluator gives 'colour/accuracy'; expected one of: "
            "classification/colour_logits/...",
        ),
        ({"init__run": "nowhere"}, DataError, "nowhere/checkpoints: holds no checkpoint that is whole"),
        ({"log__wandb": True}, ConfigError, "log.wandb=true: wandb is not installed"),
    ],
)
def test_what_cannot_run_leaves_no_directory(plain, tmp_path, monkeypatch, changes, error, message):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(error, match=message):
        loop.train(tiny.resolved(plain, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_without_evaluators_and_checkpoints_on_the_way(plain, tmp_path):
    config = tiny.resolved(plain, evals={}, checkpoint={}, log__tensorboard=True)
    result = loop.train(config, tmp_path)
    assert result["metrics"] == {}
    assert [line["step"] for line in tiny.metrics_lines(tmp_path)] == [4, 8, 9]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["9"]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_init_takes_parameters_and_statistics(whole, plain):
    """Parameters are those of the moving average, which was evaluated; what is excluded starts fresh."""
    excluded = ("colour_logits_head/", "image_encoder/stage_0_block_0/norm/")
    patterns = [f"{path}.*" for path in excluded]
    setup = loop.set_up(*filled(tiny.resolved(plain, seed=4, init={"run": str(whole), "exclude": patterns})))
    state = jax.device_get(loop.initial_state(setup))
    fresh = jax.device_get(loop.create_state(setup.model, setup.batch, setup.tx, setup.abstract, seed=4))
    _, source = tiny.saved(whole)

    for part, item in (("params", "ema"), ("model_state", "model_state")):
        found, fresh_ones = (dict(named_leaves(getattr(s, part))) for s in (state, fresh))
        for name, value in found.items():
            inner = name.removeprefix("batch_stats/")
            expected = fresh_ones[name] if inner.startswith(excluded) else source[f"{item}/{name}"]
            assert np.array_equal(value, expected), name
        assert sum(not np.array_equal(found[name], fresh_ones[name]) for name in found) >= 2
    assert tiny.differing(dict(named_leaves(state.ema)), dict(named_leaves(state.params))) == []


def test_many_texts_are_encoded_in_parts(whole, config, monkeypatch):
    setup = loop.set_up(*filled(config))
    evaluation = evaluate_lib.Evaluation(setup, whole)
    _, saved = restore_params(whole / "checkpoints")
    texts = [f"a red square, number {i}" for i in range(7)]

    def encode():
        return evaluation._encode(saved["params"], saved["model_state"], "text", texts, "text_embedding")

    at_once = encode()
    monkeypatch.setattr(evaluate_lib, "_TEXTS", 3)
    assert at_once.shape == (7, 8)
    np.testing.assert_allclose(encode(), at_once, rtol=1e-5, atol=1e-6)


def filled(config):
    data = setup_lib.load_data(config, None)
    return setup_lib.fill_sizes(config, data), data


def test_two_processes_do_not_train_in_one_directory(config, tmp_path):
    with workdir_lib.lock(tmp_path / "run"):
        with pytest.raises(ConfigError, match="run: another process is training there; wait until it ends"):
            loop.train(config, tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert run(config, tmp_path / "run", at=2) == [1, 2]  # free again, and not in the way
    assert run(config, tmp_path / "run", at=2) == [1, 2]
